"""Times of the parts of a step: what is asked for, what is gathered over the ranks, and Megatron's lines."""

import time

import pytest

from megatron.parallel.mesh import Mesh
from megatron.train.timers import LEVELS, NOT_OF_A_STEP, Timers, Times, timing_block
from tests.support.ranks import run_ranks


def test_a_span_that_nobody_asks_for_is_one_shared_context() -> None:
    timers = Timers(1)
    assert timers.span("forward-compute") is timers.span("backward-compute") is Timers().span("optimizer")
    assert timers.span("optimizer") is not timers.span("optimizer")
    assert Timers().collect(Mesh()) == {}
    with pytest.raises(KeyError):
        Timers().span("coffee")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_asks_for_its_names(level: int) -> None:
    timers = Timers(level)
    for name in LEVELS:
        with timers.span(name):
            time.sleep(0.001)
    assert set(timers.collect(Mesh())) == {name for name, needed in LEVELS.items() if needed <= level}


def test_spans_add_up() -> None:
    timers = Timers(1)
    for _ in range(4):
        with timers.span("optimizer"):
            time.sleep(0.01)
    assert timers.collect(Mesh())["optimizer"][0] >= 0.04
    assert timers.collect(Mesh()) == {}


def test_only_the_named_parts_are_taken() -> None:
    timers = Timers(1)
    for name in ("optimizer", "eval-time"):
        with timers.span(name):
            time.sleep(0.001)
    assert set(timers.collect(Mesh(), names=NOT_OF_A_STEP)) == {"eval-time"}
    assert set(timers.collect(Mesh())) == {"optimizer"}


def test_the_wait_for_every_item_is_a_span() -> None:
    def slow():
        for number in range(3):
            time.sleep(0.01)
            yield number

    timers, seen = Timers(1), []
    for number in timers.over("batch-generator", slow()):
        seen.append(number)
        time.sleep(0.2)
    assert seen == [0, 1, 2]
    assert 0.03 <= timers.collect(Mesh())["batch-generator"][0] < 0.4


def timed(mesh: Mesh) -> Times:
    timers = Timers(2, mesh.device)
    timers.seconds |= {
        "forward-backward": 0.5 + mesh.world.rank,
        "forward-compute": 0.25 - 0.125 * mesh.world.rank,
    }
    if mesh.world.rank == 0:
        timers.seconds["save-checkpoint"] = 3.0
    return timers.collect(mesh, 2)


def test_times_of_two_ranks_are_gathered() -> None:
    times = run_ranks(2, timed)
    wanted = {
        "forward-backward": [0.25, 0.75],
        "forward-compute": [0.125, 0.0625],
        "save-checkpoint": [3.0, 0.0],
    }
    assert times == [wanted, wanted]
    assert timing_block(wanted, "minmax").splitlines() == [
        "(min, max) time across ranks (ms):",
        "    forward-backward ...............................: (250.00, 750.00)",
        "    forward-compute ................................: (62.50, 125.00)",
        "    save-checkpoint ................................: (3000.00, 3000.00)",
    ]
    assert timing_block(wanted, "max").splitlines()[:2] == [
        "max time across ranks (ms):",
        "    forward-backward ...............................: 750.00",
    ]
    assert timing_block(wanted, "all").splitlines()[:4] == [
        "times across ranks (ms):",
        "  forward-backward:",
        "     rank  0: 250.00",
        "     rank  1: 750.00",
    ]
