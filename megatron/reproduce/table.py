"""A table of the paper as data: its rows, what is measured of each, and what the paper reports."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from megatron.base.errors import UserError
from megatron.reproduce.corpora import KINDS
from megatron.reproduce.measures import MEASURES

SCRIPTS = {"pretrain_gpt.py": "gpt", "pretrain_bert.py": "bert", "pretrain_vit.py": "vit"}
"""Training commands, and the tasks that they are."""
TAKES: dict[Any, str] = {
    str: "a text",
    float: "a number",
    int: "a whole number",
    int | None: "a whole number",
    tuple[str, ...]: "a list of texts",
    tuple[float, ...]: "a list of numbers",
    tuple[int, int]: "a list of two whole numbers",
    Mapping[str, tuple[str, ...]]: "a mapping from names to lists of texts",
}
"""What is said of the types of fields; the others are mappings."""


@dataclass(frozen=True)
class Row:
    """`recipe`: a file below recipes/, or beside the table. `share`: of the recipe's steps and tokens with
    all durations. `rate`: times the recipe's learning rate. `against`: the rows that it is compared with.
    `paper`: what the paper reports of it, by column."""

    recipe: str
    share: float = 1.0
    rate: float = 1.0
    against: tuple[str, ...] = ()
    paper: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Goal:
    """Tokens and time that a group of rows, of several shares, needs to be as good as the row `reach`."""

    reach: str
    groups: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """`measures`: what is measured, the first one judged. `vocabulary`: of the scaled runs and of the
    paper's. `gpus`: of the paper. `rates`: times the recipe's learning rate, tried on the first row.
    `source`: a run whose weights all others begin with. `flags`: of all runs but the source."""

    name: str
    folder: Path
    title: str
    paper: str
    script: str
    data: str
    measures: tuple[str, ...]
    rows: Mapping[str, Row]
    vocabulary: tuple[int, int] = (8192, 50304)
    gpus: int = 64
    scale_steps: int | None = None
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    max_windows: int = 1000
    flags: tuple[str, ...] = ()
    source: Row | None = None
    source_data: str = "text"
    goal: Goal | None = None

    @property
    def task(self) -> str:
        return SCRIPTS[self.script]

    @property
    def kinds(self) -> list[str]:
        """The kinds of data that its runs read."""
        return [self.data, *([self.source_data] if self.source else [])]

    @property
    def first(self) -> str:
        return next(iter(self.rows))


def read_table(path: Path) -> Table:
    """The table in a YAML file. UserError where it is none."""
    if not path.is_file():
        raise UserError(f"{path}: is no file; name a table, such as scripts/reproduce/gpt.yaml")
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no table that can be read: {str(error).splitlines()[0]}") from None
    if not isinstance(told, dict) or not isinstance(told.get("rows"), dict) or not told["rows"]:
        raise UserError(f"{path}: a table needs rows, a mapping from names to recipes; write it")
    rows = {name: _made(Row, one, f"{path}: row {name}") for name, one in told["rows"].items()}
    more: dict[str, Any] = {"name": path.stem, "folder": path.parent, "rows": rows}
    if told.get("source"):
        more["source"] = _made(Row, told["source"], f"{path}: source")
    if told.get("goal"):
        more["goal"] = _made(Goal, told["goal"], f"{path}: goal")
    table: Table = _made(Table, told | more, str(path))
    if problems := list(_problems(table, path)):
        raise UserError(*problems)
    return table


def _made(kind: Any, told: Any, where: str) -> Any:
    """A value of a dataclass from a mapping; lists become tuples."""
    if not isinstance(told, dict):
        raise UserError(f"{where}: must be a mapping of keys to values; write it as one")
    known = {one.name: one for one in fields(kind)}
    if unknown := [name for name in told if name not in known]:
        raise UserError(f"{where}: unknown {', '.join(map(str, unknown))}; known are {', '.join(known)}")
    needed = [n for n, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    if missing := [name for name in needed if name not in told]:
        raise UserError(f"{where}: {', '.join(missing)} is missing; write it")
    values = {name: _frozen(value) for name, value in told.items()}
    if wrong := [name for name, value in values.items() if not _fits(value, known[name].type)]:
        lines = (
            f"{where}: {name} {told[name]!r}: write {TAKES.get(known[name].type, 'a mapping')}"
            for name in wrong
        )
        raise UserError(*lines)
    return kind(**values)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _frozen(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of its field."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        kinds = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1] is Ellipsis else inner
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is Mapping:
        texts = isinstance(value, dict) and all(isinstance(name, str) for name in value)
        return texts and all(_fits(one, inner[1]) for one in value.values())
    if inner:  # one of several
        return any(_fits(value, one) for one in inner)
    types = (float, int) if kind is float else kind
    return kind is Any or (isinstance(value, types) and not isinstance(value, bool))


def _problems(table: Table, path: Path) -> Any:
    """What is wrong with a table as a whole, line by line."""
    if table.script not in SCRIPTS:
        yield f"{path}: script {table.script}: choose of {', '.join(SCRIPTS)}"
    if unknown := [name for name in table.measures if name not in MEASURES]:
        yield f"{path}: measures {', '.join(unknown)}: choose of {', '.join(MEASURES)}"
    for kind in (table.data, table.source_data):
        if kind not in KINDS:
            yield f"{path}: data {kind}: choose of {', '.join(KINDS)}"
    if table.source and "source" in table.rows:
        yield f"{path}: row source: has the name of the run that all begin with; choose another"
    yield from _numbers(table, path)
    groups = table.goal.groups if table.goal else {}
    named = {name for row in table.rows.values() for name in row.against}
    named |= {name for rows in groups.values() for name in rows} | (
        {table.goal.reach} if table.goal else set()
    )
    if strangers := sorted(named - set(table.rows)):
        yield f"{path}: {', '.join(strangers)} is no row; the rows are {', '.join(table.rows)}"


def _numbers(table: Table, path: Path) -> Any:
    """Numbers that can be none of a table's."""
    if not table.measures or not table.rates:
        yield f"{path}: measures and rates: name one at least"
    steps = 1 if table.scale_steps is None else table.scale_steps
    least = {"gpus": table.gpus, "scale_steps": steps, "max_windows": table.max_windows}
    least |= {"vocabulary": min(table.vocabulary)}
    rows = {f"row {name}": row for name, row in table.rows.items()}
    rows |= {"source": table.source} if table.source else {}
    for name, whole in least.items():
        if whole < 1:
            yield f"{path}: {name} {whole}: must be at least 1"
    above = {"rates": min(table.rates, default=1.0)}
    for where, row in rows.items():
        above |= {f"{where}: share": row.share, f"{where}: rate": row.rate}
        if not isinstance(row.paper.get("hours", 0), int | float):
            yield f"{path}: {where}: hours {row.paper['hours']}: write a number, of which prices are told"
    for name, number in above.items():
        if not 0 < number < math.inf:
            yield f"{path}: {name} {number}: must be above 0"
