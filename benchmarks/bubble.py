"""The bubble of pipeline schedules, measured in the engine with real messages between ranks, beside the
simulator and the closed form. Every action sleeps for as long as the simulator takes it to last, so that four
ranks need no four cores.

python benchmarks/bubble.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common import print_table, spread
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.parallel.deferred import Deferred
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh, wait_for_all
from megatron.parallel.pipeline import Links, run_schedule
from megatron.parallel.schedules import BACKWARD, FORWARD, INPUT, SCHEDULES, WEIGHT
from megatron.parallel.simulate import COSTS, simulate
from tests.support.ranks import run_layout

HIDDEN = (1, 256, 256)
"""Shape of the hidden states that are sent."""
CHUNKS = {"interleaved": 2}


@dataclass(frozen=True)
class Options:
    ranks: tuple[int, ...] = flag((2, 4), "ranks of the pipeline")
    micro_batches: int = flag(8, "micro-batches of a step")
    milliseconds: float = flag(20.0, "a forward pass over the layers of a rank", above=0)
    steps: int = flag(7, "timed steps", at_least=1)


class Slept(NamedTuple):
    """A rank's step: when it began and ended, and for how long it slept between."""

    start: float
    end: float
    busy: float


def main() -> None:
    """Print the table."""
    options = parse(Options, sys.argv[1:], description=__doc__)
    pairs = [(ranks, name) for ranks in options.ranks for name in SCHEDULES]
    headings = ("ranks", "schedule", "closed form", "simulated", "measured", "measured / simulated")
    print_table(headings, (_bubble(options, *pair) for pair in pairs))


def closed_form(schedule: str, ranks: int, micro_batches: int) -> float:
    """The bubble's share of a step, as the papers count it: ranks-1 stages are waited for. Interleaving makes
    them shorter (arXiv 2104.04473, section 2.2), and ZB-H1 fills all but a forward pass and gradients of
    inputs, less gradients of weights, of each (arXiv 2401.10241, table 1)."""
    whole, waits = COSTS[FORWARD] + COSTS[BACKWARD], (ranks - 1) * (COSTS[FORWARD] + COSTS[BACKWARD])
    if schedule == "zero-bubble":
        waits = (ranks - 1) * (COSTS[FORWARD] + COSTS[INPUT] - COSTS[WEIGHT])
    waits /= CHUNKS.get(schedule, 1)
    return waits / (micro_batches * whole + waits)


def _bubble(options: Options, ranks: int, schedule: str) -> tuple[str, ...]:
    chunks, count = CHUNKS.get(schedule, 1), options.micro_batches
    arguments = (schedule, count, chunks, options.milliseconds / 1e3, options.steps)
    by_rank = run_layout(Layout(pipeline=ranks), _sleep_through, *arguments)
    found = [_waited(step) for step in zip(*by_rank)]
    expected = simulate(SCHEDULES[schedule], ranks, count, chunks).bubble
    return (
        str(ranks),
        schedule,
        f"{closed_form(schedule, ranks, count):.3f}",
        f"{expected:.3f}",
        spread(found, ".3f"),
        spread(one / expected for one in found),
    )


def _waited(step: tuple[Slept, ...]) -> float:
    """The share of the ranks' time in which they did not sleep."""
    makespan = max(one.end for one in step) - min(one.start for one in step)
    return 1 - sum(one.busy for one in step) / (len(step) * makespan)


def _sleep_through(
    mesh: Mesh, schedule: str, micro_batches: int, chunks: int, second: float, steps: int
) -> list[Slept]:
    """Steps of the engine in which every action sleeps; the first is not counted."""
    slept: list[float] = []
    deferred = Deferred(lambda parameter: None) if schedule == "zero-bubble" else None

    def sleep(kind: str) -> None:
        began = time.monotonic()
        time.sleep(second * COSTS[kind] / chunks)
        slept.append(time.monotonic() - began)

    def forward(chunk: int, micro_batch: int, received: Tensor | None) -> Tensor:
        sleep(FORWARD)
        return torch.zeros(HIDDEN, requires_grad=True) * 1 if received is None else received * 1

    def backward(found: Tensor, gradient: Tensor | None) -> None:
        if deferred is not None and deferred.waiting is not None:
            sleep(INPUT)
            deferred.waiting.append(lambda: sleep(WEIGHT))
        else:
            sleep(BACKWARD)
        found.backward(torch.ones(HIDDEN) if gradient is None else gradient)

    results = []
    for _ in range(steps + 1):
        slept.clear()
        actions = SCHEDULES[schedule](mesh.pipeline.rank, mesh.pipeline.size, micro_batches, chunks)
        wait_for_all(mesh)
        start = time.monotonic()
        run_schedule(
            actions, Links(mesh, chunks, torch.float32), [HIDDEN] * micro_batches, forward, backward, deferred
        )
        results.append(Slept(start, time.monotonic(), sum(slept)))
    return results[1:]


if __name__ == "__main__":
    run_command(main)
