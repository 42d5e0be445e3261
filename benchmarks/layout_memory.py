"""The most that real ranks hold, by layout and by schedule of the pipeline, beside what the formulas say.

python benchmarks/layout_memory.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from rich.table import Table

from megatron.base.terminal import show
from tests.support.memory import compare
from tests.support.parity import LAYOUTS

MEGABYTE = 1e6
SCHEDULES = ("pp4", "pp4 gpipe", "pp4 interleaved", "pp4 zero-bubble")
OF_FOUR = {
    "pp4": "--pipeline-model-parallel-size 4 ",
    "pp4 gpipe": "--pipeline-model-parallel-size 4 --pipeline-schedule gpipe ",
    "pp4 interleaved": "--pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2 ",
    "pp4 zero-bubble": "--pipeline-model-parallel-size 4 --pipeline-schedule zero-bubble ",
}
TRIED = ("tp2", "tp2+sp", "pp2", "cp2 allgather", "cp2 a2a", "cp2 p2p", "dp2", "zero dp2", "tp2·pp2")


def main() -> None:
    """Print both tables."""
    layers = "--num-layers 8 "
    whole = Table("layout", "rank", "most, MB", "formula, MB", "formula / most")
    for name in TRIED:
        for rank, one in enumerate(compare(layers + LAYOUTS[name], 4)):
            share = f"{one.price.total / one.most:.3f}"
            sizes = (f"{size / MEGABYTE:.1f}" for size in (one.most, one.price.total))
            whole.add_row(name, str(rank), *sizes, share)
    names = ("schedule", "rank", "held", "activations, MB", "formula, MB", "formula / activations")
    schedules = Table(*names)
    for name in SCHEDULES:
        for rank, one in enumerate(compare(layers + OF_FOUR[name], 8)):
            taken, wanted = one.most - one.between, one.price.activations
            sizes = (f"{size / MEGABYTE:.1f}" for size in (taken, wanted))
            schedules.add_row(name, str(rank), str(one.price.held), *sizes, f"{wanted / taken:.3f}")
    show(whole, schedules)


if __name__ == "__main__":
    run_command(main)
