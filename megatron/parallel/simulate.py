"""What a pipeline's schedule comes to, before any rank starts: when every action begins and ends, who waits
for whom, how much is held, and whether messages arrive in the order in which they are sent. As in the engine,
a receive blocks and a send does not."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from megatron.parallel.schedules import BACKWARD, FORWARD, INPUT, SCHEDULES, WEIGHT, Action, Schedule

COSTS = {FORWARD: 1.0, BACKWARD: 2.0, INPUT: 1.0, WEIGHT: 1.0}
"""Time of an action in that of a forward pass."""


class Result(NamedTuple):
    """What an action leaves, and others wait for: of a pass over a stage with a micro-batch."""

    kind: str
    micro_batch: int
    stage: int


class Timed(NamedTuple):
    action: Action
    start: float
    end: float


@dataclass(frozen=True)
class Simulation:
    """A step's actions with their times, by rank."""

    rows: list[list[Timed]]

    @property
    def makespan(self) -> float:
        """From the first action's start to the last one's end."""
        return max(row[-1].end for row in self.rows)

    @property
    def bubble(self) -> float:
        """Share of the ranks' time in which they wait."""
        busy = sum(one.end - one.start for row in self.rows for one in row)
        return 1 - busy / (len(self.rows) * self.makespan)

    @property
    def held(self) -> list[int]:
        """By rank, the most micro-batches whose hidden states are held at once, in each of its chunks: from
        the forward pass until their last action."""
        return [_most_held([one.action for one in row]) for row in self.rows]


def simulate(
    schedule: Schedule,
    ranks: int,
    micro_batches: int,
    chunks: int = 1,
    costs: Mapping[str, float] = COSTS,
    work: Sequence[float] | None = None,
) -> Simulation:
    """The times of a step. `work`: by stage, what a forward pass over it takes, else 1. RuntimeError where
    all ranks wait: it says for what."""
    work = work or [1.0] * (ranks * chunks)
    todo = [deque(schedule(rank, ranks, micro_batches, chunks)) for rank in range(ranks)]
    rows: list[list[Timed]] = [[] for _ in todo]
    done: dict[Result, float] = {}
    while any(todo):
        before = sum(map(len, todo))
        for rank, (row, actions) in enumerate(zip(rows, todo)):
            while actions and not _missing(actions[0], rank, ranks, chunks, done):
                action = actions.popleft()
                stage = action.chunk * ranks + rank
                needed = _needs(action, stage, ranks * chunks)
                start = max([row[-1].end if row else 0.0, *(done[one] for one in needed)])
                row.append(Timed(action, start, start + costs[action.kind] * work[stage]))
                done[_leaves(action, stage)] = row[-1].end
        if sum(map(len, todo)) == before:
            raise RuntimeError("; ".join(["all ranks wait", *_waits(todo, chunks, done)]))
    return Simulation(rows)


def _waits(todo: Sequence[deque[Action]], chunks: int, done: Mapping[Result, float]) -> list[str]:
    """What the next action of every rank waits for."""
    ranks = len(todo)
    return [
        f"rank {rank} in {one.kind} {one.micro_batch} of stage {one.chunk * ranks + rank} for "
        + ", ".join(_missing(one, rank, ranks, chunks, done))
        for rank, actions in enumerate(todo)
        for one in list(actions)[:1]
    ]


def _missing(action: Action, rank: int, ranks: int, chunks: int, done: Mapping[Result, float]) -> list[str]:
    """What an action still waits for."""
    needed = _needs(action, action.chunk * ranks + rank, ranks * chunks)
    return [f"{one.kind} {one.micro_batch} of stage {one.stage}" for one in needed if one not in done]


def _leaves(action: Action, stage: int) -> Result:
    return Result(BACKWARD if action.kind == INPUT else action.kind, action.micro_batch, stage)


def _needs(action: Action, stage: int, stages: int) -> list[Result]:
    """What must be there before an action can start."""
    one = action.micro_batch
    if action.kind == FORWARD:
        return [Result(FORWARD, one, stage - 1)] if stage else []
    if action.kind == WEIGHT:
        return [Result(BACKWARD, one, stage)]
    later = [Result(BACKWARD, one, stage + 1)] if stage < stages - 1 else []
    return [Result(FORWARD, one, stage), *later]


def _most_held(actions: Sequence[Action]) -> int:
    last = {(one.micro_batch, one.chunk): place for place, one in enumerate(actions)}
    held = most = 0
    for place, one in enumerate(actions):
        held += one.kind == FORWARD
        most = max(most, held)
        held -= last[one.micro_batch, one.chunk] == place
    return most


Orders = dict[tuple[int, int], tuple[list[Result], list[Result]]]
"""By source and target: what the source sends, and what the target receives, each in its order."""


def messages(schedule: Schedule, ranks: int, micro_batches: int, chunks: int = 1) -> Orders:
    """All messages between two ranks of a pipeline. NCCL tells them apart by their order alone, so it must
    be the same on both sides."""
    orders: Orders = {}
    for rank in range(ranks):
        for action in schedule(rank, ranks, micro_batches, chunks):
            stage = action.chunk * ranks + rank
            mine = _leaves(action, stage)
            to = stage + {FORWARD: 1, BACKWARD: -1}.get(mine.kind, 0)
            if to != stage and 0 <= to < ranks * chunks:
                orders.setdefault((rank, to % ranks), ([], []))[0].append(mine)
            for one in _needs(action, stage, ranks * chunks):
                if one.stage != stage:
                    orders.setdefault((one.stage % ranks, rank), ([], []))[1].append(one)
    return orders


class PipelineCost(NamedTuple):
    """Of a step, in times of a forward pass over a stage of work 1: from its start to its end, and the share
    of it in which ranks wait."""

    makespan: float
    bubble: float


def pipeline_cost(
    name: str, ranks: int, micro_batches: int, chunks: int, work: tuple[float, ...]
) -> PipelineCost:
    """The same as of `simulate`. Of many micro-batches the first are simulated: each `ranks` more take as
    long as the `ranks` before, as soon as stages of unequal work are in step."""
    first = min(micro_batches, 4 * ranks)
    makespan = _makespan(name, ranks, first, chunks, work)
    if micro_batches > first:
        each = (makespan - _makespan(name, ranks, first - ranks, chunks, work)) / ranks
        makespan += (micro_batches - first) * each
    busy = micro_batches * sum(work) * (COSTS[FORWARD] + COSTS[BACKWARD])
    return PipelineCost(makespan, 1 - busy / (ranks * makespan))


@cache
def _makespan(name: str, ranks: int, micro_batches: int, chunks: int, work: tuple[float, ...]) -> float:
    return simulate(SCHEDULES[name], ranks, micro_batches, chunks, work=work).makespan


def most_bytes(
    name: str, rank: int, ranks: int, micro_batches: int, sizes: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """The most bytes that a rank keeps at once, and of how many micro-batches in a chunk these are. `sizes`:
    by chunk, what a micro-batch takes from its forward pass until its last action, and until its hidden
    states have their gradients."""
    if name != "gpipe":  # the others hold no more later
        micro_batches = min(micro_batches, 2 * ranks)
    actions = list(SCHEDULES[name](rank, ranks, micro_batches, len(sizes)))
    last = {(one.micro_batch, one.chunk): place for place, one in enumerate(actions)}
    held = count = 0
    found = (0, 0)
    for place, one in enumerate(actions):
        whole, early = sizes[one.chunk]
        if one.kind == FORWARD:
            held, count = held + whole + early, count + 1
            found = max(found, (held, count))
        held -= early if one.kind in (BACKWARD, INPUT) else 0
        if last[one.micro_batch, one.chunk] == place:
            held, count = held - whole, count - 1
    return found
