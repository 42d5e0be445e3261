"""The memory of real ranks beside what their layout is priced at."""

import time
from typing import NamedTuple

import torch

from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import fullest_step
from megatron.tasks.prices import RankPrice, prices, share_of
from megatron.tasks.tasks import TASKS
from tests.support.configurations import make_config, make_plan
from tests.support.live import Live
from tests.support.parity import make_run, place_of, train_steps
from tests.support.ranks import run_layout
from tests.support.sentences import as_priced

VOCABULARY, LENGTH, ROWS = 1000, 256, 2
MODEL = (
    f"--num-layers 4 --hidden-size 128 --num-attention-heads 8 --seq-length {LENGTH} "
    f"--micro-batch-size {ROWS} --make-vocab-size-divisible-by 8 --train-iters 2 "
    "--attention-dropout 0 --global-batch-size {} "
)
ENCODER = (
    f"--seq-length {LENGTH // 4} --micro-batch-size {4 * ROWS} --vocab-size {VOCABULARY} --short-seq-prob 0 "
)
"""As many tokens, in shorter rows, as samples of made-up sentences are."""


class Compared(NamedTuple):
    """Bytes of a rank's tensors between two steps, the most of them in the second, and the price."""

    between: int
    most: int
    price: RankPrice


def compare(layout: str, micro_batches: int, task: str = "gpt") -> list[Compared]:
    """Every rank of a layout, which trains two steps of a model of a few megabytes in single precision."""
    more, place, replicas = place_of(layout)
    model = MODEL + (ENCODER if task == "bert" else "")
    rows = 4 * ROWS if task == "bert" else ROWS
    flags = model.format(rows * micro_batches * replicas) + more
    config = make_config(flags, replicas)
    efficiency, _ = describe(config)
    step = fullest_step(make_plan(config, efficiency))
    share = share_of(TASKS[task], config, efficiency, VOCABULARY, place)
    by_stage = prices(config, share, step, "cpu")
    found = run_layout(place, _measure, flags, replicas, task)
    return [Compared(*one, by_stage[place.place(rank)["pipeline"]]) for rank, one in enumerate(found)]


def _measure(mesh: Mesh, flags: str, data_parallel_size: int, task: str) -> tuple[int, int]:
    with Live() as live:
        run = make_run(mesh, flags, torch.float32, data_parallel_size, VOCABULARY, LENGTH, task)
        run = as_priced(run) if task == "bert" else run
        train_steps(run, 1, 1)
        run.gradients.gather_weights()  # which else arrive while the next step begins
        between = live.most = _settled(live)
        train_steps(run, 2, 2)
        return between, live.most


def _settled(live: Live) -> int:
    """Bytes that are alive, once threads that sum and gather have let go of theirs."""
    before = -1
    while before != live.now:
        before = live.now
        time.sleep(0.1)
    return before
