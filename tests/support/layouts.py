"""Runs in double precision with curriculum, random-LTD, dropout, accumulation and clipping, on any layout of
ranks."""

import dataclasses
from functools import partial
from typing import Any

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
from megatron.train.setup import Run, build, join, layout_of
from megatron.train.step import train_step
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus

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


def layout_and_flags(flags: str) -> tuple[Layout, str]:
    """The layout that flags ask for, and the flags that are real: `--dp N` stands for so many replicas."""
    words, replicas = flags.split(), 1
    if "--dp" in words:
        place = words.index("--dp")
        replicas = int(words[place + 1])
        del words[place : place + 2]
    config = make_config(" ".join(words), replicas)
    return layout_of(config, replicas * ranks_of_model(config.parallel)), " ".join(words)


def layout_run(mesh: Mesh, flags: str, precision: torch.dtype = torch.float64) -> Run:
    """A run at step 0 on the ranks of a mesh."""
    config = make_config(flags, mesh.data.size)
    efficiency, _ = describe(config)
    corpora = {"train": [(None, make_corpus(160, 64))], "valid": [], "test": []}
    task = dataclasses.replace(GPT_TASK, build_model=partial(_model, precision))
    return build(join(task, config, efficiency, Data(corpora, Vocabulary(50, 0, None))), mesh)


def train_steps(run: Run, first: int, last: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of these steps."""
    mesh, size = run.mesh, run.config.training.micro_batch_size
    share, points = BatchShare(mesh.data.rank, mesh.data.size, size, slices_of(mesh)), []
    for number in range(first, last + 1):
        step = run.plan.at(number)
        result = train_step(run, step, run.rows.batch(run.sampler, step, share))
        points.append((result.losses[LM_LOSS] or 0.0, result.grad_norm))
    return points


def _model(precision: torch.dtype, *arguments: Any) -> nn.Module:
    return GPT_TASK.build_model(*arguments).to(precision).train()
