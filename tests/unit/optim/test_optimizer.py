"""AdamW and clipping against their formulas in numpy, and the state that a run goes on with."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from megatron.config.config import OptimizerConfig
from megatron.optim.optimizer import clip, make_optimizer, optimizer_state, restore_optimizer, update
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import Placement
from tests.support.configurations import STOP, make_config

RATES = (0.1, 0.05, 0.2, 0.01)
SHAPES = {"matrix": (3, 4), "vector": (5,), "table": (2, 2)}


def flags() -> OptimizerConfig:
    more = "--weight-decay 0.3 --adam-beta1 0.8 --adam-beta2 0.95 --adam-eps 0.01 "
    return make_config(STOP + more).optimizer


def numbers(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape) for name, shape in SHAPES.items()}


def parameters() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.from_numpy(value)) for name, value in numbers(0).items()}


def steps(optimizer: torch.optim.AdamW, named: dict[str, nn.Parameter], which: range) -> None:
    for step in which:
        for name, gradient in numbers(1 + step).items():
            named[name].grad = torch.from_numpy(gradient)
        update(optimizer, RATES[step])


def test_steps_are_adamws_and_only_matrices_decay() -> None:
    named = parameters()
    steps(make_optimizer(named, flags()), named, range(4))
    for name, w in numbers(0).items():
        m, v = np.zeros_like(w), np.zeros_like(w)
        for step, rate in enumerate(RATES):
            g = numbers(1 + step)[name]
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
            seconds = np.sqrt(v / (1 - 0.95 ** (step + 1))) + 0.01
            w = (
                w * (1 - rate * (0.0 if name == "vector" else 0.3))
                - rate * m / (1 - 0.8 ** (step + 1)) / seconds
            )
        np.testing.assert_allclose(named[name].detach().numpy(), w, rtol=1e-12)


def test_a_restored_state_goes_on_as_if_never_left() -> None:
    whole, parts = parameters(), parameters()
    steps(make_optimizer(whole, flags()), whole, range(4))
    first = make_optimizer(parts, flags())
    assert optimizer_state(first, parts) == {}
    steps(first, parts, range(2))
    state = optimizer_state(first, parts)
    assert state.keys() == {
        f"optimizer.{slot}.{name}" for name in SHAPES for slot in ("exp_avg", "exp_avg_sq")
    }
    second = make_optimizer(parts, flags())
    restore_optimizer(second, parts, [(name, one.clone()) for name, one in state.items()], 2)
    steps(second, parts, range(2, 4))
    for name, one in whole.items():
        assert torch.equal(one, parts[name]), name


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.0, 1.0), (1.0, 1 / 13), (6.5, 0.5), (13.5, 1.0), (100.0, 1.0)]
)
def test_gradients_are_clipped_by_the_norm_of_all_of_them(largest: float, factor: float) -> None:
    """3, 4 and 12 in three tensors have the norm 13."""
    named = {name: nn.Parameter(torch.zeros(1, dtype=torch.float64)) for name in "abc"}
    table = {name: Placement((1,), (0,)) for name in named}
    buckets = GradientBuckets(named, table, Mesh(), 2)
    for one, value in zip(named.values(), (3.0, -4.0, 12.0)):
        one.grad.fill_(value)
    norm = buckets.square().sqrt()
    clip(buckets, norm, largest)
    assert norm.dtype == torch.float64 and float(norm) == pytest.approx(13, rel=1e-12)
    found = [float(one.grad) for one in named.values()]
    assert found == pytest.approx([3 * factor, -4 * factor, 12 * factor], rel=1e-6)
    if factor < 1:
        assert math.hypot(*found) <= largest


def test_models_of_matrices_alone_have_an_optimizer() -> None:
    matrices = {"weight": nn.Parameter(torch.ones(2, 2))}
    optimizer = make_optimizer(matrices, dataclasses.replace(flags(), weight_decay=0.0))
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_biases_of_stacked_experts_do_not_decay() -> None:
    named = {name: nn.Parameter(torch.ones(2, 2)) for name in ("experts.up", "experts.up_bias")}
    groups = make_optimizer(named, flags()).param_groups
    assert [len(group["params"]) for group in groups] == [1, 1]
    assert groups[0]["params"][0] is named["experts.up"] and groups[1]["weight_decay"] == 0
