"""What a rank sends in a step and holds behind it, of a small model: bytes counted as the tests count them,
beside the formulas.

python benchmarks/traffic.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.common import print_table
from megatron.parallel.layout import Layout
from tests.distributed.test_traffic import FLAGS, LAYOUTS, MICRO_BATCHES, counted, formula, held_bytes
from tests.support.parity import place_of
from tests.support.ranks import run_layout

SHARES = {"dp2": 4, "zero dp2": 3, "zero-2 dp2": 2, "zero-3 dp2": 2, "zero-3 dp4 hybrid": 2}
"""Of weights, gradients and two moments, what a rank holds, in sizes of the model (arXiv 1910.02054)."""


def main() -> None:
    """Print both tables."""
    print_table(("layout", "operation", "bytes counted", "by formula"), _traffic())
    print()
    print_table(("layout", "of the model", "bytes held, most of a rank", "by formula", "ratio"), _held())


def _traffic() -> Iterator[tuple[str, ...]]:
    """What the first rank hands to each operation."""
    for name in LAYOUTS:
        flags, place, replicas = _run(name)
        (sent, _), (priced, _) = _measure(name, counted, "gpt")[0], formula(flags, place, replicas)[0]
        for operation in sorted(sent.keys() | priced.keys()):
            yield name, operation, f"{sent.get(operation, 0):,}", f"{priced.get(operation, 0):,}"


def _held() -> Iterator[tuple[str, ...]]:
    for name, share in SHARES.items():
        _, parameters = formula(*_run(name))[0]
        expected, found = share * parameters * 8, max(_measure(name, held_bytes))
        yield name, f"{share}x", f"{found:,}", f"{expected:,}", f"{found / expected:.4f}"


def _run(name: str) -> tuple[str, Layout, int]:
    """Flags of a layout's run, the layout, and how many replicas it has."""
    more, place, replicas = place_of(LAYOUTS[name])
    return FLAGS.format(2 * MICRO_BATCHES * replicas) + more, place, replicas


def _measure(name: str, function: Callable[..., Any], *more: str) -> list[Any]:
    """What every rank of a layout finds."""
    flags, place, replicas = _run(name)
    return run_layout(place, function, flags, replicas, *more)


if __name__ == "__main__":
    run_command(main)
