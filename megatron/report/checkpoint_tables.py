"""Tables of what checkpoints hold, and of how two of them differ."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from megatron.base.units import amount
from megatron.checkpoint.contents import Deviation, is_listed, size_of
from megatron.checkpoint.manifest import Manifest


def pair_table(title: str, facts: dict[str, Any]) -> Table:
    """Names and values."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(_words(value)))
    return table


def _words(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def kind_table(kinds: dict[str, dict[str, Any]]) -> Table:
    """Sums of weights and of moments."""
    table = Table("kind", title="tensors by kind", title_justify="left")
    for heading in ("tensors", "parameters", "bytes", "types"):
        table.add_column(heading, justify="left" if heading == "types" else "right")
    for name, one in kinds.items():
        sizes = [amount(one[each]) for each in ("parameters", "bytes")]
        table.add_row(name, f"{one['tensors']:,}", *sizes, " ".join(one["dtypes"]))
    return table


def tensor_table(manifest: Manifest, which: str) -> Table:
    """Tensors with their types, global shapes and parts. `which`: weights, all."""
    table = Table("tensor", "type", "global shape", title="tensors", title_justify="left")
    table.add_column("parts", justify="right")
    table.add_column("bytes", justify="right")
    for name, entry in sorted(manifest.tensors.items()):
        if is_listed(name, which):
            shape = " x ".join(map(str, entry.global_shape)) or "one number"
            dtype = entry.dtype.removeprefix("torch.")
            table.add_row(Text(name), dtype, shape, f"{len(entry.parts):,}", f"{size_of(entry):,}")
    return table


def flag_table(names: Iterable[str], changes: dict[str, tuple[Any, Any]]) -> Table:
    """Flags that differ, with both values."""
    table = Table("flag", title="flags that differ", title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for name, values in changes.items():
        table.add_row(name, *map(_words, values))
    return table


def deviation_table(title: str, groups: dict[str, list[Deviation]]) -> Table:
    """Tensors, or groups of them, with their largest deviations."""
    table = Table("of", title=title, title_justify="left")
    for heading in ("equal to the bit", "largest deviation", "to the largest element"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, deviations in groups.items():
        _add(table, name, deviations)
    return table


def _add(table: Table, title: str, deviations: list[Deviation]) -> None:
    same = sum(each.same_bits for each in deviations)
    words = ("yes" if same else "no") if len(deviations) == 1 else f"{same:,} of {len(deviations):,}"
    notes = ", ".join(sorted({each.note for each in deviations if each.note}))
    table.add_row(
        Text(title),
        words,
        _largest(each.largest for each in deviations),
        _largest(each.relative for each in deviations),
        notes,
    )


def _largest(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.3g}" if known else "-"
