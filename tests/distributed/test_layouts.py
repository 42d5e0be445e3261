"""The whole training step in double precision, with curriculum, random-LTD, dropout, accumulation and
clipping: every layout of ranks gives the losses, gradient norms and weights of one rank."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import pytest
import torch

from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh
from tests.support.layouts import BASE, MODELS, layout_and_flags, layout_run, train_steps
from tests.support.ranks import run_layout


class Curve(NamedTuple):
    """Losses and gradient norms by step, and at last this rank's part of every weight with its place."""

    points: torch.Tensor
    weights: dict[str, tuple[tuple[int, ...], torch.Tensor]]


def train(mesh: Mesh, flags: str, precision: torch.dtype) -> Curve:
    run = layout_run(mesh, flags, precision)
    points = train_steps(run, 1, run.plan.steps)
    weights = {name: (run.placements[name].offset, one.detach()) for name, one in run.parameters.items()}
    return Curve(torch.tensor(points, dtype=torch.float64), weights)


@cache
def one_rank(model: str, precision: torch.dtype) -> Curve:
    (curve,) = run_layout(Layout(), train, BASE + MODELS[model], precision)
    return curve


def deviations(model: str, layout: str, precision: torch.dtype) -> tuple[float, float, float]:
    """Largest relative deviations of loss and gradient norm, and largest one of a weight, from one rank."""
    place, flags = layout_and_flags(BASE + MODELS[model] + layout)
    curves: Iterable[Curve] = run_layout(place, train, flags, precision)
    wanted, worst = one_rank(model, precision), torch.zeros(2, dtype=torch.float64)
    weight = 0.0
    for curve in curves:
        worst = torch.maximum(worst, ((curve.points - wanted.points) / wanted.points).abs().amax(0))
        for name, (offset, part) in curve.weights.items():
            _, whole = wanted.weights[name]
            box = tuple(slice(low, low + size) for low, size in zip(offset, part.shape))
            weight = max(weight, float((whole[box] - part).abs().max()))
    return *worst.tolist(), weight


TENSOR = "--tensor-model-parallel-size {} "
CONTEXT = "--context-parallel-size {} --cp-comm-type {} "
PIPELINE = "--pipeline-model-parallel-size {} "
SP = "--sequence-parallel "
ZERO = "--use-distributed-optimizer "
LAYOUTS = {
    "tp2": TENSOR.format(2),
    "tp4": TENSOR.format(4),
    "tp2+sp": TENSOR.format(2) + SP,
    "pp2": PIPELINE.format(2),
    "pp4": PIPELINE.format(4),
    "pp2 gpipe": PIPELINE.format(2) + "--pipeline-schedule gpipe",
    "pp2 interleaved": PIPELINE.format(2) + "--num-virtual-stages-per-pipeline-rank 2",
    "pp2 zero-bubble": PIPELINE.format(2) + "--pipeline-schedule zero-bubble",
    "cp2 allgather": CONTEXT.format(2, "allgather"),
    "cp2 a2a": CONTEXT.format(2, "a2a"),
    "cp2 p2p": CONTEXT.format(2, "p2p"),
    "cp4 allgather": CONTEXT.format(4, "allgather"),
    "cp4 p2p": CONTEXT.format(4, "p2p"),
    "dp2": "--dp 2",
    "tp2·pp2": TENSOR.format(2) + PIPELINE.format(2),
    "tp2·dp2": TENSOR.format(2) + "--dp 2",
    "tp2+sp·cp2": TENSOR.format(2) + SP + CONTEXT.format(2, "allgather"),
    "pp2·cp2": PIPELINE.format(2) + CONTEXT.format(2, "a2a"),
    "tp2·pp2·dp2": TENSOR.format(2) + PIPELINE.format(2) + "--dp 2",
    "dp2 zero": ZERO + "--dp 2",
    "cp2 zero": ZERO + CONTEXT.format(2, "p2p"),
    "tp2·dp2 zero": ZERO + TENSOR.format(2) + "--dp 2",
    "tp2+sp·dp2 zero": ZERO + TENSOR.format(2) + SP + "--dp 2",
    "pp2·dp2 zero": ZERO + PIPELINE.format(2) + "--dp 2",
    "pp2·dp2 zero-bubble zero": ZERO + PIPELINE.format(2) + "--pipeline-schedule zero-bubble --dp 2",
    "cp2·dp2 zero": ZERO + CONTEXT.format(2, "allgather") + "--dp 2",
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_the_same_model(layout: str, model: str) -> None:
    loss, norm, weight = deviations(model, LAYOUTS[layout], torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)
