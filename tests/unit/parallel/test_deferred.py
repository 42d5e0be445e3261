"""A linear layer that leaves the gradients of its weights for later: the same ones, told of once."""

import torch
import torch.nn.functional as F
from torch import nn

from megatron.parallel.deferred import Deferred, deferred_linear


def test_gradients_are_those_of_a_linear_layer_and_are_told_of_when_they_are_there() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((5, 4), (5,)))
    wanted = torch.autograd.grad(F.linear(x, weight, bias).square().sum(), (x, weight, bias))
    told: list[nn.Parameter] = []
    for one in (weight, bias):
        one.register_post_accumulate_grad_hook(told.append)
    deferred = Deferred(told.append)
    deferred.waiting = waiting = []
    y = deferred_linear(x, weight, bias, deferred)
    y.square().sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, wanted[0])
    assert told == [] and weight.grad is None and bias.grad is None
    for work in waiting:
        work()
    assert [id(one) for one in told] == [id(weight), id(bias)]
    torch.testing.assert_close((weight.grad, bias.grad), wanted[1:])
