"""--compile against eager layers: training steps of the same run in one process, alternately; how long
compiling takes with an empty cache, and how many graphs there are.

python benchmarks/compiled.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch._dynamo.utils import counters

from benchmarks.common import mock_run, print_table, seconds, spread
from megatron.batches.loader import BatchShare
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.parallel.mesh import Mesh
from megatron.train.setup import Run
from megatron.train.step import train_step

FLAGS = (
    "--num-layers 4 --hidden-size 256 --num-attention-heads 4 --seq-length 256 --vocab-size 4096 "
    "--micro-batch-size 4 --global-batch-size 4 --train-iters 40 --lr 1e-4 "
)
NO_DROPOUT = "--hidden-dropout 0 --attention-dropout 0 "
RUNS = {
    "no dropout": NO_DROPOUT,
    "dropout": "",
    "dropout, curriculum, random-LTD": "--curriculum seqlen_truncate:min=64,max=256,duration=20,"
    "quantum=64 --random-ltd --random-ltd-min 64 --random-ltd-quantum 64 --random-ltd-duration 30 ",
}


@dataclass(frozen=True)
class Options:
    runs: tuple[str, ...] = flag(tuple(RUNS), "what to compare", choices=RUNS, metavar="NAME")
    rounds: int = flag(7, "timed rounds over all lengths, of both", at_least=1)
    threads: int = flag(1, "threads of both", at_least=1)


def main() -> None:
    """Print the table."""
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(options.threads)
    headings = ("run", "lengths", "eager / compiled", "graphs", "first steps, compiled, s", "eager, s")
    print_table(headings, (_compare(name, RUNS[name], options.rounds) for name in options.runs))


def _compare(name: str, flags: str, rounds: int) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        torch._dynamo.reset()
        counters.clear()
        eager, compiled = (mock_run(Mesh(), FLAGS + flags + more) for more in ("", "--compile "))
        steps = _steps_of_all_lengths(eager)
        first = [sum(_seconds(run, steps)) for run in (compiled, eager)]
        graphs = counters["stats"]["unique_graphs"]
        ratios = list(_ratios(eager, compiled, steps, rounds))
        assert counters["stats"]["unique_graphs"] == graphs
    return (
        name,
        str(len(steps)),
        spread(ratios),
        str(graphs),
        *(f"{one:.1f}" for one in first),
    )


def _steps_of_all_lengths(run: Run) -> list[int]:
    """The first step of every pair of lengths, of rows and of kept tokens."""
    pairs = list(zip(run.plan.sequence_length.tolist(), run.plan.kept_length.tolist()))
    return [1 + pairs.index(pair) for pair in dict.fromkeys(pairs)]


def _ratios(eager: Run, compiled: Run, steps: list[int], rounds: int) -> Iterator[float]:
    """Of every round over the lengths, in every second one the other run first."""
    for turn in range(rounds):
        sides = (eager, compiled) if turn % 2 else (compiled, eager)
        times = [sum(_seconds(run, steps)) for run in sides]
        yield times[0] / times[1] if turn % 2 else times[1] / times[0]


def _seconds(run: Run, steps: list[int]) -> list[float]:
    return [seconds(_step(run, number)) for number in steps]


def _step(run: Run, number: int) -> Callable[[], object]:
    step = run.plan.at(number)
    batches = run.rows.batch(run.sampler, step, BatchShare(0, 1, 4))
    return lambda: train_step(run, step, batches)


if __name__ == "__main__":
    run_command(main)
