"""First weights, drawn by name, so that any layout of ranks starts from the same ones."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from megatron.base.keys import key
from megatron.base.random import normal
from megatron.parallel.placement import Placement, fill_constants, placements


def initialize(model: nn.Module, seed: int) -> None:
    """Fill every parameter from (seed, its global name, place in the global tensor), and all constants."""

    def fill(item: tuple[str, Placement]) -> None:
        name, placement = item
        parameter = model.get_parameter(name)
        if not placement.std:
            parameter.data.fill_(placement.value)
            return
        shape = tuple(parameter.shape)
        numbers = normal(key(seed, name), placement.global_shape, placement.offset, shape)
        parameter.data.copy_(torch.from_numpy(numbers).mul_(placement.std))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, placements(model).items()))
    fill_constants(model)
