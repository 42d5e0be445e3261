"""What is measured of a finished run: bits per byte, loss, accuracies."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from megatron.base.errors import UserError

EVALUATION, SWEEP = "evaluation.json", "sections/sweep.json"


class Measure(NamedTuple):
    """`key`: in the results of tools/evaluate.py, or of a sweep. `sign`: 1 where less is better, else -1."""

    words: str
    key: str
    sign: int
    file: str = EVALUATION

    @property
    def heading(self) -> str:
        """The words as those of a column."""
        return self.words.removeprefix("of ").removeprefix("points of ")


MEASURES = {
    "bits_per_byte": Measure("bits per byte", "bits_per_byte", 1),
    "loss": Measure("nats of loss", "loss", 1),
    "perplexity": Measure("points of perplexity", "perplexity", 1),
    "top1": Measure("of top-1 accuracy", "accuracy", -1),
    "finetuned_accuracy": Measure("of finetuned accuracy", "valid accuracy", -1, SWEEP),
}


def read_measures(folder: Path, names: tuple[str, ...]) -> dict[str, float]:
    """The measures that a run's files hold. UserError where one is not there."""
    found = {name: _value(folder / MEASURES[name].file, MEASURES[name]) for name in names}
    if missing := [name for name, value in found.items() if value is None]:
        raise UserError(f"{folder}: nothing tells {', '.join(missing)} of this run; see its log")
    return {name: float(value) for name, value in found.items() if value is not None}


def _value(path: Path, measure: Measure) -> Any:
    told = json.loads(path.read_text(encoding="utf-8"))
    if measure.file == SWEEP:
        return _median(told)
    results: list[dict[str, Any]] = told["results"]
    return (results[0] | results[0].get("losses", {})).get(measure.key) if results else None


def _median(told: Mapping[str, Any]) -> Any:
    """The median of the score over the seeds, of the best rate."""
    return told["rates"][repr(told["best_lr"])][told["score"]]["median"]
