"""From records to the rows and sentences of a table."""

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from megatron.base.units import duration, short
from megatron.reproduce.measures import MEASURES
from megatron.reproduce.statistics import better_by, needed, sentence, spread
from megatron.reproduce.table import Table

MISSING = "-"
Records = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Records of finished runs by row and seed."""


class Grid(NamedTuple):
    """Columns, and rows that start with their heading."""

    columns: list[str]
    rows: list[list[str]]


def grid(table: Table, records: Records, names: tuple[str, ...]) -> Grid:
    """The paper's figures beside ours."""
    paper = list(dict.fromkeys(key for name in names for key in table.rows[name].paper))
    ours = ["seeds", "learning rate", "tokens", "raw", "drawn", "CPU time"]
    columns = [*(f"paper: {one}" for one in paper), *ours, *(MEASURES[one].heading for one in table.measures)]
    return Grid(columns, [[name, *_cells(table, records, name, paper)] for name in names])


def _cells(table: Table, records: Records, name: str, paper: list[str]) -> list[str]:
    theirs = [str(table.rows[name].paper.get(key, MISSING)) for key in paper]
    found = list(records.get(name, {}).values())
    if not found:
        return [*theirs, "0", *[MISSING] * (5 + len(table.measures))]
    first = found[0]
    tokens = [short(first["tokens"][kind]) for kind in ("effective", "raw", "drawn")]
    seconds = duration(statistics.fmean(map(cpu_seconds, found)))
    return [*theirs, str(len(found)), f"{first['rate']:g}", *tokens, seconds, *_qualities(table, found)]


def _qualities(table: Table, found: list[Mapping[str, Any]]) -> list[str]:
    cells = []
    for measure in table.measures:
        values = [one["quality"][measure] for one in found]
        around = f" ± {spread(values):.4f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.4f}{around}")
    return cells


def sentences(table: Table, records: Records, names: tuple[str, ...]) -> list[str]:
    """One a row and other row, by the first measure."""
    measure = table.measures[0]
    rule = MEASURES[measure]
    lines = []
    for name in names:
        for other in table.rows[name].against:
            mine, theirs = (_by_seed(records.get(one, {}), measure) for one in (name, other))
            lines.append(sentence(name, other, rule.words, better_by(mine, theirs, rule.sign)))
    return lines


def _by_seed(records: Mapping[int, Mapping[str, Any]], measure: str) -> dict[int, float]:
    return {seed: one["quality"][measure] for seed, one in records.items()}


def goal_grid(table: Table, records: Records) -> Grid:
    """What every group needs to be as good as the row to reach: medians over the seeds, as shares of what
    that row took."""
    if table.goal is None:
        return Grid([], [])
    columns = ["tokens in % of the row to reach", "FLOPs in %", "CPU time in %", "seeds that reach it", "of"]
    rows = []
    for group, names in table.goal.groups.items():
        shares = [_shares(table, records, names, amount) for amount in (effective_tokens, flops, cpu_seconds)]
        reached = sum(map(math.isfinite, shares[0]))
        rows.append([group, *map(_median, shares), str(reached), str(len(shares[0]))])
    return Grid(columns, rows)


def effective_tokens(record: Mapping[str, Any]) -> float:
    return float(record["tokens"]["effective"])


def flops(record: Mapping[str, Any]) -> float:
    return float(record["flops"])


def cpu_seconds(record: Mapping[str, Any]) -> float:
    return float(record["cpu_seconds"])


def _shares(
    table: Table, records: Records, names: tuple[str, ...], amount: Callable[[Mapping[str, Any]], float]
) -> list[float]:
    """By seed, what runs of a group need to reach the goal's quality, as a share of what its row took."""
    assert table.goal is not None
    measure, goal = table.measures[0], records.get(table.goal.reach, {})
    seeds = [seed for seed in goal if all(seed in records.get(name, {}) for name in names)]
    found = []
    for seed in seeds:
        points = [(amount(one), one["quality"][measure]) for one in (records[name][seed] for name in names)]
        target = goal[seed]["quality"][measure]
        found.append(needed(points, target, MEASURES[measure].sign) / amount(goal[seed]))
    return found


def _median(shares: list[float]) -> str:
    if not shares:
        return MISSING
    middle = statistics.median(shares)
    return f"{100 * middle:.1f}" if math.isfinite(middle) else "not reached"


def warnings(records: Records) -> list[str]:
    """What records of several machines, corpora or commits may hide."""
    every = [one for by_seed in records.values() for one in by_seed.values()]
    lines = []
    for key, words in {
        "data": "Runs are of different data, so their qualities do not compare",
        "machine": "Runs are of different machines, so their times do not compare",
        "commit": "Runs are of different commits",
    }.items():
        told = sorted({str(one.get(key)) for one in every})
        if len(told) > 1:
            lines.append(f"{words}: {'; '.join(told)}.")
    return lines


def edge_of(rates: Mapping[float, float], sign: int) -> list[str]:
    """A note where the best of several rates is the least or the largest; `rates`: qualities by factor."""
    best = best_factor(rates, sign) if len(rates) > 1 else 0.0
    if best not in (min(rates, default=1.0), max(rates, default=1.0)):
        return []
    return [
        f"The best rate that was tried is at the end of the grid, {best:g} times the recipe's; widen --rates."
    ]


def best_factor(found: Mapping[float, float], sign: int) -> float:
    """The factor of the rate with the best quality."""
    return min(found, key=lambda factor: sign * found[factor])
