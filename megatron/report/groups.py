"""Which rank sits where, and which ranks that work together are on several machines."""

from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from megatron.base.units import exact
from megatron.parallel.layout import AXES, Layout

OF_EXPERTS = ("expert", "expert_tensor", "expert_data")
FEW = 16
"""Ranks of a run, or of a group, that are all named."""


class Groups(NamedTuple):
    """The groups of an axis, of one size: ranks [groups, size], and how many of them are on several
    machines."""

    axis: str
    ranks: np.ndarray
    crossing: int


def groups_of(layout: Layout, axis: str, ranks_a_node: int) -> Groups:
    """All groups along an axis, each by its first rank."""
    rows = layout.groups((axis,))
    nodes = rows // ranks_a_node
    return Groups(axis, rows, int((nodes[:, 0] != nodes[:, -1]).sum()))


def group_table(layout: Layout, ranks_a_node: int) -> Table:
    """Every axis with several ranks: its groups, and whether they are inside a machine."""
    nodes = -(-layout.ranks // ranks_a_node)
    title = f"{exact(layout.ranks)} ranks on {exact(nodes)} nodes of {ranks_a_node}: who works together"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("axis", "groups", "ranks of a group", "where"):
        table.add_column(name)
    for axis in (*AXES, *_axes_of_experts(layout)):
        found = groups_of(layout, axis, ranks_a_node)
        if found.ranks.shape[1] > 1:
            table.add_row(axis, exact(len(found.ranks)), _named(found.ranks), _where(found))
    return table


def rank_table(layout: Layout, ranks_a_node: int) -> Table:
    """Every rank: its node, and its place on every axis."""
    table = Table(title="Which rank sits where", title_justify="left", box=box.SIMPLE_HEAD)
    others = _axes_of_experts(layout)
    for name in ("rank", "node", *AXES, *others):
        table.add_column(name, justify="right")
    groups = [layout.groups((axis,)) for axis in others]
    places = [np.argsort(rows.ravel()) % rows.shape[1] for rows in groups]
    for rank in range(layout.ranks):
        place = layout.place(rank)
        in_group = [int(one[rank]) for one in places]
        table.add_row(*map(str, (rank, rank // ranks_a_node, *(place[axis] for axis in AXES), *in_group)))
    return table


def _axes_of_experts(layout: Layout) -> tuple[str, ...]:
    """What a layout has beside its axes, where ranks share experts in a way of their own."""
    return OF_EXPERTS if layout.expert > 1 or layout.expert_matrices != layout.tensor else ()


def group_notes(layout: Layout, ranks_a_node: int) -> list[str]:
    """A warning where ranks of the tensor axis are on several machines."""
    if layout.tensor == 1 or not groups_of(layout, "tensor", ranks_a_node).crossing:
        return []
    return [
        f"--tensor-model-parallel-size {layout.tensor}: tensor groups cross nodes of {ranks_a_node} ranks, "
        "and every layer waits for sums between machines; take a divisor of the ranks of a node"
    ]


def _where(found: Groups) -> str:
    if not found.crossing:
        return "inside a node"
    return "across nodes" if found.crossing == len(found.ranks) else f"{exact(found.crossing)} across nodes"


def _named(rows: np.ndarray) -> str:
    """All groups of a few ranks; of many the first and the last."""
    texts = [_one(row) for row in (rows if rows.size <= FEW else rows[[0, -1]])]
    return (" | " if rows.size <= FEW else " ... ").join(dict.fromkeys(texts))


def _one(row: np.ndarray) -> str:
    """A run as 0-7, others with their step: 0, 8, ..., 56."""
    if len(row) > 2 and (np.diff(row) == 1).all():
        return f"{row[0]}-{row[-1]}"
    names = list(map(str, row))
    return ", ".join(names if len(names) <= 4 else [*names[:2], "...", names[-1]])
