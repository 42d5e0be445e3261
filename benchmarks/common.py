"""What several measurements share: a run on made-up data, and how figures are printed."""

import contextlib
import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.gpt import GPT_TASK
from megatron.train.setup import Run, build, join
from tests.support.configurations import make_config

PR_SET_CHILD_SUBREAPER = 36


def mock_run(mesh: Mesh, flags: str, data_parallel_size: int = 1) -> Run:
    """The run of these flags at step 0 on the ranks of a mesh that torchrun did not start."""
    config = make_config(flags, data_parallel_size)
    efficiency, _ = describe(config)
    return build(join(GPT_TASK, config, efficiency, GPT_TASK.open_data(config)), mesh)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def processor_ratios(
    ours: Callable[[], object], other: Callable[[], object], rounds: int, least: float
) -> list[float]:
    """Processor time of ours by that of the other, in every second round the other first, each for `least`
    seconds a round; the first rounds are not counted."""
    again = max(round(least / processor_seconds(other, 1)), 1)
    ratios = []
    for turn in range(rounds + 3):
        sides = (ours, other) if turn % 2 else (other, ours)
        times = {side: processor_seconds(side, again) for side in sides}
        ratios.append(times[ours] / times[other])
    return ratios[3:]


def processor_seconds(work: Callable[[], object], again: int) -> float:
    """What the process takes of its core, whoever else uses it, too."""
    began = time.process_time()
    for _ in range(again):
        work()
    return time.process_time() - began


def adopt_orphans() -> None:
    """Wait for processes whose parents are gone, too, so that their processor time is known (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def processor_seconds_of_children(work: Callable[[], object]) -> float:
    """What this process takes, and all that start meanwhile, after `adopt_orphans`."""
    before = os.times()
    work()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """Median with the range."""
    found = sorted(values)
    return f"{statistics.median(found):{form}} ({found[0]:{form}}-{found[-1]:{form}})"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in Markdown, each row as soon as it is there."""
    for row in (headings, ["---"] * len(headings)):
        print(f"| {' | '.join(row)} |", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def tell(text: str) -> None:
    """Say how far the work is."""
    print(text, file=sys.stderr, flush=True)
