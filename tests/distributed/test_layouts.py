"""The whole training step in double precision, with curriculum, random-LTD, dropout, accumulation and
clipping: every layout of ranks gives the losses, gradient norms and weights of one rank."""

import dataclasses
from collections.abc import Iterable
from functools import cache, partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from megatron.batches.loader import BatchShare
from megatron.config.parallel import ranks_of_model
from megatron.data.vocabulary import Vocabulary
from megatron.model.gpt import LM_LOSS
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh
from megatron.parallel.slices import slices_of
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.setup import build, join, layout_of
from megatron.train.step import train_step
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus
from tests.support.ranks import run_layout

BASE = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 64 --global-batch-size 8 "
    "--micro-batch-size 2 --train-iters 20 --lr 1e-3 --lr-warmup-iters 2 --clip-grad 0.5 "
    "--init-method-std 0.1 --make-vocab-size-divisible-by 8 --hidden-dropout 0.1 "
    "--random-ltd --random-ltd-min 16 --random-ltd-quantum 16 --random-ltd-duration 18 "
)
SEQTRU = "--curriculum seqlen_truncate:min=32,max=64,duration=16,quantum=16 "
SEQRES = "--curriculum seqlen_reshape:min=32,max=64,duration=16,quantum=16 "
LLAMA = (
    "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
    "--untie-embeddings-and-output-weights --num-query-groups 2 --group-query-attention "
)
DOCUMENTS = "--eod-mask-loss --reset-attention-mask --reset-position-ids "
MODELS = {
    "gpt": SEQTRU + "--attention-dropout 0.1 ",
    "llama": SEQRES + LLAMA + "--attention-dropout 0 ",
    "documents": SEQTRU + DOCUMENTS + "--attention-dropout 0.1 --recompute-granularity full ",
    "llama documents": SEQTRU + DOCUMENTS + LLAMA + "--attention-dropout 0 ",
}


class Curve(NamedTuple):
    """Losses and gradient norms by step, and at last this rank's part of every weight with its place."""

    points: torch.Tensor
    weights: dict[str, tuple[tuple[int, ...], torch.Tensor]]


def train(mesh: Mesh, flags: str, precision: torch.dtype, data_parallel_size: int) -> Curve:
    config = make_config(flags, data_parallel_size)
    efficiency, _ = describe(config)
    corpora = {"train": [(None, make_corpus(160, 64))], "valid": [], "test": []}
    task = dataclasses.replace(GPT_TASK, build_model=partial(_model, precision))
    run = build(join(task, config, efficiency, Data(corpora, Vocabulary(50, 0, None))), mesh)
    share = BatchShare(mesh.data.rank, mesh.data.size, config.training.micro_batch_size, slices_of(mesh))
    points = []
    for number in range(1, run.plan.steps + 1):
        step = run.plan.at(number)
        result = train_step(run, step, run.rows.batch(run.sampler, step, share))
        points.append((result.losses[LM_LOSS], result.grad_norm))
    weights = {name: (run.placements[name].offset, one.detach()) for name, one in run.parameters.items()}
    return Curve(torch.tensor(points, dtype=torch.float64), weights)


def _model(precision: torch.dtype, *arguments: Any) -> nn.Module:
    return GPT_TASK.build_model(*arguments).to(precision).train()


@cache
def one_rank(model: str, precision: torch.dtype) -> Curve:
    (curve,) = run_layout(Layout(), train, BASE + MODELS[model], precision, 1)
    return curve


def deviations(model: str, layout: str, precision: torch.dtype) -> tuple[float, float, float]:
    """Largest relative deviations of loss and gradient norm, and largest one of a weight, from one rank."""
    flags, data_parallel_size = BASE + MODELS[model] + layout, 1
    words = layout.split()
    if "--dp" in words:
        data_parallel_size = int(words[words.index("--dp") + 1])
        flags = flags.replace(f"--dp {data_parallel_size}", "")
    config = make_config(flags, data_parallel_size)
    place = layout_of(config, data_parallel_size * ranks_of_model(config.parallel))
    curves: Iterable[Curve] = run_layout(place, train, flags, precision, data_parallel_size)
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
LAYOUTS = {
    "tp2": TENSOR.format(2),
    "tp4": TENSOR.format(4),
    "tp2+sp": TENSOR.format(2) + SP,
    "pp2": PIPELINE.format(2),
    "pp4": PIPELINE.format(4),
    "pp2 gpipe": PIPELINE.format(2) + "--pipeline-schedule gpipe",
    "pp2 interleaved": PIPELINE.format(2) + "--num-virtual-stages-per-pipeline-rank 2",
    "pp2 zero-bubble": PIPELINE.format(2) + "--pipeline-schedule zero-bubble",
    "pp2 uneven": PIPELINE.format(2) + "--decoder-first-pipeline-num-layers 1",
    "pp4 ends apart": PIPELINE.format(4) + "--pipeline-model-parallel-layout 'E|t|ttt|L'",
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
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_the_same_model(layout: str, model: str) -> None:
    loss, norm, weight = deviations(model, LAYOUTS[layout], torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)
