"""Encoders in a report: what is told of pairs, and how many masked tokens and pairs are told right."""

import numpy as np

from megatron.report.charts import Chart, keys_of, over, recorded, smooth
from megatron.report.comparison import loss_in_words
from megatron.report.conditions import MISSING
from megatron.report.figures import colour_of, frame, marker_for
from megatron.report.records import RecordedRun
from megatron.report.summary import smoothed, window

PAIRS = "sop_loss"
ACCURACIES = {"lm_accuracy": "masked tokens told right", "sop_accuracy": "pairs told right"}
SPLITS = {"valid": "last validation", "test": "test"}


def is_encoder(run: RecordedRun) -> bool:
    """Whether its records tell how many masked tokens were told right, or of pairs."""
    accuracies = [records["lm_accuracy"] for records in (run.valid, run.test)]
    return recorded([run], PAIRS) or any(np.isfinite(one).any() for one in accuracies)


def encoder_facts(run: RecordedRun) -> dict[str, str]:
    """Rows of a table: the loss over pairs, and shares that were told right."""
    loss = float(smoothed(run.train[PAIRS], window(run))[-1])
    found = {"training loss over pairs": loss_in_words(loss) if np.isfinite(loss) else MISSING}
    for split, words in SPLITS.items():
        found[f"{words}: loss over pairs"] = _last(run, split, PAIRS)
        found |= {f"{words}: {what}": last_share(run, split, name) for name, what in ACCURACIES.items()}
    return found


def last_share(run: RecordedRun, split: str, name: str) -> str:
    """The last known share of held-out samples that was told right."""
    known = getattr(run, split)[name]
    known = known[np.isfinite(known)]
    return f"{known[-1]:.1%}" if len(known) else MISSING


def _last(run: RecordedRun, split: str, name: str) -> str:
    """The last known loss of held-out samples."""
    values = getattr(run, split)[name]
    known = values[np.isfinite(values)]
    if not len(known):
        return MISSING
    return loss_in_words(float(known[-1]))


def encoder_charts(runs: list[RecordedRun]) -> list[Chart]:
    """The loss over pairs in training, and the shares that validations found right."""
    title, label = "Training loss over pairs", "nats a pair, running mean"
    pairs = [smooth(PAIRS, title, label, runs, PAIRS, bottom=None)] if recorded(runs, PAIRS) else []
    return pairs + accuracy_charts(runs, ACCURACIES)


def accuracy_charts(runs: list[RecordedRun], names: dict[str, str]) -> list[Chart]:
    """Of shares that validations found right, by the words for each, those that are told."""
    return [
        _accuracies(runs, name, words)
        for name, words in names.items()
        if any(np.isfinite(run.valid[name]).any() for run in runs)
    ]


def _accuracies(runs: list[RecordedRun], name: str, words: str) -> Chart:
    figure, axes, size, x_label = over(runs, "consumed_tokens")
    for number, run in enumerate(runs):
        axes.plot(
            run.valid["consumed_tokens"] / size,
            100 * run.valid[name],
            color=colour_of(number),
            linewidth=1.8,
            marker=marker_for(len(run.valid[name])),
            markersize=3.2,
        )
    title = f"Validation: {words}"
    frame(axes, title, x_label, f"{words} (%)", keys_of(runs))
    return Chart(name, figure, f"{title}, against effective tokens")
