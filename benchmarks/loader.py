"""The loader's share of a training step: time that runs waited for data, and time to make a rank's batch.

python benchmarks/loader.py --runs runs/quickstart/this_machine/{efficient,baseline}
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from megatron.base.terminal import show
from megatron.batches.gpt import RowFormat, make_batch
from megatron.batches.loader import BatchShare
from megatron.config.arguments import parse, understand
from megatron.config.config import Config, complete
from megatron.config.flags import flag
from megatron.curriculum.sampler import make_sampler
from megatron.data.corpora import mock_corpus
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import build_plan
from megatron.tasks.architecture import gpt_flops

SHAPES = {
    "quickstart: 8 samples of 256, 2 of 4 layers drop, 2 ranks": (
        "--num-layers 4 --hidden-size 128 --num-attention-heads 4 --seq-length 256 --micro-batch-size 4 "
        "--global-batch-size 8",
        2,
    ),
    "1.3B recipe: 512 samples of 2,048, 22 of 24 layers drop, 64 ranks": (
        "--num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 2048 "
        "--micro-batch-size 8 --global-batch-size 512",
        64,
    ),
}


@dataclass(frozen=True)
class Options:
    runs: tuple[str, ...] = flag((), "folders of training runs", metavar="FOLDER")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    table = Table(title="making one rank's batch, in the thread that runs ahead of the training step")
    table.add_column("shape")
    table.add_column("milliseconds a step", justify="right")
    for name, (flags, ranks) in SHAPES.items():
        table.add_row(name, f"{_milliseconds(flags, ranks):.2f}")
    show(table)
    for folder in options.runs:
        records = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        steps = [record for record in records if record["kind"] == "train"]
        waited, whole = (
            sum(step[name] for step in steps) for name in ("ms_waiting_for_data", "ms_per_iteration")
        )
        middle = statistics.median(step["ms_waiting_for_data"] / step["ms_per_iteration"] for step in steps)
        print(
            f"{folder}: waited for data {waited:.0f} of {whole:.0f} ms = {waited / whole:.2%}; median "
            f"step {middle:.3%}"
        )


def _milliseconds(flags: str, ranks: int) -> float:
    """Median time to make the batch of rank 0 at the schedule's middle, samples from memory."""
    drop = (
        " --lr 1e-3 --train-iters 1000 --mock-data --vocab-size 50257 --random-ltd --random-ltd-min "
        "128 --random-ltd-duration 100000"
    )
    config = complete(Config, *understand(Config, (flags + drop).split()), ranks)
    efficiency, _ = describe(config)
    plan = build_plan(config, efficiency, gpt_flops(config, efficiency, 0))
    sampler = make_sampler([(None, mock_corpus(config, "train"))], efficiency, plan)
    rows = RowFormat(config.data, 50257, 0, "", False, efficiency.dropping_layers, 1)
    times = []
    for step in range(1, 60):
        began = time.perf_counter()
        make_batch(sampler, plan.at(step), BatchShare(0, ranks, config.training.micro_batch_size), rows)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    run_command(main)
