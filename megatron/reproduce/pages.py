"""A finished table as an HTML page and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from megatron.report.page import Section, box, charts, page, paragraphs, sample, table
from megatron.reproduce.outcome import Grid
from megatron.reproduce.pictures import Picture

NOTE = (
    "Seen: the mean of the paired differences over the seeds is not 0 by Student's t at 5 %, and ± is half "
    "of its 95 % interval. Many rows are tested, each for itself. In the table ± is the standard deviation "
    "over seeds. CPU time is that of the training steps, whatever else the cores did. Tokens: effective "
    "ones, which end a run; raw ones, which enter the first layer; drawn ones, taken from the corpus."
)
TUNED = "The learning rate is tuned on the first row by one seed, and its factor is that of all rows."
NOT_TUNED = "No learning rate is tuned: there was one factor to try."


class Told(NamedTuple):
    """All that a page says."""

    title: str
    paper: str
    about: str
    sentences: Sequence[str]
    grid: Grid
    goal: Grid
    pictures: Sequence[Picture]
    rates: Mapping[float, float]
    notes: Sequence[str]
    command: str


def html(told: Told) -> str:
    """The page."""
    rates = [[f"{factor:g}", f"{quality:.4f}"] for factor, quality in told.rates.items()]
    sections = [
        Section("The paper's rows beside ours", _table(told.grid)),
        Section("What reaches the baseline", _table(told.goal) if told.goal.rows else ""),
        Section("Figures", charts((one.words, one.png) for one in told.pictures)),
        Section(
            "Learning rate", table("times the recipe's", ["quality"], rates, coloured=False) if rates else ""
        ),
        Section("How to read it", paragraphs(_explained(told))),
        Section("Command", sample("", told.command)),
    ]
    return page(
        told.title, paragraphs([told.about]) + box(told.sentences or ["No run has finished."]), sections
    )


def _explained(told: Told) -> list[str]:
    tuned = TUNED if len(told.rates) > 1 else NOT_TUNED
    return [f"The paper's columns: {told.paper}.", f"{NOTE} {tuned}", *told.notes]


def _table(grid: Grid) -> str:
    return table("row", grid.columns, grid.rows, coloured=False)


def markdown(told: Told) -> str:
    """The same for benchmarks/results."""
    parts = [f"# {told.title}", told.about, "```\n" + told.command + "\n```"]
    parts += ["\n".join(f"- {line}" for line in told.sentences) or "No run has finished.", _lines(told.grid)]
    if told.goal.rows:
        parts += ["## What reaches the baseline", _lines(told.goal)]
    parts += [f"![{one.words}]({one.name})" for one in told.pictures]
    if told.rates:
        words = ", ".join(f"{factor:g}: {quality:.4f}" for factor, quality in told.rates.items())
        parts.append(f"Learning rate, times the recipe's: {words}.")
    parts += _explained(told)
    return "\n\n".join(parts) + "\n"


def _lines(grid: Grid) -> str:
    head = ["row", *grid.columns]
    rows = [head, ["---"] * len(head), *grid.rows]
    return "\n".join(f"| {' | '.join(one)} |" for one in rows)
