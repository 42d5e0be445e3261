"""The whole training step in double precision, with curriculum, random-LTD, dropout and accumulation: any
number of ranks and any micro-batch size gives the losses and gradient norms of one rank."""

import dataclasses
from typing import Any

import pytest
import torch

from megatron.batches.loader import BatchShare
from megatron.data.vocabulary import Vocabulary
from megatron.model.gpt import LM_LOSS
from megatron.parallel.mesh import Mesh
from megatron.parallel.stages import StageModule
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.setup import Run, build, join
from megatron.train.step import train_step
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus
from tests.support.ranks import run_ranks

FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --global-batch-size 12 "
    "--train-iters 12 --lr 1e-2 "
    "--lr-warmup-iters 2 --swiglu --normalization RMSNorm --position-embedding-type rope "
    "--rampup-batch-size 6 6 30 "
    "--curriculum seqlen_{shape}:min=8,max=32,duration=8,quantum=4 --random-ltd --random-ltd-min 4 "
    "--random-ltd-quantum 4 "
    "--random-ltd-duration 10 --eod-mask-loss --reset-attention-mask --micro-batch-size {micro} "
)


def double_gpt(*arguments: Any) -> StageModule:
    model = GPT_TASK.build_model(*arguments)
    model.double()
    return model


def make_run(mesh: Mesh, shape: str, micro: int) -> Run:
    config = make_config(FLAGS.format(shape=shape, micro=micro), mesh.data.size)
    efficiency, _ = describe(config)
    data = Data({"train": [(None, make_corpus(64, 32))], "valid": [], "test": []}, Vocabulary(50, 0, None))
    task = dataclasses.replace(GPT_TASK, build_model=double_gpt)
    return build(join(task, config, efficiency, data), mesh)


def curve(mesh: Mesh, shape: str, micro: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    run = make_run(mesh, shape, micro)
    run.model.train()
    points = []
    for number in range(1, run.plan.steps + 1):
        step = run.plan.at(number)
        share = BatchShare(mesh.data.rank, mesh.data.size, micro)
        result = train_step(run, step, run.rows.batch(run.sampler, step, share))
        points.append((result.losses[LM_LOSS], result.grad_norm))
    return points


@pytest.mark.parametrize("shape", ["truncate", "reshape"])
def test_every_layout_gives_the_curve_of_one_rank(shape: str) -> None:
    wanted = torch.tensor(run_ranks(1, curve, shape, 6)[0], dtype=torch.float64)
    assert wanted[-1, 0] < wanted[0, 0]
    for ranks, micro in ((1, 2), (2, 3), (3, 2), (3, 1)):
        for found in run_ranks(ranks, curve, shape, micro):
            # twelve steps in double precision; rounding of 1e-16 a sum grows along the run, and stays far
            # below this
            torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), wanted, rtol=1e-10, atol=0)
