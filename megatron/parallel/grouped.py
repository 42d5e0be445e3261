"""Linear layers in groups: rows sorted by group, each with the matrix and the bias of its group. Matrices of
all groups are one tensor [outputs, groups, inputs].

A GPU has one kernel for all groups (`F.grouped_mm`); elsewhere a loop goes over them. The gradient of the
matrices is made in their own layout: one that lies transposed takes longer to add up than to compute.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from megatron.parallel.deferred import Deferred

ALIGNED = 16
"""Bytes of which rows are a multiple, as F.grouped_mm asks for."""


class Groups(NamedTuple):
    """Of M rows, sorted by group: `of` [M], the number of each one's group, or how many there are for rows
    past the last group; `ends` [groups], int32; `whole`: no row is past the last group. `sizes`: rows of
    every group, then those past the last, where a loop goes over them; else None."""

    of: Tensor
    ends: Tensor
    whole: bool
    sizes: list[int] | None


def groups_of(numbers_M: Tensor, count: int, whole: bool, kernel: bool) -> Groups:
    """Of ascending numbers up to `count`. Without the kernel a GPU is waited for."""
    counts = counts_of(numbers_M, count)
    ends = counts.cumsum(0).to(torch.int32)
    if kernel:
        return Groups(numbers_M, ends, whole, None)
    if isinstance(counts, FakeTensor):  # has a shape and no content: all rows are as good as one group's
        return Groups(numbers_M, ends, whole, [len(numbers_M)] + [0] * count)
    sizes = counts.tolist()
    return Groups(numbers_M, ends, whole, [*sizes, len(numbers_M) - sum(sizes)])


def counts_of(numbers: Tensor, count: int) -> Tensor:
    """How often every number below `count` is there, int64; others are at most `count`."""
    counts = torch.zeros(count + 1, dtype=torch.int64, device=numbers.device)
    return counts.scatter_add(0, numbers, torch.ones_like(numbers))[:count]


def has_kernel(weight_OGI: Tensor, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for such matrices in this precision, and for their gradients."""
    outputs, _, inputs = weight_OGI.shape
    aligned = all(width * dtype.itemsize % ALIGNED == 0 for width in (outputs, inputs))
    return weight_OGI.is_cuda and aligned and dtype != torch.float64 and hasattr(F, "grouped_mm")


def grouped_linear(
    x_MI: Tensor,
    weight_OGI: nn.Parameter,
    bias_GO: nn.Parameter | None,
    groups: Groups,
    deferred: Deferred | None = None,
) -> Tensor:
    """x·Wᵀ + b of every row in the precision of x; 0 past the last group. With `deferred` the gradients of W
    and b are added to those that they have, now or later, and autograd does not see W and b."""
    if deferred is not None:
        y: Tensor = _GroupedLinear.apply(x_MI, None, None, (weight_OGI, bias_GO), groups, deferred)
        return y
    bias = None if bias_GO is None else bias_GO.to(x_MI.dtype)
    seen: Tensor = _GroupedLinear.apply(x_MI, weight_OGI.to(x_MI.dtype), bias, None, groups, None)
    return seen


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        hidden: tuple[nn.Parameter, nn.Parameter | None] | None,
        groups: Groups,
        deferred: Deferred | None,
    ) -> Tensor:
        if hidden is not None:
            weight, bias = (None if one is None else one.to(x.dtype) for one in hidden)
            ctx.save_for_backward(x)
        else:
            ctx.save_for_backward(x, weight)
        assert weight is not None
        ctx.hidden, ctx.groups, ctx.deferred, ctx.biased = hidden, groups, deferred, bias is not None
        return _outputs(x, weight, bias, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (x, *seen), groups, deferred = ctx.saved_tensors, ctx.groups, ctx.deferred
        if seen:
            bias = _bias_gradient(grad, groups) if ctx.biased else None
            return (
                _input_gradient(grad, seen[0], groups),
                _weight_gradient(grad, x, groups),
                bias,
                *[None] * 3,
            )
        weight, bias = ctx.hidden

        def work() -> None:
            deferred.grow(weight, lambda into: _add_weight_gradient(into, grad, x, groups))
            if bias is not None:
                deferred.grow(bias, lambda into: into.add_(_bias_gradient(grad, groups)))

        deferred.later(work)
        return _input_gradient(grad, weight.to(grad.dtype), groups), *[None] * 5


def _outputs(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups) -> Tensor:
    if groups.sizes is None:
        y = F.grouped_mm(x, weight.permute(1, 2, 0), offs=groups.ends)
        if bias is not None:
            y = y + bias.index_select(0, groups.of.clamp(max=len(bias) - 1))
        return _inside(y, groups)
    y = x.new_empty((len(x), len(weight)))
    *parts, past = y.split(groups.sizes)
    past.zero_()
    biases = [None] * len(parts) if bias is None else bias.unbind()
    for out, rows, one, add in zip(parts, x.split(groups.sizes), weight.unbind(1), biases):
        if add is None:
            torch.mm(rows, one.T, out=out)
        else:
            torch.addmm(add, rows, one.T, out=out)
    return y


def _input_gradient(grad: Tensor, weight: Tensor, groups: Groups) -> Tensor:
    if groups.sizes is None:
        return _inside(F.grouped_mm(grad, weight.transpose(0, 1), offs=groups.ends), groups)
    found = grad.new_empty((len(grad), weight.shape[2]))
    *parts, past = found.split(groups.sizes)
    past.zero_()
    for out, rows, one in zip(parts, grad.split(groups.sizes), weight.unbind(1)):
        torch.mm(rows, one, out=out)
    return found


def _inside(rows: Tensor, groups: Groups) -> Tensor:
    """The kernel's rows, which it leaves undefined past the last group."""
    if groups.whole:
        return rows
    computed = torch.arange(len(rows), device=rows.device) < groups.ends[-1]
    return torch.where(computed[:, None], rows, 0)


def _weight_gradient(grad: Tensor, x: Tensor, groups: Groups, into: Tensor | None = None) -> Tensor:
    """Of all matrices, in the precision of `grad`; added to `into`, where that is given."""
    if groups.sizes is None:
        found = F.grouped_mm(grad.T, x, offs=groups.ends).transpose(0, 1)
        return found if into is None else into.add_(found)
    kept = 0 if into is None else 1
    if into is None:
        into = grad.new_empty((grad.shape[1], len(groups.ends), x.shape[1]))
    for out, rows, inputs in zip(into.unbind(1), grad.split(groups.sizes), x.split(groups.sizes)):
        out.addmm_(rows.T, inputs, beta=kept)
    return into


def _add_weight_gradient(into: Tensor, grad: Tensor, x: Tensor, groups: Groups) -> None:
    if into.dtype == grad.dtype:
        _weight_gradient(grad, x, groups, into)
    else:
        into.add_(_weight_gradient(grad, x, groups))


def _bias_gradient(grad: Tensor, groups: Groups) -> Tensor:
    if groups.sizes is None:
        found = grad.new_zeros((len(groups.ends) + 1, grad.shape[1]))
        return found.index_add_(0, groups.of, grad)[:-1]
    *parts, _ = grad.split(groups.sizes)
    return torch.stack([rows.sum(0) for rows in parts])
