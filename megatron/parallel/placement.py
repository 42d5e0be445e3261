"""Parameters as boxes of global tensors, drawn by name, so that any layout of ranks starts from the same
weights."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn


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


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Global names and parameters, each parameter once, in the model's order."""
    return model.named_parameters()
