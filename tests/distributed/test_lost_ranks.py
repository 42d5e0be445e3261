"""A rank that is killed, stopped or fails in the middle of what ranks do together: within the time-out all
others end, with one line that names it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.base.errors import RanksLost
from megatron.checkpoint import save
from megatron.parallel import collectives
from megatron.parallel.mesh import Mesh
from megatron.parallel.pipeline import Links
from megatron.parallel.ranks import joined_ranks
from megatron.parallel.roll_call import SECONDS, RollCall
from megatron.train.resume import describe_run, save_run
from megatron.train.saving import Checkpoints
from tests.support.parity import BASE, CONTEXT, MODELS, PIPELINE, SP, TENSOR, ZERO, ZERO3, make_run, place_of
from tests.support.parity import train_steps as steps
from tests.support.ranks import run_layout

TIMEOUT = 12.0
PLACES: dict[str, tuple[Any, str]] = {
    "receive": (Links, "receive"),
    "send": (Links, "send"),
    "tokens": (collectives, "all_to_all"),
    "sum": (dist, "all_reduce"),
    "gather": (dist, "all_gather_single"),
    "scatter": (dist, "reduce_scatter_single"),
    "write": (save, "write_tensors"),
}
"""Where a rank ends: functions that it calls in a step, or while it saves."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def halt() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    raise ValueError("a mistake")


def ends_in(place: str, how: Callable[[], None]) -> None:
    """From now on this process ends when it comes to a place for the second time; while it saves, at once."""
    owner, name = PLACES[place]
    function, left = getattr(owner, name), [1 if place == "write" else 2]

    def call(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            how()
        return function(*arguments, **named)

    setattr(owner, name, call)


def run_until_lost(
    mesh: Mesh, flags: str, replicas: int, folder: str, lost: int, place: str, how: Callable[[], None]
) -> tuple[str, float]:
    """What a rank says when it loses another one, and how long its last step took."""
    roll = RollCall(dist.FileStore(f"{folder}/roll", mesh.world.size), mesh.world.rank, mesh.world.size)
    run = make_run(mesh, f"{flags} --save {folder}/save", torch.float64, replicas)
    steps(run, 1, 1)
    save_run(run, describe_run(run), 1)
    if mesh.world.rank == lost:
        ends_in(place, how)
    before = time.monotonic()
    try:
        with joined_ranks(roll):
            steps(run, 2, 2)
            with Checkpoints(run, describe_run(run)) as checkpoints:
                checkpoints.save(2)
                checkpoints.wait()
    except RanksLost as error:
        return str(error), time.monotonic() - before
    return "", time.monotonic() - before


def told(folder: Path, layout: str, place: str, how: Callable[[], None], lost: int) -> set[str]:
    """What the ranks that are left say."""
    more, where, replicas = place_of(layout)
    flags = BASE + MODELS["gpt"] + more + "--distributed-timeout-minutes 0.2 "
    found = run_layout(
        where,
        run_until_lost,
        flags,
        replicas,
        str(folder),
        lost,
        place,
        how,
        lost=lost,
        timeout=TIMEOUT,
    )
    assert all(seconds < 2 * TIMEOUT + SECONDS for _, seconds in found)
    assert (folder / "save" / "latest_checkpointed_iteration.txt").read_text() == "1\n"
    return {line for line, _ in found}


FULL = PIPELINE.format(2) + TENSOR.format(2)


@pytest.mark.parametrize(
    ("layout", "place", "lost"),
    [
        (FULL, "receive", 3),
        (PIPELINE.format(2) + "--dp 2", "send", 0),
        (TENSOR.format(2) + SP + "--dp 2", "scatter", 1),
        (TENSOR.format(2) + SP + CONTEXT.format(2, "allgather"), "tokens", 2),
        (ZERO3 + "--dp 2", "gather", 1),
        (ZERO + PIPELINE.format(2) + "--dp 2", "sum", 2),
        (FULL, "write", 1),
        (FULL + "--async-save ", "write", 2),
    ],
)
def test_a_killed_rank_is_named(tmp_path: Path, layout: str, place: str, lost: int) -> None:
    for line in told(tmp_path, layout, place, die, lost):
        assert line.startswith(f"rank {lost} is gone, process "), line
        assert "the system's log where it was killed" in line and "\n" not in line


@pytest.mark.parametrize(("layout", "place"), [(FULL, "receive"), (ZERO3 + "--dp 2", "gather")])
def test_a_rank_that_fails_tells_the_others_why(tmp_path: Path, layout: str, place: str) -> None:
    for line in told(tmp_path, layout, place, fail, 1):
        assert line.startswith("rank 1 has ended: ValueError: a mistake (")


def test_a_rank_that_hangs_is_named_behind_the_time_out(tmp_path: Path) -> None:
    for line in told(tmp_path, FULL, "receive", halt, 3):
        assert line.startswith("rank 3 is stopped, process ")


def test_a_rank_that_waits_for_something_else_is_named_by_its_silence(tmp_path: Path) -> None:
    for line in told(tmp_path, FULL, "receive", lambda: time.sleep(600), 3):
        assert line.startswith("no word comes from rank 3 within --distributed-timeout-minutes")
