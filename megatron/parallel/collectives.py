"""Communication inside a model, with its gradients: what goes one way in the forward pass goes the other way
in the backward pass. Along an axis of one rank each of these is nothing at all."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.parallel.mesh import Axis


def copy_to(x: Tensor, axis: Axis) -> Tensor:
    """The same tensor, whose gradients are summed over the axis."""
    return x if axis.group is None else _CopyTo.apply(x, axis)


def sum_from(x: Tensor, axis: Axis) -> Tensor:
    """The sum over the axis, whose gradient every rank has already."""
    return x if axis.group is None else _SumFrom.apply(x, axis)


def gather_along(x: Tensor, axis: Axis, dim: int) -> Tensor:
    """The parts of all ranks, one behind another; their gradients are summed and parted again."""
    return x if axis.group is None else _Gather.apply(x, axis, dim)


def sum_and_part(x: Tensor, axis: Axis, dim: int) -> Tensor:
    """This rank's part of the sum over the axis; the gradients of the parts are gathered."""
    return x if axis.group is None else _Part.apply(x, axis, dim)


def exchange(x: Tensor, send: list[int], receive: list[int], axis: Axis) -> Tensor:
    """`send[r]` rows go to rank r of the axis, in its order, and `receive[r]` come from it; gradients go
    back."""
    return x if axis.group is None else _Exchange.apply(x, send, receive, axis)


def all_gather(x: Tensor, axis: Axis, dim: int = 0) -> Tensor:
    """The parts of all ranks, one behind another along a dimension."""
    if axis.group is None:
        return x
    parts = x.new_empty((axis.size * x.shape[0], *x.shape[1:]))
    gather_parts(parts, x.contiguous(), axis)
    return parts if dim == 0 else torch.cat(parts.chunk(axis.size), dim)


def gather_parts(parts: Tensor, mine: Tensor, axis: Axis, async_op: bool = False) -> dist.Work | None:
    """Fill `parts` with those of all ranks of the axis, one behind another."""
    gather = _named("all_gather_single", "all_gather_into_tensor")
    work: dist.Work | None = gather(parts, mine, group=axis.group, async_op=async_op)
    return work


def reduce_scatter(x: Tensor, axis: Axis, dim: int = 0) -> Tensor:
    """This rank's part along a dimension of the sum over the axis."""
    if axis.group is None:
        return x
    parts = x if dim == 0 else torch.cat(x.chunk(axis.size, dim))
    mine = x.new_empty((len(parts) // axis.size, *parts.shape[1:]))
    scatter_sums(mine, parts.contiguous(), axis)
    return mine


def scatter_sums(mine: Tensor, parts: Tensor, axis: Axis, async_op: bool = False) -> dist.Work | None:
    """Fill `mine` with this rank's part of the sums over the axis of `parts`, one behind another."""
    scatter = _named("reduce_scatter_single", "reduce_scatter_tensor")
    work: dist.Work | None = scatter(mine, parts, group=axis.group, async_op=async_op)
    return work


def _named(name: str, older: str) -> Callable[..., Any]:
    """A function of torch.distributed, which had an older name before torch 2.13."""
    found: Callable[..., Any] = getattr(dist, name, None) or getattr(dist, older)
    return found


def all_to_all(x: Tensor, send: list[int], receive: list[int], axis: Axis) -> Tensor:
    """Rows from all ranks of an axis, `receive[r]` from rank r, for `send[r]` that go there."""
    rows = x.new_empty((sum(receive), *x.shape[1:]))
    dist.all_to_all_single(rows, x.contiguous(), receive, send, group=axis.group)
    return rows


def _summed(x: Tensor, axis: Axis) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=axis.group)
    return total


class _CopyTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        ctx.axis = axis
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _summed(grad, ctx.axis), None


class _SumFrom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        return _summed(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return all_gather(x, axis, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return reduce_scatter(grad, ctx.axis, ctx.dim), None, None


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis, dim: int) -> Tensor:
        ctx.axis, ctx.dim = axis, dim
        return reduce_scatter(x, axis, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return all_gather(grad, ctx.axis, ctx.dim), None, None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int], axis: Axis) -> Tensor:
        ctx.send, ctx.receive, ctx.axis = send, receive, axis
        return all_to_all(x, send, receive, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return all_to_all(grad, ctx.receive, ctx.send, ctx.axis), None, None, None
