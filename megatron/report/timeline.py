"""A step of a pipeline as text: one row a rank, time to the right."""

import string
from textwrap import wrap

from megatron.parallel.schedules import BACKWARD, FORWARD, INPUT, WEIGHT
from megatron.parallel.simulate import Simulation, Timed

COLUMNS = 110
MEANINGS = {
    FORWARD: "F forward",
    BACKWARD: "B backward",
    INPUT: "I gradients of inputs",
    WEIGHT: "W gradients of weights",
}


def timeline(simulation: Simulation, title: str) -> list[str]:
    """Lines of at most COLUMNS characters: the title, a row a rank, what the letters mean, the bubble, and
    the most micro-batches held at once. Of a long step a letter stands for several actions."""
    ranks = len(simulation.rows)
    chunks = 1 + max(one.action.chunk for row in simulation.rows for one in row)
    names = [f"rank {rank}".ljust(len(f"rank {ranks - 1}")) + " |" for rank in range(ranks)]
    room = COLUMNS - len(names[0]) - 1
    width = 1 + max(len(_label(one, chunks)) for row in simulation.rows for one in row)
    shortest = min(one.end - one.start for row in simulation.rows for one in row)
    scale = min(width / shortest, room / simulation.makespan)
    length = round(scale * simulation.makespan)
    rows = [name + _row(row, scale, chunks).ljust(length) + "|" for name, row in zip(names, simulation.rows)]
    notes = [line for text in _notes(simulation, chunks) for line in wrap(text, COLUMNS)]
    return [*wrap(title, COLUMNS), *rows, *notes]


def _row(row: list[Timed], scale: float, chunks: int) -> str:
    """The actions of a rank: the label where it fits, else the letter alone."""
    text = ""
    for one in row:
        start, end = round(scale * one.start), round(scale * one.end)
        label = _label(one, chunks)
        label = label if len(label) <= end - start else label[0]
        text = text.ljust(start) + label.ljust(end - start, "-")[: end - start]
    return text


def _label(one: Timed, chunks: int) -> str:
    """Such as F3, with a letter for the run of layers where a rank has several."""
    run = string.ascii_lowercase[one.action.chunk % 26] if chunks > 1 else ""
    return f"{MEANINGS[one.action.kind][0]}{one.action.micro_batch}{run}"


def _notes(simulation: Simulation, chunks: int) -> list[str]:
    kinds = {one.action.kind for row in simulation.rows for one in row}
    meanings = ", ".join(meaning for kind, meaning in MEANINGS.items() if kind in kinds)
    runs, each = (
        (", a and so on a rank's runs of layers", ", each in one run of layers") if chunks > 1 else ("", "")
    )
    return [
        f"{meanings}; numbers are micro-batches{runs}; empty: the rank waits",
        f"bubble: {simulation.bubble:.1%} of the ranks' time",
        f"most micro-batches held at once, by rank: {', '.join(map(str, simulation.held))}{each}",
    ]
