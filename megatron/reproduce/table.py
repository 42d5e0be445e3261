"""A table of the paper as data: its rows, what is measured of each, and what the paper reports."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from megatron.base.errors import UserError
from megatron.reproduce.corpora import KINDS
from megatron.reproduce.measures import MEASURES

SCRIPTS = {"pretrain_gpt.py": "gpt", "pretrain_bert.py": "bert", "pretrain_vit.py": "vit"}
"""Training commands, and the tasks that they are."""


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
    return kind(**{name: _frozen(value) for name, value in told.items()})


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _frozen(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _problems(table: Table, path: Path) -> Any:
    """What is wrong with a table as a whole, line by line."""
    if table.script not in SCRIPTS:
        yield f"{path}: script {table.script}: choose of {', '.join(SCRIPTS)}"
    if unknown := [name for name in table.measures if name not in MEASURES]:
        yield f"{path}: measures {', '.join(unknown)}: choose of {', '.join(MEASURES)}"
    for kind in (table.data, table.source_data):
        if kind not in KINDS:
            yield f"{path}: data {kind}: choose of {', '.join(KINDS)}"
    groups = table.goal.groups if table.goal else {}
    named = {name for row in table.rows.values() for name in row.against}
    named |= {name for rows in groups.values() for name in rows} | (
        {table.goal.reach} if table.goal else set()
    )
    if strangers := sorted(named - set(table.rows)):
        yield f"{path}: {', '.join(strangers)} is no row; the rows are {', '.join(table.rows)}"
