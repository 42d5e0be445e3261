"""Mixtures of experts: their losses beside that of the model, and the load of every expert over the steps."""

from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from megatron.base.units import exact
from megatron.config.experts import AUXILIARY, Z_LOSS
from megatron.report.charts import Chart, over, recorded, smooth
from megatron.report.comparison import loss_in_words
from megatron.report.conditions import MISSING, experts_in_words
from megatron.report.figures import FAINT, INK, Entry, frame, level
from megatron.report.records import RecordedRun, flags
from megatron.report.summary import smoothed, window

LOSSES = {
    **{loss: (loss.replace("_", " "), "--moe-aux-loss-coeff") for loss in AUXILIARY.values()},
    Z_LOSS: ("z loss", "--moe-z-loss-coeff"),
}
MOST_COLUMNS, MOST_TICKS = 230, 9
LIMITS, INSIDE = (2, 4, 8), 0.95
"""Ends of the scale, in even shares, and the share of all loads that must lie between them."""
UNKNOWN = "#b3bac1"
LAST = 0.1
"""The share of a run whose loads the table has."""


class Loads(NamedTuple):
    """Of a layer: edges of the columns in steps [columns + 1], and the mean load of every expert in them, in
    even shares [columns, experts]; NaN where nothing was recorded."""

    edges: np.ndarray
    loads: np.ndarray


def has_experts(run: RecordedRun) -> bool:
    """Whether a run is known to be of a mixture."""
    losses = any(recorded([run], name) for name in LOSSES)
    return bool(run.shares or losses or experts_in_words(flags(run)))


def expert_facts(run: RecordedRun) -> dict[str, str]:
    """The experts of a run in words and numbers, one row of a table each, a line break before details."""
    settings = flags(run)
    losses = {words: _loss(run, name, flag) for name, (words, flag) in LOSSES.items()}
    return {
        "experts of a layer": experts_in_words(settings) or MISSING,
        **losses,
        "fullest expert": _extreme(run, largest=True),
        "emptiest expert": _extreme(run, largest=False),
        "tokens dropped by full experts": _dropped(run),
    }


def _loss(run: RecordedRun, name: str, flag: str) -> str:
    """The last running mean of a loss, and its factor."""
    if not recorded([run], name):
        return MISSING
    factor = flags(run).get(flag)
    counts = f"\ncounts {factor:g} times" if isinstance(factor, int | float) else ""
    return loss_in_words(float(smoothed(run.train[name], window(run))[-1])) + counts


def _extreme(run: RecordedRun, largest: bool) -> str:
    """The load of the fullest or emptiest expert of all layers over the last steps, and which one it is."""
    found = []
    for layer, shares in run.shares.items():
        late = shares[run.train["iteration"] > (1 - LAST) * run.steps]
        if np.isfinite(late).any():
            means = shares.shape[1] * np.nanmean(late, axis=0)
            expert = int(np.argmax(means) if largest else np.argmin(means))
            found.append((float(means[expert]), layer, expert))
    if not found:
        return MISSING
    load, layer, expert = max(found) if largest else min(found)
    return f"{load:.2f} even shares\nlayer {layer}, expert {expert}, mean of the last {LAST:.0%} of the steps"


def _dropped(run: RecordedRun) -> str:
    """Dropped tokens, which no record counts, as far as the flags tell them."""
    settings = flags(run)
    if not experts_in_words(settings):
        return MISSING
    factor = settings.get("--moe-expert-capacity-factor")
    return "none\nexperts take all tokens" if factor is None else f"not recorded\ncapacity factor {factor:g}"


def expert_charts(runs: list[RecordedRun]) -> list[Chart]:
    """The losses that experts add, against the steps."""
    return [
        smooth(name, words.capitalize(), "mean of the layers, running mean", runs, name, bottom=None)
        for name, (words, _) in LOSSES.items()
        if recorded(runs, name)
    ]


def load_charts(runs: list[RecordedRun]) -> list[Chart]:
    """A picture a layer and run, all of one size: steps to the right, experts downwards, loads as colours of
    one scale."""
    if not any(run.shares for run in runs):
        return []
    tables = {
        (layer, number): loads_over_steps(run, layer)
        for number, run in enumerate(runs)
        for layer in run.shares
    }
    limit = _limit([table.loads for table in tables.values()])
    found = [_picture(runs, number, layer, tables[layer, number], limit) for layer, number in sorted(tables)]
    level(chart.figure for chart in found)
    return found


def loads_over_steps(run: RecordedRun, layer: int, most: int = MOST_COLUMNS) -> Loads:
    """The loads of a layer in at most so many columns of equally many steps."""
    steps, shares = run.train["iteration"], run.shares[layer]
    columns = min(most, len(steps))
    edges = np.linspace(0, steps[-1], columns + 1)
    known = np.isfinite(shares).all(axis=1)
    column = np.clip(np.searchsorted(edges, steps[known]) - 1, 0, columns - 1)
    sums, counts = np.zeros((columns, shares.shape[1])), np.bincount(column, minlength=columns)[:, None]
    np.add.at(sums, column, shares[known])
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Loads(edges, shares.shape[1] * means)


def _limit(tables: list[np.ndarray]) -> int:
    """The least end of the scale between whose inverse and which nearly all loads lie, of those that any
    scale holds: experts without tokens need none."""
    known = np.concatenate([table[np.isfinite(table)] for table in tables])
    apart = np.maximum(known, 1 / np.maximum(known, 1e-9))
    apart = apart[apart <= LIMITS[-1]]
    return next(limit for limit in LIMITS if np.count_nonzero(apart <= limit) >= INSIDE * len(apart))


def _picture(runs: list[RecordedRun], number: int, layer: int, table: Loads, limit: int) -> Chart:
    name, (_, experts) = runs[number].name, table.loads.shape
    figure, axes, size, x_label = over(runs, "iteration")
    norm, colours = LogNorm(1 / limit, limit), colormaps["RdBu_r"].with_extremes(bad=UNKNOWN)
    loads = np.ma.masked_invalid(np.maximum(table.loads.T, 1e-9))  # of a logarithm nothing may be 0
    borders = np.arange(experts + 1) - 0.5
    mesh = axes.pcolormesh(table.edges / size, borders, loads, norm=norm, cmap=colours)
    axes.set_ylim(experts - 0.5, -0.5)
    axes.set_facecolor(UNKNOWN)  # behind the last step of a shorter run
    axes.set_xlim(right=max(float(table.edges[-1]), *(one.steps for one in runs)) / size)
    axes.yaxis.set_major_locator(MaxNLocator(min(experts, MOST_TICKS), integer=True))
    gaps = [Entry("not recorded", UNKNOWN, width=6)] if np.isnan(table.loads).any() else []
    title = f"Loads of layer {layer}: {name}"
    frame(axes, title, x_label, "expert", gaps)
    axes.grid(False)
    _scale(axes, mesh, limit)
    return Chart(f"experts_layer_{layer}_run_{number + 1}", figure, f"{title}, for every expert and step")


def _scale(axes: Axes, mesh: QuadMesh, limit: int) -> None:
    """What the colours mean, beside the picture."""
    powers = [2**power for power in range(1, limit.bit_length())]
    names = {1 / power: f"1/{power}" for power in powers} | {1.0: "1"}
    names |= {float(power): str(power) for power in powers}
    bar = axes.figure.colorbar(mesh, cax=axes.inset_axes((1.03, 0, 0.03, 1)), extend="both")
    bar.set_ticks(list(names), labels=list(names.values()))
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3)
    bar.set_label("load (1 = even)", fontsize=8.5, color=INK)


def expert_notes(runs: list[RecordedRun]) -> list[str]:
    """What the pictures show, and which are missing."""
    shown = [run for run in runs if run.shares]
    found = [
        f"{run.name} recorded no loads of its experts; --moe-per-layer-logging does."
        for run in runs
        if has_experts(run) and not run.shares
    ]
    if not shown:
        return found
    several = max(run.steps / min(MOST_COLUMNS, len(run.train["iteration"])) for run in shown)
    means = f" A column is a mean of up to {exact(np.ceil(several))} steps." if several > 1 else ""
    return [
        "Load: an expert's share of all choices of a layer's tokens, in even shares, so that 1 is even. "
        "Red experts have more tokens, blue ones fewer; the scale is logarithmic and the same in every "
        f"picture, and its pointed ends stand for all beyond.{means} Layers and experts count from 0. "
        "A balancing loss of 1 is even. Losses are means of the layers, before their factors.",
        *found,
    ]
