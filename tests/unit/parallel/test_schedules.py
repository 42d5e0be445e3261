"""Pipeline schedules and what they come to, over many sizes: all is done once, nobody waits for ever,
messages keep their order, and bubbles and memory are those of the papers."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.config.parallel import SCHEDULES as NAMES
from megatron.parallel.schedules import (
    BACKWARD,
    FORWARD,
    INPUT,
    SCHEDULES,
    WEIGHT,
    Action,
    gpipe,
    interleaved,
    one_forward_one_backward,
    zero_bubble,
)
from megatron.parallel.simulate import Timed, messages, most_bytes, pipeline_cost, simulate


class Case(NamedTuple):
    """A schedule and its sizes."""

    name: str
    ranks: int
    micro_batches: int
    chunks: int

    def arguments(self) -> tuple:
        return SCHEDULES[self.name], self.ranks, self.micro_batches, self.chunks


@st.composite
def cases(draw, names=tuple(SCHEDULES)) -> Case:
    name, ranks = draw(st.sampled_from(names)), draw(st.integers(1, 6))
    if name != "interleaved":
        return Case(name, ranks, draw(st.integers(1, 16)), 1)
    return Case(name, ranks, ranks * draw(st.integers(1, 16 // ranks)), draw(st.integers(2, 3)))


@given(cases())
@settings(deadline=None)
def test_everything_is_done_exactly_once_on_every_rank(case: Case) -> None:
    kinds = (FORWARD, INPUT, WEIGHT) if case.name == "zero-bubble" else (FORWARD, BACKWARD)
    wanted = {
        Action(kind, one, chunk)
        for kind in kinds
        for one in range(case.micro_batches)
        for chunk in range(case.chunks)
    }
    for rank in range(case.ranks):
        actions = list(SCHEDULES[case.name](rank, case.ranks, case.micro_batches, case.chunks))
        assert len(actions) == len(wanted) and set(actions) == wanted


@given(cases())
@settings(deadline=None)
def test_no_schedule_deadlocks_and_times_follow_the_messages(case: Case) -> None:
    simulation, stages = simulate(*case.arguments()), case.ranks * case.chunks
    ends = {
        (one.action.kind, one.action.micro_batch, one.action.chunk * case.ranks + rank): one
        for rank, row in enumerate(simulation.rows)
        for one in row
    }
    back = INPUT if case.name == "zero-bubble" else BACKWARD
    for (kind, number, stage), one in ends.items():
        if kind == FORWARD and stage:
            assert one.start >= ends[FORWARD, number, stage - 1].end
        if kind == back:
            assert one.start >= ends[FORWARD, number, stage].end
            assert stage == stages - 1 or one.start >= ends[back, number, stage + 1].end
        if kind == WEIGHT:
            assert one.start >= ends[back, number, stage].end
    for row in simulation.rows:
        assert all(before.end <= after.start for before, after in pairwise(row))


@given(cases())
@settings(deadline=None)
def test_messages_are_received_in_the_order_in_which_they_are_sent(case: Case) -> None:
    orders, stages = messages(*case.arguments()), case.ranks * case.chunks
    assert all(sent == received for sent, received in orders.values())
    assert sum(len(sent) for sent, _ in orders.values()) == 2 * (stages - 1) * case.micro_batches


@given(cases())
@settings(deadline=None)
def test_no_more_is_held_than_documented(case: Case) -> None:
    _, ranks, micro_batches, chunks = case
    most = {
        "gpipe": lambda rank: micro_batches,
        "1f1b": lambda rank: ranks - rank,
        "interleaved": lambda rank: (ranks - 1 - rank) * 2 + (chunks - 1) * ranks + 1,
        "zero-bubble": lambda rank: ranks,
    }[case.name]
    wanted = [min(most(rank), micro_batches * chunks) for rank in range(ranks)]
    assert simulate(*case.arguments()).held == wanted


@given(cases(("gpipe", "1f1b", "interleaved")))
@settings(deadline=None)
def test_bubbles_are_those_of_the_papers(case: Case) -> None:
    ranks, pieces = case.ranks, case.chunks * case.micro_batches
    assert simulate(*case.arguments()).bubble == pytest.approx((ranks - 1) / (pieces + ranks - 1))


@given(cases(("zero-bubble",)))
@settings(deadline=None)
def test_gradients_of_weights_fill_a_part_of_the_bubble(case: Case) -> None:
    bubble = simulate(*case.arguments()).bubble
    reference = simulate(one_forward_one_backward, case.ranks, case.micro_batches).bubble
    assert bubble == pytest.approx(0) if case.ranks == 1 else bubble < reference
    if case.micro_batches >= case.ranks:
        assert bubble == pytest.approx((case.ranks - 1) / (3 * case.micro_batches + case.ranks - 1))


def test_four_ranks_and_eight_micro_batches() -> None:
    found = {name: simulate(SCHEDULES[name], 4, 8).bubble for name in ("gpipe", "1f1b", "zero-bubble")}
    assert found == pytest.approx({"gpipe": 3 / 11, "1f1b": 3 / 11, "zero-bubble": 1 / 9})
    assert simulate(interleaved, 4, 8, 2).bubble == pytest.approx(3 / 19)
    assert simulate(one_forward_one_backward, 4, 8).makespan == 33
    assert simulate(zero_bubble, 4, 8).makespan == 27


def test_two_ranks_by_hand() -> None:
    """The second rank waits for the first forward pass, the first one for backward passes."""
    forward, backward = (lambda one: Action(FORWARD, one)), (lambda one: Action(BACKWARD, one))
    assert simulate(one_forward_one_backward, 2, 2).rows == [
        [
            Timed(forward(0), 0, 1),
            Timed(forward(1), 1, 2),
            Timed(backward(0), 4, 6),
            Timed(backward(1), 7, 9),
        ],
        [
            Timed(forward(0), 1, 2),
            Timed(backward(0), 2, 4),
            Timed(forward(1), 4, 5),
            Timed(backward(1), 5, 7),
        ],
    ]


def test_stages_may_take_different_times() -> None:
    """The slow stage never waits once it has begun, and the fast one before it waits a lot."""
    simulation = simulate(gpipe, 2, 3, work=[1.0, 3.0])
    assert simulation.rows[1][0].start == 1 and simulation.rows[1][-1].end == 1 + 3 * 3 + 3 * 6
    assert simulation.makespan == 28 + 2
    assert simulation.bubble == pytest.approx(1 - (9 + 27) / 60)


def backward_first(rank: int, ranks: int, micro_batches: int, chunks: int) -> Iterator[Action]:
    """The last rank waits for the first one, which waits for it."""
    yield from (Action(FORWARD, one) for one in range(micro_batches if rank else 1))
    yield from (Action(BACKWARD, one) for one in range(micro_batches))
    yield from (Action(FORWARD, one) for one in range(micro_batches if rank else 1, micro_batches))


def test_a_deadlock_says_what_waits_for_what() -> None:
    with pytest.raises(RuntimeError) as caught:
        simulate(backward_first, 2, 2)
    assert str(caught.value) == (
        "all ranks wait; rank 0 in backward 0 of stage 0 for backward 0 of stage 1; "
        "rank 1 in forward 1 of stage 1 for forward 1 of stage 0"
    )


def disordered(rank: int, ranks: int, micro_batches: int, chunks: int) -> Iterator[Action]:
    """The first rank takes the gradients in another order than the second sends them."""
    yield from (Action(FORWARD, one) for one in range(micro_batches))
    order = range(micro_batches) if rank else reversed(range(micro_batches))
    yield from (Action(BACKWARD, one) for one in order)


def test_another_order_of_messages_is_seen() -> None:
    """It is no deadlock where messages have tags, but it is one where they have none."""
    simulate(disordered, 2, 3)
    orders = messages(disordered, 2, 3)
    assert orders[0, 1][0] == orders[0, 1][1] and orders[1, 0][0] == orders[1, 0][1][::-1]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("uneven", [False, True])
def test_a_long_step_costs_what_a_short_one_says(name: str, ranks: int, uneven: bool) -> None:
    chunks = 2 if name == "interleaved" else 1
    work = tuple(1 + (uneven and stage == ranks * chunks - 1) * 0.5 for stage in range(ranks * chunks))
    for groups in (1, 2, 3, 7):
        whole = simulate(SCHEDULES[name], ranks, groups * ranks, chunks, work=work)
        cost = pipeline_cost(name, ranks, groups * ranks, chunks, work)
        assert (cost.makespan, cost.bubble) == pytest.approx((whole.makespan, whole.bubble), rel=0.01)


@pytest.mark.parametrize(
    ("ranks", "work"),
    [(3, (3, 2, 1, 2, 1, 3)), (4, (3, 1, 1, 2, 2, 3, 1, 1)), (4, (3, 3, 1, 2, 3, 3, 3, 3))],
)
def test_runs_of_unequal_work_cost_what_all_of_their_step_says(ranks: int, work: tuple[float, ...]) -> None:
    """Which stage is waited for shows only after some micro-batches."""
    whole = simulate(SCHEDULES["interleaved"], ranks, 12 * ranks, 2, work=work)
    cost = pipeline_cost("interleaved", ranks, 12 * ranks, 2, work)
    assert cost.makespan == pytest.approx(whole.makespan, rel=0.01)


@given(cases())
@settings(deadline=None)
def test_the_most_bytes_are_those_of_what_is_held(case: Case) -> None:
    held = simulate(*case.arguments()).held
    for rank in range(case.ranks):
        sizes = [(3, 0)] * case.chunks
        found = most_bytes(case.name, rank, case.ranks, case.micro_batches, sizes)
        assert found == (3 * held[rank], held[rank])


def test_results_are_given_back_before_gradients_of_weights() -> None:
    """The last rank of four keeps four micro-batches, and the result of one at a time."""
    assert most_bytes("zero-bubble", 3, 4, 8, [(10, 1)]) == (41, 4)
    assert most_bytes("gpipe", 3, 4, 8, [(10, 1)]) == (88, 8)


def test_every_schedule_that_the_flag_names_is_there() -> None:
    """The flag stands in a room above, which imports no schedule."""
    assert set(NAMES) == set(SCHEDULES)
