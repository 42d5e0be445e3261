"""Weights drawn by name, so that any layout of ranks starts from the same ones."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from megatron.base.keys import key
from megatron.base.random import normal
from megatron.parallel.placement import box_of, named_parameters


def draw_parameters(model: nn.Module, seed: int) -> None:
    """Fill every parameter from (seed, its global name, place in the global tensor)."""

    def fill(item: tuple[str, nn.Parameter]) -> None:
        name, parameter = item
        std, value = parameter.initial  # type: ignore[attr-defined]
        if not std:
            parameter.data.fill_(value)
            return
        box = box_of(parameter)
        numbers = normal(key(seed, name), box.global_shape, box.offset, tuple(parameter.shape))
        parameter.data.copy_(torch.from_numpy(numbers).mul_(std))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, named_parameters(model)))
