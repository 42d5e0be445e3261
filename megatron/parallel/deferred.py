"""Gradients of weights that wait: a zero-bubble pipeline first sends what the stage before needs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Deferred:
    """Where linear layers leave the work on their weights' gradients, while `waiting` is a list. `ready` is
    called for every parameter whose gradient has grown."""

    def __init__(self, ready: Callable[[nn.Parameter], None]):
        self.waiting: list[Callable[[], None]] | None = None
        self.ready = ready

    def later(self, work: Callable[[], None]) -> None:
        """Do it now, or with the others that wait."""
        if self.waiting is None:
            work()
        else:
            self.waiting.append(work)

    @torch.no_grad()
    def grow(self, parameter: nn.Parameter, add: Callable[[Tensor], object]) -> None:
        """Let `add` add to the gradient of a parameter, in place, as the backward pass does."""
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        add(parameter.grad)
        self.ready(parameter)


def deferred_linear(x: Tensor, weight: nn.Parameter, bias: nn.Parameter | None, deferred: Deferred) -> Tensor:
    """y = x·Wᵀ + b in the precision of x, whose backward pass leaves the gradients of W and b for later.
    Autograd does not see W and b: it would call their hooks before the gradients are there."""
    y: Tensor = _Linear.apply(x, (weight, bias), deferred)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameters: tuple[nn.Parameter, nn.Parameter | None], deferred: Deferred
    ) -> Tensor:
        weight, bias = parameters
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.deferred = weight, bias, deferred
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype) if bias is not None else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,), weight, bias, deferred = ctx.saved_tensors, ctx.weight, ctx.bias, ctx.deferred
        inputs, outputs = x.flatten(0, -2), grad.flatten(0, -2)

        def work() -> None:
            deferred.grow(weight, lambda into: into.add_(outputs.T @ inputs))
            if bias is not None:
                deferred.grow(bias, lambda into: into.add_(outputs.sum(0)))

        deferred.later(work)
        return grad @ weight.to(grad.dtype), None, None
