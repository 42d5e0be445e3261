"""Estimated memory of a rank against the measured peak, for models of several shapes on a CPU.

python benchmarks/memory.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import re
import subprocess
from pathlib import Path

from rich.table import Table

from megatron.base.terminal import show

ROOT = Path(__file__).parents[1]
COMMON = "--mock-data --vocab-size 32000 --train-iters 3 --lr 1e-3 --eval-iters 0 --global-batch-size 4 "
SHAPE = "--num-layers 6 --hidden-size 512 --num-attention-heads 8 --seq-length 512 --micro-batch-size 4 "
RUNS = {
    "no dropout": "--hidden-dropout 0 --attention-dropout 0",
    "dropout": "",
    "dropout, recomputed attention": "--recompute-granularity selective",
    "dropout, recomputed layers": "--recompute-granularity full",
    "no dropout, random-LTD": "--hidden-dropout 0 --attention-dropout 0 --random-ltd --random-ltd-min 128 "
    "--random-ltd-duration 1000",
    "no dropout, 12 layers of 768": "--hidden-dropout 0 --attention-dropout 0 --num-layers 12 "
    "--hidden-size 768 --num-attention-heads 12 --micro-batch-size 2 --seq-length 1024",
}
GIB = 2**30


def run(flags: str) -> tuple[str, int]:
    """Output of a training command, and the most memory that its process held, in bytes."""
    words = [sys.executable, "pretrain_gpt.py", *(COMMON + SHAPE + flags).split()]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return output, usage.ru_maxrss * 1024


def main() -> None:
    """Print the table."""
    table = Table("run", "estimate, GiB", "peak less the process itself, GiB", "estimate / peak")
    for name, flags in RUNS.items():
        empty = run(f"{flags} --dry-run")[1]
        output, peak = run(flags)
        found = re.search(r"memory a rank: about ([\d.]+) GiB", output)
        assert found is not None
        estimate, taken = float(found[1]), (peak - empty) / GIB
        table.add_row(name, f"{estimate:.2f}", f"{taken:.2f}", f"{estimate / taken:.2f}")
    show(table)


if __name__ == "__main__":
    run_command(main)
