"""The difficulty of the samples of a corpus as a figure."""

import numpy as np

from megatron.base.units import exact
from megatron.report.charts import Chart
from megatron.report.figures import FAINT, ROOM, Entry, colour_of, fitting, frame, plain, single

QUANTILES = (50, 1, 99, 10, 90)  # a label that another one before it leaves no room is left out
LABEL_SHARE = 0.06
MOST_SAMPLES, MOST_BINS = 4_000_000, 80


def difficulty_chart(name: str, metric: str, meaning: str, corpus: str, values: np.ndarray) -> Chart:
    """Histogram of a metric over the samples of a corpus, with quantiles; the outermost thousandths lie
    outside the frame."""
    stride = -(-len(values) // MOST_SAMPLES)
    shown = np.sort(np.asarray(values[::stride]))
    low, high = int(shown[len(shown) // 1000]), int(shown[-1 - len(shown) // 1000])
    counts, edges = np.histogram(
        shown, np.arange(low, high + 2 + (width := (high - low) // MOST_BINS + 1), width)
    )
    figure, axes = single()
    axes.stairs(100 * counts / len(shown), edges, fill=True, color=colour_of(0), alpha=0.75)
    axes.set_ylim(0, 100 * counts.max() / len(shown) * 1.12)
    labelled: list[float] = []
    for share in QUANTILES:
        place = float(shown[share * len(shown) // 100])
        axes.axvline(place, ymax=0.93, color=FAINT, linewidth=0.9, linestyle=":")
        if all(abs(place - other) > LABEL_SHARE * (edges[-1] - edges[0]) for other in labelled):
            labelled.append(place)
            top = axes.text(place, 1, f"{share}%", fontsize=7.5, color=FAINT, ha="center", va="top")
            top.set_transform(axes.get_xaxis_transform())
    samples = f"{exact(len(values))} samples of {corpus}"
    entries = [Entry(samples, colour_of(0)), Entry("quantiles", FAINT, ":")]
    frame(axes, f"Difficulty: {metric}", plain(fitting(meaning or metric, ROOM)), "samples (%)", entries)
    return Chart(name, figure, f"Histogram of {metric} over {samples}, with quantiles")
