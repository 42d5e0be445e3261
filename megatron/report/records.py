"""What a run left behind, as columns: metrics.jsonl, run.json, and the results of evaluations."""

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.config.experts import AUXILIARY, Z_LOSS

COUNTERS = ("iteration", "consumed_samples", "consumed_tokens", "raw_tokens", "drawn_tokens", "layer_tokens")
TOLD = ("sop_loss", "lm_accuracy", "sop_accuracy", "accuracy", "top5_accuracy")
HELD_OUT = ("lm_loss", "windows", *TOLD)
OF_IMAGES = "loss"
"""The name of a loss over images, which stands in the place of that over tokens."""
FIELDS = {
    "train": (
        *COUNTERS,
        *(
            "lm_loss",
            "sop_loss",
            "learning_rate",
            "grad_norm",
            "seq_length",
            "kept_length",
            "batch_size",
            "ms_per_iteration",
            "cpu_ms_per_iteration",
        ),
        *AUXILIARY.values(),
        Z_LOSS,
    ),
    "valid": (*COUNTERS, *HELD_OUT),
    "test": (*COUNTERS, *HELD_OUT),
}
NEEDED = ("iteration", "consumed_tokens")
NAN = float("nan")

Columns = dict[str, dict[str, array]]
Rows = dict[int, dict[int, array]]


@dataclass(frozen=True)
class RecordedRun:
    """One run. `train`, `valid` and `test` hold float64 columns, NaN where a record lacks the field;
    `seconds` and `cpu_seconds` are sums of step times so far, and `windows` what a validation scored.
    `lm_loss` is the loss over tokens, or over images. `caps`: admitted difficulty at every training record,
    by metric. `shares`: of every expert of the choices of a step, by layer [training records, experts].
    `description`: run.json, or nothing."""

    name: str
    folder: Path
    train: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    caps: dict[str, np.ndarray]
    shares: dict[int, np.ndarray]
    description: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def steps(self) -> int:
        return int(self.train["iteration"][-1])

    @property
    def of_images(self) -> bool:
        """Whether its records tell how many images were told right."""
        return any(np.isfinite(records["accuracy"]).any() for records in (self.valid, self.test))

    def last(self, name: str) -> float:
        """The last value of a training column."""
        return float(self.train[name][-1])


def nats(runs: Sequence[RecordedRun]) -> str:
    """What losses are measured in."""
    return "nats an image" if all(run.of_images for run in runs) else "nats a token"


def read_run(name: str, folder: Path) -> RecordedRun:
    """A run's records; UserError names the file and the line that cannot be used."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise UserError(
            f"--runs {name}={folder}: holds no metrics.jsonl; give the folder that a training run saved to"
        )
    columns: Columns = {kind: {field: array("d") for field in fields} for kind, fields in FIELDS.items()}
    caps: dict[str, array] = {}
    shares: Rows = {}
    notes = (
        [f"The last record of {name} is incomplete and left out; the run may still be going on."]
        if _read(path, columns, caps, shares)
        else []
    )
    if not columns["train"]["iteration"]:
        raise UserError(f"{path}: holds no training record, so there is nothing to report; train first")
    train, valid, test = (
        {field: np.array(values) for field, values in columns[kind].items()} for kind in FIELDS
    )
    train["seconds"] = np.cumsum(train["ms_per_iteration"]) / 1000
    train["cpu_seconds"] = np.cumsum(train["cpu_ms_per_iteration"]) / 1000
    valid["seconds"] = np.interp(valid["iteration"], train["iteration"], train["seconds"], left=0.0)
    notes += [
        f"{lost:,} of {len(records['lm_loss']):,} {kind} losses of {name} are no number; they are left out."
        for kind, records in (("training", train), ("validation", valid))
        if (lost := int(np.count_nonzero(np.isnan(records["lm_loss"]))))
    ]
    return RecordedRun(
        name,
        folder,
        train,
        valid,
        test,
        {metric: np.array(values) for metric, values in caps.items()},
        {layer: _filled(rows, len(train["iteration"])) for layer, rows in sorted(shares.items())},
        _description(folder),
        tuple(notes),
    )


def _filled(rows: dict[int, array], records: int) -> np.ndarray:
    """Rows by number of record as a table; NaN where a record has none."""
    table = np.full((records, max(map(len, rows.values()))), np.nan, np.float32)
    for number, row in rows.items():
        table[number, : len(row)] = row
    return table


def _read(path: Path, columns: Columns, caps: dict[str, array], shares: Rows) -> bool:
    """Add every record to its columns; whether the last line is only begun."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError:
                if line.endswith(b"\n"):
                    raise UserError(f"{path}:{number}: is no JSON; mend or remove that line") from None
                return True
            _add_record(record, f"{path}:{number}", columns, caps, shares)
    return False


def _add_record(record: Any, where: str, columns: Columns, caps: dict[str, array], shares: Rows) -> None:
    """Add one record to the columns of its kind; other kinds are passed over."""
    if not isinstance(record, dict) or "kind" not in record:
        raise UserError(f"{where}: is no record with a kind; mend or remove that line")
    mine = columns.get(record["kind"])
    if mine is None:
        return
    if OF_IMAGES in record:
        record = {"lm_loss": record[OF_IMAGES], **record}
    iterations = mine["iteration"]
    count, before = len(iterations), iterations[-1] if iterations else -1.0
    _append(record, mine, where)
    training = mine is columns["train"]
    if not (iterations[-1] > before or (iterations[-1] == before and not training)):
        raise UserError(
            f"{where}: iteration {iterations[-1]:.0f} follows {before:.0f}; the file must hold one run, "
            "in order"
        )
    if training:
        admitted = record.get("caps") or {}
        for metric in admitted.keys() - caps.keys():
            caps[metric] = array("d", [NAN]) * count
        _append(admitted, caps, where)
        for layer, row in _shares(record.get("expert_shares") or {}, where).items():
            shares.setdefault(layer, {})[count] = row


def _shares(told: Any, where: str) -> dict[int, array]:
    """The shares of a layer's experts, by layer."""
    try:
        rows = {int(layer): array("f", row) for layer, row in told.items()}
    except (AttributeError, TypeError, ValueError):
        rows = {-1: array("f")}
    if not all(rows.values()):
        raise UserError(f"{where}: expert_shares must hold a list of numbers for every layer")
    return rows


def _append(record: dict[str, Any], columns: dict[str, array], where: str) -> None:
    """Add the record's fields to their columns: NaN where one is missing, null or not finite, which only
    fields that are not needed may be."""
    for field, column in columns.items():
        value = record.get(field)
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if value is None and field not in NEEDED:
            value = NAN
        elif type(value) is not float and type(value) is not int:
            raise UserError(f"{where}: {field} must be a number, not {record.get(field)!r}")
        column.append(value)


def _description(folder: Path) -> dict[str, Any]:
    """What training wrote about the run; nothing where it wrote nothing."""
    path = folder / "run.json"
    description = read_json(path) if path.is_file() else {}
    for name in ("config", "versions", "environment"):
        if not isinstance(description.get(name, {}), dict):
            raise UserError(f"{path}: {name} must be a JSON object")
    return description


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}; bring the file again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return content


def read_evaluation(path: Path) -> dict[str, Any]:
    """A file of tools/evaluate.py: `results` has corpus, split, tokens, loss, perplexity and bits per byte
    of each corpus."""
    content = read_json(path)
    results = content.get("results")
    if not isinstance(results, list) or not all(
        isinstance(result, dict) and "loss" in result for result in results
    ):
        raise UserError(
            f"{path}: must hold a list of results, each with a loss, as tools/evaluate.py writes it"
        )
    return content


def flags(run: RecordedRun) -> dict[str, Any]:
    """The configuration of a run as {"--num-layers": 24, ...}; empty without run.json."""
    values: dict[str, Any] = {}
    for name, value in run.description.get("config", {}).items():
        values |= value if isinstance(value, dict) else {name: value}
    return {"--" + name.replace("_", "-"): value for name, value in values.items()}
