"""Linear layers in groups: by the kernel and by the loop the same as one linear layer for each group."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.parallel.deferred import Deferred
from megatron.parallel.grouped import counts_of, grouped_linear, groups_of

GROUPS, OUTPUTS, INPUTS = 4, 24, 16
SIZES = ([5, 0, 7, 3], [0, 0, 15, 0], [0, 0, 0, 0], [4, 4, 4, 3])
WAYS = [
    (torch.float64, False),
    *((dtype, way) for dtype in (torch.float32, torch.bfloat16) for way in (0, 1)),
]


def made(sizes: list[int], tail: int, biased: bool) -> tuple[Tensor, ...]:
    """Numbers of rows, rows, matrices, biases and a direction of the gradients, in double precision."""
    generator = torch.Generator().manual_seed(2)
    numbers = torch.arange(GROUPS + 1).repeat_interleave(torch.tensor([*sizes, tail]))
    shapes = ((len(numbers), INPUTS), (OUTPUTS, GROUPS, INPUTS), (GROUPS, OUTPUTS), (len(numbers), OUTPUTS))
    x, weight, bias, direction = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return numbers, x, weight, bias * biased, direction


def wanted(numbers: Tensor, x: Tensor, weight: Tensor, bias: Tensor, direction: Tensor) -> list[Tensor]:
    """Outputs and gradients of rows, matrices and biases, one linear layer a group."""
    x, weight, bias = (one.detach().double().requires_grad_() for one in (x, weight, bias))
    parts = [F.linear(x[numbers == one], weight[:, one], bias[one]) for one in range(GROUPS)]
    y = torch.cat([*parts, 0 * x[numbers == GROUPS] @ weight[:, 0].T])
    return [y, *torch.autograd.grad((y * direction).sum(), (x, weight, bias))]


def found(
    case: tuple[Tensor, ...], biased: bool, kernel: bool, kept: torch.dtype, deferred: Deferred | None = None
) -> tuple[list[Tensor], nn.Parameter, nn.Parameter]:
    """Outputs, gradient of rows; and parameters kept in a precision."""
    numbers, x, weight, bias, direction = case
    x, weight, bias = x.clone().requires_grad_(), nn.Parameter(weight.to(kept)), nn.Parameter(bias.to(kept))
    groups = groups_of(numbers, GROUPS, bool((numbers < GROUPS).all()), kernel)
    y = grouped_linear(x, weight, bias if biased else None, groups, deferred)
    (y * direction).sum().backward()
    assert x.grad is not None
    return [y, x.grad], weight, bias


@pytest.mark.parametrize(("dtype", "kernel"), WAYS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("tail", [0, 4])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_one_linear_layer_for_each_group(
    dtype: torch.dtype, kernel: bool, sizes: list[int], tail: int, biased: bool
) -> None:
    """A group without rows has gradients of 0, and rows of no group are 0 and have none."""
    numbers, *rest = made(sizes, tail, biased)
    case = numbers, *(one.to(dtype) for one in rest)
    (y, rows), weight, bias = found(case, biased, kernel, dtype)
    assert weight.grad is not None and weight.grad.stride() == weight.stride()
    theirs = wanted(*case)
    # sums of at most 24 products of order 1, of relative precision eps
    near = 24 * 4 * torch.finfo(dtype).eps
    mine = [y, rows, weight.grad, *([bias.grad] if biased else [])]
    for one, other in zip(mine, theirs):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=near)
    assert not y[sum(sizes) :].any() and not rows[sum(sizes) :].any()
    assert [bool(one.any()) for one in weight.grad.unbind(1)] == [size > 0 for size in sizes]


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize(("dtype", "kept"), [(torch.float32,) * 2, (torch.bfloat16, torch.float32)])
def test_deferred_gradients_are_the_same_and_are_added_when_it_is_their_turn(
    dtype: torch.dtype, kept: torch.dtype, kernel: bool
) -> None:
    """Of two micro-batches, in place; a parameter is told of once for each."""
    numbers, *rest = made([5, 0, 7, 3], 2, True)
    case = numbers, *(one.to(dtype) for one in rest)
    (y, rows), weight, bias = found(case, True, kernel, kept)
    told: list[nn.Parameter] = []
    deferred = Deferred(told.append)
    deferred.waiting = waiting = list[Callable[[], None]]()
    again, late, _ = found(case, True, kernel, kept, deferred)
    assert torch.equal(again[0], y) and torch.equal(again[1], rows) and late.grad is None and told == []
    place = late.grad = torch.zeros_like(late)
    for work in waiting * 2:
        work()
    assert late.grad is place and [one is late for one in told] == [True, False] * 2
    assert weight.grad is not None and bias.grad is not None
    near = 24 * 4 * torch.finfo(kept).eps
    for one, other in zip(told[:2], (weight, bias)):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, 2 * other.grad, rtol=0, atol=near)


def test_numbers_are_counted_below_a_limit() -> None:
    assert counts_of(torch.tensor([0, 2, 3, 3, 0, 2, 2]), 3).tolist() == [2, 0, 3]
