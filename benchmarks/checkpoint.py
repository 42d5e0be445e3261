"""Saving a checkpoint on one rank: hashed while it is written, against written and then read again; and what
--async-save costs the training. All in one process, in turns.

python benchmarks/checkpoint.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor

from megatron.base.files import checksum, sync_file
from megatron.base.terminal import show
from megatron.batches.loader import BatchShare
from megatron.checkpoint.tensor_file import write_tensors
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.parallel.mesh import Mesh
from megatron.tasks.gpt import GPT_TASK
from megatron.train.configure import read_config
from megatron.train.resume import content_of, describe_run
from megatron.train.saving import Checkpoints
from megatron.train.setup import build, prepare
from megatron.train.step import train_step

FLAGS = (
    "--num-layers 6 --hidden-size 384 --num-attention-heads 6 --seq-length 256 --vocab-size 32000 "
    "--mock-data --micro-batch-size 4 --global-batch-size 4 --train-iters 1000 --lr 1e-4 --eval-iters 0 "
)


@dataclass(frozen=True)
class Options:
    folder: str | None = flag(None, "where to write; a temporary folder", metavar="FOLDER")
    rounds: int = flag(9, "rounds of all", at_least=2)
    threads: int = flag(1, "threads of the training", at_least=1)


def main() -> None:
    """Print the table."""
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(options.threads)
    root = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        with redirect_stdout(sys.stderr):
            times, size = _measure(root, options.rounds)
    finally:
        shutil.rmtree(root)
    table = Table(
        "what", "seconds, median", "in steps", title=f"{size / 1e6:,.0f} MB, torch {torch.__version__}"
    )
    for name, seconds in times.items():
        ratios = [one / step for one, step in zip(seconds, times["a step"])]
        table.add_row(name, f"{statistics.median(seconds):.3f}", f"{statistics.median(ratios):.2f}")
    show(table)
    pairs = zip(times["files, written and then read"], times["files, hashed while written"])
    ratios = sorted(before / now for before, now in pairs)
    print(f"written and read / hashed while written: {statistics.median(ratios):.2f} ", end="")
    print(f"({ratios[0]:.2f}-{ratios[-1]:.2f})")


def _measure(root: Path, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds by what is done, a value a round, and the bytes of a checkpoint's tensors."""
    config, _ = read_config([*FLAGS.split(), "--async-save", "--save", str(root / "run")], "", "")
    run = build(prepare(config, GPT_TASK)[0], Mesh())
    run.model.train()
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        one = run.plan.at(number)
        train_step(run, one, run.rows.batch(run.sampler, one, BatchShare(0, 1, 4)))

    step()
    manifest = describe_run(run)
    tensors = {
        name: one for part in content_of(run, manifest, 1).files.values() for name, one in part.items()
    }
    between, beside = Checkpoints(run, manifest), Checkpoints(run, manifest)
    between.beside = None
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        found = {"a step": _seconds(step)}
        found |= _files(root, tensors, turn % 2 == 0)
        found["a whole save, between steps"] = _seconds(lambda: between.save(number))
        found["--async-save: the training waits"] = _seconds(lambda: beside.save(number))
        found["--async-save: a step beside the writing"] = _seconds(step)
        beside.wait()
        for name, seconds in found.items() if turn else ():
            times.setdefault(name, []).append(seconds)
    return times, sum(one.nbytes for one in tensors.values())


def _files(root: Path, tensors: dict[str, Tensor], first: bool) -> dict[str, float]:
    """Both ways of writing tensors, in this order or the other."""

    def now() -> None:
        write_tensors(root / "now", tensors)

    def before() -> None:
        save_file({name: one.detach().contiguous().cpu() for name, one in tensors.items()}, root / "before")
        sync_file(root / "before")
        checksum(root / "before")

    ways = {"files, hashed while written": now, "files, written and then read": before}
    found = {name: _seconds(ways[name]) for name in (sorted(ways) if first else sorted(ways, reverse=True))}
    for name in ("now", "before"):
        (root / name).unlink()
    return {name: found[name] for name in ways}


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_command(main)
