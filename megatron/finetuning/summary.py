"""What the runs of a sweep come to: medians and spreads over seeds, by learning rate, and a table of them."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from megatron.finetuning.job import Job
from megatron.finetuning.language_job import LanguageJob
from megatron.finetuning.results import Results

AnyJob = Job | LanguageJob


class Part(NamedTuple):
    """A run of a sweep."""

    rate: float
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"lr {self.rate}, seed {self.seed}"


def summarise(job: AnyJob, found: dict[Part, Results]) -> dict[str, Any]:
    """Median, standard deviation and range over the seeds, by rate and by metric, and the rate with the best
    median of the task's score, of which the first metric of the first split is it."""
    rates: dict[str, Any] = {}
    by_rate: dict[float, list[Results]] = {}
    for part, results in found.items():
        by_rate.setdefault(part.rate, []).append(results)
    for rate, runs in by_rate.items():
        rates[repr(rate)] = dict(_spreads(runs))
    score = next((name for values in rates.values() for name in values), "")
    choose = min if job.smaller_is_better else max
    best = choose(rates, key=lambda rate: rates[rate][score]["median"], default="0")
    return {
        "task": job.flags.task,
        "load": job.load,
        "random_init": job.flags.random_init,
        "score": score,
        "unit": 1 if job.smaller_is_better else 100,
        "best_lr": float(best),
        "rates": rates,
        "runs": [
            {"lr": part.rate, "seed": part.seed, "metrics": results["metrics"], "seconds": results["seconds"]}
            for part, results in found.items()
        ],
    }


def _spreads(runs: list[Results]) -> Iterator[tuple[str, dict[str, float | int | None]]]:
    """Of every metric of every split."""
    for split, values in runs[0]["metrics"].items():
        for name in values:
            numbers = [one["metrics"][split][name] for one in runs]
            yield (
                f"{split} {name}",
                {
                    "median": statistics.median(numbers),
                    "standard_deviation": statistics.stdev(numbers) if len(numbers) > 1 else None,
                    "least": min(numbers),
                    "most": max(numbers),
                    "seeds": len(numbers),
                },
            )


def table_of(told: dict[str, Any]) -> Table:
    """A line for every rate and metric, in hundredths but for perplexities."""
    table = Table(title=f"{told['task']} from {'random weights' if told['random_init'] else told['load']}")
    for heading in ("lr", "metric", "median", "std", "min", "max", "seeds"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for rate, values in told["rates"].items():
        for name, one in values.items():
            numbers = [one[key] for key in ("median", "standard_deviation", "least", "most")]
            shown = ["-" if number is None else f"{told['unit'] * number:.2f}" for number in numbers]
            table.add_row(f"{float(rate):g}", name, *shown, str(one["seeds"]))
    return table
