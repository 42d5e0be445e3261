"""The runs of a table: their commands, and the small records that finished ones leave."""

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.report.records import read_json, read_run
from megatron.reproduce.corpora import Order, Step, flags_of, steps_of
from megatron.reproduce.measures import SWEEP, read_measures
from megatron.reproduce.plans import Planned, divided, plan_row, recipe_flags
from megatron.reproduce.table import Row, Table

FORMAT = 1
SOURCE, SOURCE_SEED = "source", 1234
FINETUNING_RATE = "3e-3"
TOKENS = {"effective": "consumed_tokens", "raw": "raw_tokens", "drawn": "drawn_tokens"}


START = {"gpt": "--load", "bert": "--load", "vit": "--pretrained-checkpoint"}
"""The flag of given weights, by task."""


class Places(NamedTuple):
    """Where data lies, and where runs and records go."""

    data: Path
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


class Size(NamedTuple):
    """How runs are scaled."""

    scale: str
    steps: int | None


class Run(NamedTuple):
    """One run. `name` is the same wherever the same is run, in whichever table, and another one where a
    recipe says something else. `iterations`: of the whole run. `steps`: to its data. `commands`: training,
    then measuring. `begins_anew`: what an unfinished attempt left is not gone on with."""

    name: str
    row: str
    seed: int
    rate: float
    iterations: int
    flops: float
    measures: tuple[str, ...]
    steps: tuple[Step, ...]
    commands: tuple[tuple[str, ...], ...]
    begins_anew: bool


def make_run(table: Table, name: str, seed: int, factor: float, size: Size, places: Places) -> Run:
    """The run of a row, or of the table's source by its name. `factor`: times the rate that the
    row has."""
    row = _row(table, name)
    planned, rate = plan_row(table, row, *size), rate_of(table, name, factor, size)
    full_name = _name(table, row, planned, seed, rate, size, places)
    folder = places.runs / full_name
    data = table.source_data if row is table.source else table.data
    order = Order(planned.config.data.seq_length, seed) if planned.ordered else None
    train = [table.script, *recipe_flags(table, row, *size), *flags_of(data, places.data, order)]
    train += ["--seed", str(seed), "--lr", repr(rate), "--log-interval", "10", "--save", str(folder)]
    begins_anew = bool(table.source and row is not table.source)
    if begins_anew:
        train += [START[table.task], str(_source_folder(table, size, places))]
    else:
        train += ["--load", str(folder)]
    measuring = () if row is table.source else tuple(_measuring(table, folder, seed, places))
    measures = () if row is table.source else table.measures
    steps, commands = tuple(steps_of(data, places.data, order)), (tuple(train), *measuring)
    return Run(
        name=full_name,
        row=name,
        seed=seed,
        rate=rate,
        iterations=planned.plan.steps,
        flops=planned.flops,
        measures=measures,
        steps=steps,
        commands=commands,
        begins_anew=begins_anew,
    )


def _name(
    table: Table, row: Row, planned: Planned, seed: int, rate: float, size: Size, places: Places
) -> str:
    """What a run is known by: words, and a digest of all that shapes it and its measures."""
    data = table.source_data if row is table.source else table.data
    given = {name: value for name, value in planned.given.items() if name != "config"}
    told = [table.script, given, data, seed, rate, table.measures, table.max_windows]
    if table.source and row is not table.source:
        told.append(_source_folder(table, size, places).name)
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    steps = divided(table, row, *size)
    words = [row.recipe.replace("/", "-"), size.scale, *([f"{steps}"] if steps else []), f"seed{seed}"]
    return "_".join([*words, f"lr{rate:g}", digest])


def _row(table: Table, name: str) -> Row:
    if name in table.rows:
        return table.rows[name]
    if table.source is None:
        raise UserError(f"{table.name}: no row {name}; the rows are {', '.join(table.rows)}")
    return table.source


def rate_of(table: Table, name: str, factor: float, size: Size) -> float:
    """The learning rate of a row: its recipe's, scaled, which has the paper's rule for fewer tokens in it,
    times the row's own factor and the tuned one."""
    row = _row(table, name)
    return float(f"{plan_row(table, row, *size).rate * row.rate * factor:.4g}")


def _source_folder(table: Table, size: Size, places: Places) -> Path:
    return places.runs / make_run(table, SOURCE, SOURCE_SEED, 1.0, size, places).name


def _measuring(table: Table, folder: Path, seed: int, places: Places) -> list[tuple[str, ...]]:
    """Commands that measure what has been trained."""
    evaluate = ["tools/evaluate.py", "--load", str(folder), "--splits", "valid", "--max-windows"]
    found = [(*evaluate, str(table.max_windows), "--output", str(folder / "evaluation.json"))]
    if "finetuned_accuracy" in table.measures:
        labelled = places.data / "packages" / "sections"
        words = ["finetune.py", "--task", "classification", "--train-file", str(labelled / "train.tsv")]
        words += ["--valid-file", str(labelled / "dev.tsv"), "--text-column", "sentence"]
        words += ["--label-column", "label", "--load", str(folder), "--seq-length", "64", "--epochs", "2"]
        words += ["--sweep-lr", FINETUNING_RATE, "--seeds", f"{10 * seed}-{10 * seed + 2}"]
        found.append((*words, "--parallel", "1", "--save", str((folder / SWEEP).parent)))
    return found


def record_path(places: Places, run: Run) -> Path:
    return places.results / f"{run.name}.json"


def earlier_record(places: Places, run: Run) -> dict[str, Any] | None:
    """The record of a finished run; None where there is none. UserError where it is damaged."""
    path = record_path(places, run)
    if not path.is_file():
        return None
    told = read_json(path)
    if told.get("format") != FORMAT or not all(map(_is_number, _numbers(told, run))):
        raise UserError(f"{path}: is no record of this version; move it away, and the run is done again")
    return told


def _numbers(told: Mapping[str, Any], run: Run) -> list[Any]:
    """What a table reads of a record; None where it is not there."""
    found = [told.get("rate"), told.get("cpu_seconds")]
    for key, names in {"tokens": tuple(TOKENS), "quality": run.measures}.items():
        inner = told.get(key)
        found += [inner.get(name) if isinstance(inner, dict) else None for name in names]
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def write_record(places: Places, run: Run, row: str, seconds: float, data: str) -> dict[str, Any]:
    """Write what a finished run has come to. `seconds`: of all its commands, in this attempt."""
    folder = places.runs / run.name
    recorded = read_run(run.name, folder)
    about = recorded.description
    record = {
        "format": FORMAT,
        "run": run.name,
        "recipe": row,
        "command": [Path(word).name if word.startswith("/") else word for word in run.commands[0]],
        "commit": about.get("commit"),
        "machine": about.get("machine"),
        "data": data,
        "seed": run.seed,
        "rate": run.rate,
        "steps": recorded.steps,
        "tokens": {name: recorded.last(column) for name, column in TOKENS.items()},
        "seconds": recorded.last("seconds"),
        "cpu_seconds": recorded.last("cpu_seconds"),
        "seconds_with_measuring": seconds,
        "flops": run.flops,
        "quality": read_measures(folder, run.measures),
    }
    with whole_file(record_path(places, run), "w") as file:
        file.write(json.dumps(record, indent=1) + "\n")
    return record


def command_line(words: tuple[str, ...]) -> list[str]:
    """A command as a process is started with it."""
    root = Path(__file__).parents[2]
    return [sys.executable, str(root / words[0]), *words[1:]]
