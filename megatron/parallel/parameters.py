"""Parameters as boxes of global tensors, drawn by name, so that any layout of ranks starts from the same weights."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import nn

from megatron.random import key, normal


class Box(NamedTuple):
    """Where a local tensor lies in the global tensor of its name."""

    global_shape: tuple[int, ...]
    offset: tuple[int, ...]


def new_parameter(shape: tuple[int, ...], *, std: float = 0.0, value: float = 0.0) -> nn.Parameter:
    """A whole tensor to be drawn by `draw_parameters`: normal with `std`, or constant where it is 0."""
    parameter = nn.Parameter(torch.empty(shape))
    parameter.box = Box(shape, (0,) * len(shape))  # type: ignore[attr-defined]
    parameter.initial = (std, value)  # type: ignore[attr-defined]
    return parameter


def box_of(parameter: nn.Parameter) -> Box:
    """The box that `new_parameter` gave."""
    return parameter.box  # type: ignore[attr-defined]


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


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Global names and parameters, each parameter once, in the model's order."""
    return model.named_parameters()
