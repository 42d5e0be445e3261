"""Labelled texts from files: GLUE's TSV files as they are, and JSONL or TSV files of the user's own."""

import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from megatron.base.errors import UserError
from megatron.base.folders import or_nearest
from megatron.finetuning.tasks import LabelledTask

NAMES = ("index", "id")
"""Columns that tell what an example is called; where there is none, it is called by its number."""
Row = Mapping[str, str]


class Examples(NamedTuple):
    """Texts of a file, each one or a pair, their labels, and what the file calls each of them. `labels`:
    numbers of classes (int64) or values (float64) [N]; None where the file has none. `left_out`: broken lines
    of it."""

    path: Path
    texts: list[tuple[str, ...]]
    labels: np.ndarray | None
    names: list[str]
    left_out: int = 0


def read_examples(
    path: Path, task: LabelledTask, must_be_labelled: bool, keep: Container[int] | None = None
) -> Examples:
    """The examples of a file, or those of the numbers `keep`. UserError with file and line where a column is
    missing, or a label unknown to the task."""
    texts: list[tuple[str, ...]] = []
    labels: list[float | int] = []
    names: list[str] = []
    number, left_out, labelled, index = 0, 0, False, NAMES[0]
    for place, row in read_rows(path, task):
        if row is None:
            left_out += 1
            continue
        if not (must_be_labelled or labelled or row.get(task.label, "").strip()):
            row = {name: value for name, value in row.items() if name != task.label}  # as null in JSON
        if number == 0:
            labelled = _is_labelled(path, task, row, must_be_labelled)
            index = next((name for name in NAMES if name in row), NAMES[0])
        if task.label in row and not labelled:
            raise UserError(
                f"{path}: line {place} has a {task.label}, the first one none; give it to all or none"
            )
        if keep is None or number in keep:
            names.append(row.get(index, "") or str(len(texts)))
            texts.append(tuple(_value(path, place, row, name) for name in task.texts))
            if labelled:
                labels.append(_label(path, place, row, task, must_be_labelled))
        number += 1
    if not texts:
        raise UserError(f"{path}: holds no example; name a file with some")
    kind = np.int64 if task.labels else np.float64
    return Examples(path, texts, np.array(labels, kind) if labelled else None, names, left_out)


def _is_labelled(path: Path, task: LabelledTask, row: Row, must_be: bool) -> bool:
    """Whether a file has labels, as its first row tells. UserError where it lacks a column."""
    wanted = (*task.texts, *([task.label] if must_be else []))
    if missing := [one for one in wanted if one not in row]:
        raise UserError(_no_column(path, missing[0], row))
    return task.label in row


def read_rows(path: Path, task: LabelledTask) -> Iterator[tuple[int, Row | None]]:
    """The number of every line, and its columns by name; None for one that is broken and may be."""
    if is_json(path):
        wanted = (*task.texts, task.label)
        yield from ((place, _object(path, place, line, wanted)) for place, line in _filled(path) if line)
        return
    columns = task.headless if task.headless and path.name not in task.named else ()
    for place, line in _filled(path):
        cells = line.split("\t")
        if not line:
            if columns:
                yield place, None
            continue
        if not columns:
            columns = tuple(name.strip() for name in cells)
            if twice := [name for name in (*task.texts, task.label) if columns.count(name) > 1]:
                raise UserError(f"{path}: has several columns {twice[0]}; give each a name of its own")
            continue
        fits = len(cells) == len(columns)
        if not fits and not task.broken_lines:
            raise UserError(
                f"{path}: line {place} has {len(cells)} columns, and {len(columns)} are expected "
                f"({', '.join(columns)}); mend it, or bring the file again"
            )
        yield place, dict(zip(columns, cells)) if fits else None


def _filled(path: Path) -> Iterator[tuple[int, str]]:
    """The numbers and texts of lines; of an empty one, "" where others follow: those at the end say
    nothing, and one amid examples may be one of them."""
    empty: list[int] = []
    for place, line in enumerate(_lines(path), 1):
        if not line.strip():
            empty.append(place)
            continue
        yield from ((one, "") for one in empty)
        empty = []
        yield place, line


def classes_of(path: Path, task: LabelledTask, least: int = 2) -> tuple[str, ...]:
    """The labels that a file has, in order; numbers by their size. UserError where there are fewer than
    `least`."""
    rows = ((place, row) for place, row in read_rows(path, task) if row is not None)
    found = {_label_text(path, place, row, task) for place, row in rows}
    if not found:
        raise UserError(f"{path}: holds no example; name a file with some")
    if len(found) < least:
        raise UserError(
            f"{path}: has {len(found)} label{'' if len(found) == 1 else 's'} in the column {task.label}, and "
            "a classification needs two; give --label-column, or --task regression for numbers"
        )
    numeric = all(re.fullmatch(r"-?[0-9]{1,1000}", one) for one in found)
    return tuple(sorted(found, key=int if numeric else str))


def picked_lines(train: Path, ids: Path, task: LabelledTask) -> tuple[set[int], set[int]]:
    """Which examples of MRPC's older training file are trained on, and which are not: those whose two numbers
    a file lists."""
    apart = {tuple(line.split()[:2]) for line in _lines(ids) if line.strip()}
    pairs = [
        tuple(_value(train, place, row, name) for name in ("#1 ID", "#2 ID"))
        for place, row in read_rows(train, task)
        if row is not None
    ]
    held_out = {number for number, pair in enumerate(pairs) if pair in apart}
    return set(range(len(pairs))) - held_out, held_out


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text, which end with a line feed alone: texts hold other ends."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist{or_nearest(str(path))}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {_no_utf8(path)} is no UTF-8; convert the file to UTF-8") from None


def _no_utf8(path: Path) -> str:
    """Which byte of a file it is."""
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1}"
    return "it"


def _object(path: Path, place: int, line: str, wanted: Sequence[str]) -> Row:
    """The values of a line, of which the `wanted` ones are single ones."""
    try:
        found = orjson.loads(line)  # which refuses halves of surrogate pairs, as tokenizers do
    except ValueError as error:
        raise UserError(f"{path}: line {place} is no JSON ({error}); write one JSON object a line") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: line {place} is no JSON object; write one a line")
    if nested := [name for name in wanted if isinstance(found.get(name), list | dict)]:
        raise UserError(
            f"{path}: line {place} has several values in {nested[0]}, where one is wanted; a text is one "
            "text, and has one label: write it so, or leave the line out"
        )
    return {name: _written(value) for name, value in found.items() if value is not None}


def _written(value: object) -> str:
    """A value as a TSV would have it: 1 of 1.0 is a class, too."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _value(path: Path, place: int, row: Row, column: str) -> str:
    if column not in row and not is_json(path):
        raise UserError(_no_column(path, column, row))
    if column not in row:
        raise UserError(
            f"{path}: line {place} has no {column}; it has {', '.join(row)}; mend it, or leave the line out"
        )
    return row[column]


def _label_text(path: Path, place: int, row: Row, task: LabelledTask) -> str:
    text = _value(path, place, row, task.label).strip()
    if not text:
        raise UserError(f"{path}: line {place} has an empty {task.label}; give it one, or leave the line out")
    return text


def _label(path: Path, place: int, row: Row, task: LabelledTask, must_be: bool) -> float | int:
    """A class by its number, or a value."""
    without = "" if must_be else f", or leave the column {task.label} out, and the file is predicted alone"
    text = _label_text(path, place, row, task)
    if task.labels:
        if text not in task.labels:
            known = ", ".join(task.labels[:10]) + (", ..." if len(task.labels) > 10 else "")
            raise UserError(
                f"{path}: line {place} has the label {text!r}, and the task knows {known}; mend it, or leave "
                f"the line out{without}"
            )
        return task.labels.index(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    low, high = task.bounds or (-math.inf, math.inf)
    if not math.isfinite(value) or not low <= value <= high:
        wanted = f"a number from {low:g} to {high:g}" if task.bounds else "a number"
        raise UserError(
            f"{path}: line {place} has the label {text!r}, and the task wants {wanted}; mend it{without}"
        )
    return value


def _no_column(path: Path, column: str, row: Row) -> str:
    flags = "--text-column, --second-text-column and --label-column"
    kind = "" if is_json(path) else ", which are the first line's"
    there = f"{path}: has no column {column}; those there{kind}: {', '.join(row)}"
    return f"{there}; of a file of your own choose by {flags}, of GLUE's bring the file again"


def is_json(path: Path) -> bool:
    """Whether a file has a JSON object a line; else its columns are parted by tabs."""
    return path.suffix == ".jsonl"
