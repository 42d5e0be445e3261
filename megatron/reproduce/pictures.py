"""A table as figures: the quality of every row with its seeds, and what reaches the baseline."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from megatron.base.units import axis_label, axis_scale, time_scale
from megatron.report.figures import FAINT, INK, Entry, colour_of, frame, panels, plain, png
from megatron.reproduce.measures import MEASURES
from megatron.reproduce.outcome import Records, cpu_seconds, effective_tokens
from megatron.reproduce.statistics import spread
from megatron.reproduce.table import Table

WIDTH, ABOVE, EACH = 6.4, 1.2, 0.22  # inches: of the rows' figure, around its rows, and of a row
SEEDS = 0.3  # of a row's height: from its mean up to the first seed, and down to the last
MARGIN = 0.05
AMOUNTS = (
    ("effective tokens", effective_tokens, lambda largest: axis_scale(np.array([largest]))),
    ("CPU time of the steps", cpu_seconds, time_scale),
)


class Picture(NamedTuple):
    """`name`: of its file. `words`: what it shows. `png`: its bytes."""

    name: str
    words: str
    png: bytes


def pictures(table: Table, records: Records, names: Iterable[str]) -> list[Picture]:
    """The figures of a table that has records."""
    shown = [name for name in names if records.get(name)]
    if not shown:
        return []
    words = f"{table.title}: {_measured(table)} of every row"
    found = [Picture(f"{table.name}_rows.png", words, png(rows_figure(table, records, shown)))]
    if table.goal and (drawn := _groups(table, records)):
        words = f"{table.title}: {_measured(table)} by tokens and by time"
        figure = reach_figure(table, records, drawn)
        found.append(Picture(f"{table.name}_reach.png", words, png(figure)))
    return found


def _measured(table: Table) -> str:
    return MEASURES[table.measures[0]].heading


def _label(table: Table) -> str:
    better = "less" if MEASURES[table.measures[0]].sign > 0 else "more"
    return f"{_measured(table)} ({better} is better)"


def _qualities(table: Table, records: Records, name: str) -> list[float]:
    return [one["quality"][table.measures[0]] for one in records[name].values()]


def _heights(records: Records, names: Sequence[str]) -> dict[int, float]:
    """Where seeds stand about the middle of every row: each at its own height, so that equal ones are seen,
    and the same in all rows, so that pairs are."""
    seeds = sorted({seed for name in names for seed in records[name]})
    return dict(zip(seeds, np.linspace(-SEEDS, SEEDS, len(seeds)).tolist() if len(seeds) > 1 else [0.0]))


def rows_figure(table: Table, records: Records, names: Sequence[str]) -> Figure:
    """A line a row: a small dot a seed, and the mean with the standard deviation over seeds. The first row
    goes through all as a line."""
    figure, (axes,) = panels(1, 1, table.title, (WIDTH, ABOVE + EACH * len(names)))
    heights = _heights(records, names)
    for place, name in enumerate(names):
        values = _qualities(table, records, name)
        seeds = [place + heights[seed] for seed in records[name]]
        axes.plot(values, seeds, "o", color=FAINT, markersize=2.5, zorder=3)
        axes.errorbar(
            [statistics.fmean(values)],
            [place],
            xerr=[spread(values)] if len(values) > 1 else None,
            fmt="D",
            color=colour_of(0),
            markersize=4,
            capsize=2.5,
            linewidth=1.4,
        )
    axes.axvline(statistics.fmean(_qualities(table, records, names[0])), color=colour_of(1), linewidth=1.0)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    keys = [
        Entry("mean ± standard deviation", colour_of(0), marker="D", width=1.4),
        Entry("seeds, the first on top", FAINT, "", "o"),
        Entry(names[0], colour_of(1), width=1.0),
    ]
    frame(axes, "", _label(table), "", keys)
    axes.margins(x=MARGIN)
    return figure


def _groups(table: Table, records: Records) -> dict[str, list[str]]:
    """The rows with records of every group of the goal that has some."""
    assert table.goal is not None
    rows = {name: [one for one in group if records.get(one)] for name, group in table.goal.groups.items()}
    return {name: group for name, group in rows.items() if group}


def reach_figure(table: Table, records: Records, groups: dict[str, list[str]]) -> Figure:
    """Quality by effective tokens and by CPU time: a line a group, through the means of its rows, and the
    quality to reach."""
    figure, charts = panels(1, len(AMOUNTS), table.title)
    for axes, (words, amount, scale) in zip(charts, AMOUNTS):
        means = {row: statistics.fmean(map(amount, records[row].values())) for row in chain(*groups.values())}
        size, unit = scale(max(means.values()))
        for number, rows in enumerate(groups.values()):
            points = sorted((means[row] / size, _qualities(table, records, row)) for row in rows)
            _draw_group(axes, points, colour_of(number))
        keys = [Entry(name, colour_of(number), marker="o") for number, name in enumerate(groups)]
        keys += _draw_goal(axes, table, records)
        frame(axes, f"By {words}", axis_label(words, unit, "logarithmic"), _label(table), keys)
        _logarithmic(axes)
    return figure


def _draw_goal(axes: Axes, table: Table, records: Records) -> list[Entry]:
    """The quality to reach as a line, where it is known; its entry in the key."""
    reach = table.goal.reach if table.goal else ""
    if not records.get(reach):
        return []
    quality = statistics.fmean(_qualities(table, records, reach))
    axes.axhline(quality, color=INK, linewidth=1.0, linestyle="--")
    return [Entry(f"{reach}, to be reached", INK, "--", width=1.0)]


def _draw_group(axes: Axes, points: Sequence[tuple[float, list[float]]], colour: str) -> None:
    """A line through amounts and the means of their qualities, with standard deviations."""
    axes.errorbar(
        [x for x, _ in points],
        [statistics.fmean(values) for _, values in points],
        yerr=[spread(values) if len(values) > 1 else 0.0 for _, values in points],
        color=colour,
        marker="o",
        markersize=4,
        capsize=2.5,
        linewidth=1.6,
    )


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis with some labels, however narrow it is."""
    axes.set_xscale("log")
    axes.margins(x=MARGIN)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)) if high > 10 * low else MaxNLocator(8))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
