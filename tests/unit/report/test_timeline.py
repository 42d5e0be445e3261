"""A step of a pipeline as text."""

import pytest

from megatron.parallel.schedules import SCHEDULES, interleaved, one_forward_one_backward, zero_bubble
from megatron.parallel.simulate import simulate
from megatron.report.timeline import COLUMNS, timeline


def test_every_action_stands_at_its_time() -> None:
    assert timeline(simulate(one_forward_one_backward, 2, 3), "Two ranks") == [
        "Two ranks",
        "rank 0 |F0-F1-      B0----F2-B1----   B2----|",
        "rank 1 |   F0-B0----F1-B1----F2-B2----      |",
        "F forward, B backward; numbers are micro-batches; empty: the rank waits",
        "bubble: 25.0% of the ranks' time",
        "most micro-batches held at once, by rank: 2, 1",
    ]


def test_gradients_of_weights_have_a_letter() -> None:
    assert timeline(simulate(zero_bubble, 2, 2), "Two ranks")[1:] == [
        "rank 0 |F0-F1-   I0-W0-I1-W1-|",
        "rank 1 |   F0-I0-F1-I1-W0-W1-|",
        "F forward, I gradients of inputs, W gradients of weights; numbers are micro-batches; empty: the "
        "rank waits",
        "bubble: 14.3% of the ranks' time",
        "most micro-batches held at once, by rank: 2, 2",
    ]


def test_runs_of_layers_have_letters() -> None:
    lines = timeline(simulate(interleaved, 2, 2, 2), "Two runs of layers")
    assert lines[1:3] == [
        "rank 0 |F0a-F1a-F0b-F1b-        B0b-----    B1b-----B0a-----B1a-----|",
        "rank 1 |    F0a-F1a-F0b-B0b-----F1b-B1b-----B0a-----B1a-----        |",
    ]
    assert lines[-1] == "most micro-batches held at once, by rank: 4, 3, each in one run of layers"


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("micro_batches", [12, 120, 1200])
def test_a_long_step_fits_in_its_columns(name: str, micro_batches: int) -> None:
    chunks = 3 if name == "interleaved" else 1
    lines = timeline(simulate(SCHEDULES[name], 12, micro_batches, chunks), "A long title " * 20)
    rows = [line for line in lines if line.startswith("rank")]
    assert len(rows) == 12 and {len(row) for row in rows} <= {COLUMNS - 1, COLUMNS}
    assert max(map(len, lines)) <= COLUMNS
    assert {row.index("|") for row in rows} == {len("rank 10 ")}
