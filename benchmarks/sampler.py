"""Time to draw a global batch, and the loader's share of a training step.

python benchmarks/sampler.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import math
import statistics
import time

import numpy as np
from rich.table import Table

from megatron.base.terminal import show
from megatron.curriculum.draws import draw_places, make_chain

BATCH, DURATION = 512, 110_000


def percentile_groups(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and entry steps of the published rarity schedule: 1 to 100 % by the square root over 110,000
    steps."""
    sizes, entries, before = [], [], 0
    for step in range(1, DURATION + 1):
        cut = samples * min(math.floor((step / DURATION) ** 0.5 * 99 + 1), 100) // 100
        if cut > before:
            sizes.append(cut - before)
            entries.append(step)
            before = cut
    return np.array(sizes), np.array(entries)


def microseconds(sizes: np.ndarray, entries: np.ndarray, first: int, count: int = 2000) -> float:
    """Median time of one batch of 512 over consecutive steps from `first` on."""
    chain = make_chain(sizes, (entries - 1) * BATCH, 1)
    out = np.empty(BATCH, np.int64)
    times = []
    for step in range(first, first + count):
        began = time.perf_counter()
        draw_places(
            chain, (step - 1) * BATCH, step * BATCH, 7, int(np.searchsorted(entries, step, side="right")), out
        )
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def main() -> None:
    sizes, entries = percentile_groups(10**9)
    table = Table(title="one global batch of 512 samples")
    for heading in ("pool", "step", "microseconds"):
        table.add_column(heading, justify="right")
    for step in (1, 1_000, 60_000, 110_000, 500_000):
        table.add_row(
            f"1e9 samples, {len(sizes)} groups", f"{step:,}", f"{microseconds(sizes, entries, step):.0f}"
        )
    table.add_row("1e9 samples, 1 group", "1", f"{microseconds(np.array([10**9]), np.array([1]), 1):.0f}")
    many = np.full(8000, 125_000)
    table.add_row(
        "1e9 samples, 8,000 groups", "80,000", f"{microseconds(many, np.arange(1, 80_001, 10), 80_000):.0f}"
    )
    show(table)


if __name__ == "__main__":
    run_command(main)
