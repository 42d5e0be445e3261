"""Where every local tensor of a model lies in the global tensor of its name.

A layer says it of its own parameters when it is built; `placements` collects the table of a whole model.
It serves the first weights, the sums of gradients and the checkpoints. Nothing is kept on the tensors
themselves, which moving a model off the meta device replaces.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from megatron.parallel.mesh import ALONE, Axis, Mesh


class Placement(NamedTuple):
    """A box of a global tensor: its global shape, where the box begins, over which axes of the mesh its
    gradient is summed, along which of them other ranks hold the same box, and its first values: normal with
    `std`, or constant where that is 0. `shard`: the axis whose ranks may share the rows of the box."""

    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    sum_over: tuple[str, ...] = ("data", "context")
    copies_over: tuple[str, ...] = ("data", "context", "tensor")
    std: float = 0.0
    value: float = 0.0
    shard: str = "shard"


def add_parameter(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    *,
    split: int | None = None,
    axis: Axis = ALONE,
    sum_over: tuple[str, ...] = ("data", "context"),
    copies: tuple[str, ...] = (),
    std: float = 0.0,
    value: float = 0.0,
) -> None:
    """Give a module a parameter of this global shape, unfilled: whole, or along the dimension `split` this
    rank's share on the tensor `axis`. `copies`: more axes along which others hold the same."""
    copies = ("data", "context", *copies)
    if split is None or axis.size == 1:
        split, copies = None, (*copies, "tensor")
    placement = Placement(shape, (0,) * len(shape), sum_over, copies, std, value)
    add_box(module, name, placement, {} if split is None else {split: axis})


def add_expert_parameter(
    module: nn.Module, name: str, shape: tuple[int, ...], splits: Mapping[int, Axis], std: float = 0.0
) -> None:
    """The same for a parameter of experts, which is split along several dimensions, each over its axis."""
    alike = ("expert_data",)
    placement = Placement(shape, (0,) * len(shape), alike, alike, std, shard="expert_shard")
    add_box(module, name, placement, splits)


def add_box(module: nn.Module, name: str, whole: Placement, splits: Mapping[int, Axis]) -> None:
    """Give a module its part of a whole parameter, this rank's share along each of these dimensions."""
    shape, offset = list(whole.global_shape), list(whole.offset)
    for dim, axis in splits.items():
        offset[dim], shape[dim] = share(shape[dim], axis)
    module.register_parameter(name, nn.Parameter(torch.empty(shape)))
    table = {**getattr(module, "placements", {}), name: whole._replace(offset=tuple(offset))}
    module.placements = table  # type: ignore[assignment]


def share(total: int, axis: Axis) -> tuple[int, int]:
    """Where this rank's run of `total` rows begins, and how many it has: the first ranks have one more where
    the rows do not divide."""
    each, more = divmod(total, axis.size)
    return axis.rank * each + min(axis.rank, more), each + (axis.rank < more)


def placements(model: nn.Module) -> dict[str, Placement]:
    """The placement of every parameter by its global name, in the model's order; ValueError where a
    parameter has none, as one that was not made by `add_parameter`."""
    table = {
        f"{prefix}.{name}" if prefix else name: placement
        for prefix, module in model.named_modules()
        for name, placement in getattr(module, "placements", {}).items()
    }
    if homeless := [name for name, _ in model.named_parameters() if name not in table]:
        raise ValueError(f"no placement for {', '.join(homeless)}; make parameters by add_parameter")
    return table


def copies(axes: tuple[str, ...], mesh: Mesh) -> tuple[int, int]:
    """Which copy this rank holds of what is the same along these axes, and how many there are."""
    number, count = 0, 1
    for axis in (mesh.axis(name) for name in axes):
        number, count = number * axis.size + axis.rank, count * axis.size
    return number, count


def add_constants(module: nn.Module, make: Callable[[], dict[str, Tensor]]) -> None:
    """Give a module tensors that follow from its configuration alone: they are in no checkpoint, and
    `fill_constants` makes them anew."""
    module.make_constants = make  # type: ignore[assignment]
    for name, tensor in make().items():
        module.register_buffer(name, tensor, persistent=False)


def add_states(module: nn.Module, names: tuple[str, ...]) -> None:
    """Say of constants that they are only the first values of what training changes without gradients: every
    rank has them whole, and checkpoints hold them."""
    module.states = names  # type: ignore[assignment]


def states(model: nn.Module) -> dict[str, Tensor]:
    """All of these by their global names."""
    return {
        f"{prefix}.{name}" if prefix else name: getattr(module, name)
        for prefix, module in model.named_modules()
        for name in getattr(module, "states", ())
    }


def whole(tensors: dict[str, Tensor]) -> dict[str, Placement]:
    """The placements of tensors that every rank has whole."""
    return {name: Placement(tuple(one.shape), (0,) * one.dim()) for name, one in tensors.items()}


def fill_constants(model: nn.Module) -> None:
    """Make the constants of all modules anew, as a model needs that was built on the meta device; ValueError
    where a buffer is none of them, as nothing would ever fill it there."""
    filled = set()
    for prefix, module in model.named_modules():
        if make := getattr(module, "make_constants", None):
            for name, tensor in make().items():
                getattr(module, name).copy_(tensor)
                filled.add(f"{prefix}.{name}" if prefix else name)
    if unfilled := [name for name, _ in model.named_buffers() if name not in filled]:
        raise ValueError(f"nothing fills {', '.join(unfilled)}; make buffers by add_constants")
