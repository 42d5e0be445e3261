"""Pipeline schedules as data: what every rank does, one action after another.

A rank of a pipeline of `ranks` has `chunks` runs of layers; chunk c of rank r is stage c·ranks + r. A
backward action computes all gradients. A zero-bubble schedule (arXiv 2401.10241) splits it: "input" computes
those that the stage before waits for, "weight" later those of the weights.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

FORWARD, BACKWARD, INPUT, WEIGHT = "forward", "backward", "input", "weight"


class Action(NamedTuple):
    """Part of a step's work: what is done with which micro-batch in which chunk of this rank."""

    kind: str
    micro_batch: int
    chunk: int = 0


Schedule = Callable[[int, int, int, int], Iterator[Action]]
"""From rank, ranks, micro-batches and chunks to the actions of a step."""


def gpipe(rank: int, ranks: int, micro_batches: int, chunks: int = 1) -> Iterator[Action]:
    """All forward, then all backward (arXiv 1811.06965): every micro-batch is held at once."""
    yield from (Action(FORWARD, one) for one in range(micro_batches))
    yield from (Action(BACKWARD, one) for one in range(micro_batches))


def one_forward_one_backward(rank: int, ranks: int, micro_batches: int, chunks: int = 1) -> Iterator[Action]:
    """Warm up, alternate, drain (arXiv 2104.04473): at most `ranks - rank` micro-batches are held. On one
    rank this is the accumulation of gradients."""
    ahead = min(ranks - 1 - rank, micro_batches)
    yield from (Action(FORWARD, one) for one in range(ahead))
    for one in range(micro_batches - ahead):
        yield Action(FORWARD, ahead + one)
        yield Action(BACKWARD, one)
    yield from (Action(BACKWARD, one) for one in range(micro_batches - ahead, micro_batches))


def interleaved(rank: int, ranks: int, micro_batches: int, chunks: int) -> Iterator[Action]:
    """1F1B over several chunks a rank (arXiv 2104.04473, section 2.2): a smaller bubble for more
    messages. Micro-batches go in groups of `ranks`, which must divide their number."""
    total = micro_batches * chunks
    ahead = min((ranks - 1 - rank) * 2 + (chunks - 1) * ranks, total)

    def at(place: int, kind: str) -> Action:
        group, inside = divmod(place, ranks * chunks)
        chunk = inside // ranks if kind == FORWARD else chunks - 1 - inside // ranks
        return Action(kind, group * ranks + inside % ranks, chunk)

    yield from (at(place, FORWARD) for place in range(ahead))
    for place in range(total - ahead):
        yield at(ahead + place, FORWARD)
        yield at(place, BACKWARD)
    yield from (at(place, BACKWARD) for place in range(total - ahead, total))


def zero_bubble(rank: int, ranks: int, micro_batches: int, chunks: int = 1) -> Iterator[Action]:
    """ZB-H1 (arXiv 2401.10241): the order of 1F1B, with gradients of weights where 1F1B waits. At most
    `ranks` micro-batches are held on every rank, as on the first one of 1F1B."""
    ahead, weighed = min(ranks - 1 - rank, micro_batches), 0
    yield from (Action(FORWARD, one) for one in range(ahead))
    for one in range(micro_batches):
        if ahead + one < micro_batches:
            yield Action(FORWARD, ahead + one)
        yield Action(INPUT, one)
        if one >= rank:
            yield Action(WEIGHT, weighed)
            weighed += 1
    yield from (Action(WEIGHT, one) for one in range(weighed, micro_batches))


SCHEDULES: dict[str, Schedule] = {
    "gpipe": gpipe,
    "1f1b": one_forward_one_backward,
    "interleaved": interleaved,
    "zero-bubble": zero_bubble,
}
