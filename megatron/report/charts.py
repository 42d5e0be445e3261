"""The charts of the runs, one figure each: losses, schedules, cost and stability."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import DrawStyleType

from megatron.base.units import axis_label, axis_scale, power_of_ten, time_scale
from megatron.report.comparison import gap
from megatron.report.figures import (
    FAINT,
    HANDLE,
    ROOM,
    Entry,
    colour_of,
    fitting,
    frame,
    marker_for,
    single,
    thin,
)
from megatron.report.records import RecordedRun, nats
from megatron.report.summary import saved_share, smoothed, window

X_AXES = {
    "iteration": "step",
    "raw_tokens": "raw tokens",
    "consumed_tokens": "effective tokens",
    "seconds": "training time",
}
EARLY = 0.15
PAUSE = 3.0

Columns = Sequence[np.ndarray | None]


class Chart(NamedTuple):
    """A figure, the name of its file, and what it shows in words."""

    name: str
    figure: Figure
    words: str


def loss_charts(runs: list[RecordedRun]) -> list[Chart]:
    """Validation and smoothed training loss against every axis that the records have, and how far the runs
    are apart."""
    charts = [_loss(runs, x) for x in X_AXES if recorded(runs, x) and recorded(runs, "lm_loss")]
    others = [run for run in runs[1:] if len(gap(run, runs[0])[0])]
    return [*charts, _gaps(runs)] if others else charts


def schedule_charts(runs: list[RecordedRun]) -> list[Chart]:
    """Lengths, admitted difficulty, learning rate and a batch size that changes, as far as they were
    recorded."""
    charts = [_lengths(runs)] if recorded(runs, "seq_length") else []
    for metric in dict.fromkeys(metric for run in runs for metric in run.caps):
        caps = [run.caps.get(metric) for run in runs]
        charts.append(
            lines(
                f"cap_{metric}",
                f"Admitted difficulty: {metric}",
                "cap (value or percentile)",
                runs,
                caps,
                steps=True,
            )
        )
    if recorded(runs, "learning_rate"):
        scale, power = power_of_ten(*(run.train["learning_rate"] for run in runs))
        rates = [run.train["learning_rate"] / scale for run in runs]
        charts.append(
            lines(
                "learning_rate",
                "Learning rate",
                axis_label("learning rate", power),
                runs,
                rates,
                x="consumed_tokens",
            )
        )
    sizes = [run.train["batch_size"] for run in runs]
    if len(np.unique(np.concatenate(sizes))) > 1:
        charts.append(lines("batch_size", "Batch size", "samples of a step", runs, sizes, steps=True))
    return charts


def cost_charts(runs: list[RecordedRun]) -> list[Chart]:
    """Layer tokens and time of a step, what dropping saved, and the gradient norm."""
    charts = []
    if recorded(runs, "layer_tokens"):
        tokens = [_layer_tokens(run) for run in runs]
        scale, unit = axis_scale(*tokens)
        scaled = [column / scale for column in tokens]
        charts.append(
            lines("layer_tokens", "Layer tokens of a step", axis_label("layer tokens", unit), runs, scaled)
        )
    saved = [100 * saved_share(run) for run in runs]
    if any(np.nanmax(share, initial=0.0) > 0 for share in saved):
        charts.append(
            lines(
                "saved",
                "Layer tokens saved so far",
                "saved by dropping (%)",
                runs,
                saved,
                x="consumed_tokens",
            )
        )
    if recorded(runs, "ms_per_iteration"):
        charts.append(
            smooth(
                "step_time", "Time of a step", "milliseconds, running mean", runs, "ms_per_iteration", PAUSE
            )
        )
    if recorded(runs, "grad_norm"):
        charts.append(smooth("gradient_norm", "Gradient norm", "norm, running mean", runs, "grad_norm"))
    return charts


def recorded(runs: list[RecordedRun], column: str) -> bool:
    """Whether any training record has a number in this column."""
    return any(np.isfinite(run.train[column]).any() for run in runs)


def _layer_tokens(run: RecordedRun) -> np.ndarray:
    """Layer tokens of every step; unknown for the first record."""
    return np.diff(run.train["layer_tokens"], prepend=np.nan) / np.diff(
        run.train["iteration"], prepend=np.nan
    )


def keys_of(runs: list[RecordedRun]) -> list[Entry]:
    """An entry a run. Long names that come out the same are told apart by their number."""
    names = [fitting(run.name, ROOM - HANDLE) for run in runs]
    names = [f"{i}: {name}" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    return [Entry(name, colour_of(i)) for i, name in enumerate(names)]


def _width(index: int) -> float:
    """Later lines are thinner, so that one under another still shows."""
    return max(2.6 - 0.7 * index, 0.9)


def over(runs: list[RecordedRun], x: str) -> tuple[Figure, Axes, float, str]:
    """A figure whose horizontal axis is the same in every chart over `x`: its scale and label."""
    columns = [run.train[x] for run in runs]
    longest = max(float(np.nanmax(column, initial=0.0)) for column in columns)
    size, name = time_scale(longest) if x == "seconds" else axis_scale(*columns)
    figure, axes = single()
    axes.set_xlim(0, 1.01 * max(longest, 1e-9) / size)
    return figure, axes, size, axis_label(X_AXES[x], name)


def lines(
    name: str,
    title: str,
    y_label: str,
    runs: list[RecordedRun],
    columns: Columns,
    *,
    x: str = "iteration",
    steps: bool = False,
) -> Chart:
    """One line a run over column `x`, from 0 up; a run whose column is None is left out."""
    figure, axes, size, x_label = over(runs, x)
    for i, (run, values) in enumerate(zip(runs, columns)):
        if values is not None:
            shown = thin(len(values))
            style: DrawStyleType = "steps-post" if steps else "default"
            axes.plot(
                run.train[x][shown] / size,
                values[shown],
                color=colour_of(i),
                linewidth=_width(i),
                drawstyle=style,
            )
    axes.set_ylim(bottom=0)
    frame(
        axes,
        title,
        x_label,
        y_label,
        [key for key, values in zip(keys_of(runs), columns) if values is not None],
    )
    return Chart(name, figure, f"{title} against {X_AXES[x]}")


def smooth(
    name: str,
    title: str,
    y_label: str,
    runs: list[RecordedRun],
    field: str,
    most: float = np.inf,
    bottom: float | None = 0.0,
) -> Chart:
    """A noisy column as its running mean, without the first step, which also warms up, and without runs that
    have none. Early steps may leave the frame, and so may what is more than `most` times the median.
    `bottom`: where the vertical axis begins; at the least value for None."""
    means = [
        np.append(np.nan, smoothed(run.train[field][1:], window(run))) if recorded([run], field) else None
        for run in runs
    ]
    chart = lines(name, title, y_label, runs, means)
    for line in chart.figure.axes[0].lines:
        line.set_linewidth(1.3)
    late = np.concatenate([mean[_late(run, run.train)] for run, mean in zip(runs, means) if mean is not None])
    late = late[np.isfinite(late)]
    _fit(chart.figure.axes[0], [late[late <= most * np.median(late)]] if len(late) else [], bottom)
    return chart


def _late(run: RecordedRun, records: dict[str, np.ndarray]) -> np.ndarray:
    """Which records lie after the first, steep share of the run's effective tokens."""
    return records["consumed_tokens"] >= EARLY * run.last("consumed_tokens")


def _fit(axes: Axes, heights: list[np.ndarray], bottom: float | None = None) -> None:
    """Make the vertical axis hold these heights, from `bottom` on if that is given."""
    known = np.concatenate([np.zeros(0), *heights])
    known = known[np.isfinite(known)]
    if len(known):
        low = float(known.min()) if bottom is None else bottom
        room = 0.05 * max(float(known.max()) - low, 1e-3)
        axes.set_ylim(low - room if bottom is None else bottom, float(known.max()) + room)


def _loss(runs: list[RecordedRun], x: str) -> Chart:
    figure, axes, size, x_label = over(runs, x)
    heights = []
    for i, run in enumerate(runs):
        shown = thin(len(run.train[x]))
        losses = smoothed(run.train["lm_loss"], window(run))
        axes.plot(run.train[x][shown] / size, losses[shown], color=colour_of(i), linewidth=1, alpha=0.45)
        axes.plot(
            run.valid[x] / size,
            run.valid["lm_loss"],
            color=colour_of(i),
            linewidth=1.8,
            marker=marker_for(len(run.valid[x])),
            markersize=3.2,
        )
        heights += [losses[_late(run, run.train)], run.valid["lm_loss"][_late(run, run.valid)]]
    _fit(axes, heights)
    key = [Entry("validation", FAINT, marker="o"), Entry("training", FAINT, width=0.8)]
    frame(axes, f"Loss against {X_AXES[x]}", x_label, f"loss ({nats(runs)})", [*keys_of(runs), *key])
    return Chart(f"loss_{x}", figure, f"Validation and training loss against {X_AXES[x]}")


def _gaps(runs: list[RecordedRun]) -> Chart:
    figure, axes, size, x_label = over(runs, "consumed_tokens")
    axes.axhline(0, color=colour_of(0), linewidth=1.8)
    keys = keys_of(runs)[:1]
    for i, run in enumerate(runs[1:], 1):
        tokens, apart = gap(run, runs[0])
        late = tokens >= EARLY * tokens.max(initial=0.0)
        if late.any():
            marker = marker_for(len(tokens))
            axes.plot(
                tokens[late] / size,
                apart[late],
                color=colour_of(i),
                linewidth=1.8,
                marker=marker,
                markersize=3.2,
            )
            keys.append(keys_of(runs)[i])
    frame(axes, f"Validation loss minus that of {runs[0].name}", x_label, f"difference ({nats(runs)})", keys)
    return Chart(
        "loss_difference", figure, f"Validation loss minus that of {runs[0].name}, at equal effective tokens"
    )


def _lengths(runs: list[RecordedRun]) -> Chart:
    figure, axes, size, x_label = over(runs, "iteration")
    styles = []
    for i, run in enumerate(runs):
        shown = thin(len(run.train["iteration"]))
        x, kept = run.train["iteration"][shown] / size, run.train["kept_length"][shown]
        axes.step(x, run.train["seq_length"][shown], where="post", color=colour_of(i), linewidth=_width(i))
        if (kept < run.train["seq_length"][shown]).any():
            axes.step(x, kept, where="post", color=colour_of(i), linewidth=1.4, linestyle=(0, (3, 1.5)))
            styles = [Entry("sequence", FAINT), Entry("kept in the dropping layers", FAINT, "--")]
    axes.set_ylim(bottom=0)
    frame(axes, "Lengths", x_label, "tokens of a row", [*keys_of(runs), *styles])
    return Chart("lengths", figure, "Sequence length and kept length at every step")
