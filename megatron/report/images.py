"""Vision transformers in a report: how many images are told right."""

from megatron.report.charts import Chart
from megatron.report.encoders import SPLITS, accuracy_charts, last_share
from megatron.report.records import RecordedRun

ACCURACIES = {
    "accuracy": "images whose class is the likeliest",
    "top5_accuracy": "images whose class is among the likeliest five",
}


def image_facts(run: RecordedRun) -> dict[str, str]:
    """Rows of a table: shares that were told right."""
    return {
        f"{words}: {what}": last_share(run, split, name)
        for split, words in SPLITS.items()
        for name, what in ACCURACIES.items()
    }


def image_charts(runs: list[RecordedRun]) -> list[Chart]:
    """The shares that validations found right."""
    return accuracy_charts(runs, ACCURACIES)
