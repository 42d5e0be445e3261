"""What experts cost: a layer and a training step of 8 experts, of which 2 compute a token, against a dense
MLP of as many FLOPs, in one process on one thread, alternately; and the bytes of their exchange between ranks
against the formula.

python benchmarks/experts.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.common import mock_run, print_table, processor_ratios, spread
from megatron.batches.loader import BatchShare
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.model.block import Block
from megatron.model.context import make_context
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.tasks.architecture import gpt_architecture
from megatron.train.step import train_step
from tests.distributed.test_traffic import FLAGS, MICRO_BATCHES, counted, formula
from tests.support.configurations import make_config
from tests.support.parity import place_of
from tests.support.ranks import run_layout

SHAPE = (
    "--num-layers 4 --hidden-size {0} --ffn-hidden-size {1} --num-attention-heads 4 --seq-length {2} "
    "--micro-batch-size 4 --global-batch-size 16 --hidden-dropout 0 --attention-dropout 0 --train-iters 1000 "
    "--lr 1e-4 --clip-grad 1 --vocab-size 1024 "
)
MIXTURE = "--num-experts 8 --moe-router-topk 2 --moe-aux-loss-coeff 1e-2 --moe-ffn-hidden-size {} "
EXCHANGED = "--num-experts 8 --moe-router-topk 2 --moe-aux-loss-coeff 1e-2 "
LAYOUTS = {
    "ep2": "--expert-model-parallel-size 2 --dp 2",
    "ep4": "--expert-model-parallel-size 4 --dp 4",
    "tp2+sp·ep2": "--tensor-model-parallel-size 2 --sequence-parallel --expert-model-parallel-size 2 --dp 2",
    "tp2+sp·ep4 whole experts": "--tensor-model-parallel-size 2 --sequence-parallel "
    "--expert-tensor-parallel-size 1 --expert-model-parallel-size 4 --dp 2",
}
LEAST_SECONDS = 0.05
"""Of a side in a round."""


@dataclass(frozen=True)
class Options:
    rounds: int = flag(20, "timed rounds of both", at_least=1)
    shapes: tuple[str, ...] = flag(("128,128", "256,256", "512,256"), "hidden size,tokens of a row")


def main() -> None:
    """Print both tables."""
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print_table(("what", "hidden, tokens", "experts / dense"), _times(options))
    print()
    print_table(("layout", "bytes exchanged by every rank", "mean", "by formula"), _bytes())


def _times(options: Options) -> Iterator[tuple[str, ...]]:
    for what, make in (("a layer, forward and backward", _layer), ("a training step", _step)):
        for shape in options.shapes:
            hidden, length = map(int, shape.split(","))
            flags = SHAPE.format(hidden, 4 * hidden, length)
            sides = make(flags + MIXTURE.format(2 * hidden), length), make(flags, length)
            yield (
                what,
                f"{hidden}, {4 * length}",
                spread(processor_ratios(*sides, options.rounds, LEAST_SECONDS), ".3f"),
            )


def _layer(flags: str, length: int) -> Callable[[], Any]:
    config = make_config(flags)
    layer = Block(gpt_architecture(config, 1024), 0)
    initialize(layer, 1234)
    context = make_context(length, torch.device("cpu"))
    x = torch.randn(4, length, config.model.hidden_size, requires_grad=True)
    return lambda: layer(x, context).sum().backward()


def _step(flags: str, _: int) -> Callable[[], Any]:
    run = mock_run(Mesh(), flags)
    step = run.plan.at(1)
    batches = run.rows.batch(run.sampler, step, BatchShare(0, 1, 4))
    return lambda: train_step(run, step, batches)


def _bytes() -> Iterator[tuple[str, ...]]:
    """Of the all-to-all of a step, whose experts have unequal loads. Nothing else is exchanged in it."""
    for name, layout in LAYOUTS.items():
        more, place, replicas = place_of(EXCHANGED + layout)
        flags = FLAGS.format(2 * MICRO_BATCHES * replicas) + more
        sent = [one["all_to_all"] for one, _ in run_layout(place, counted, flags, replicas, "gpt")]
        priced = formula(flags, place, replicas)[0][0]["all_to_all"]
        yield name, " ".join(f"{one:,}" for one in sent), f"{sum(sent) / len(sent):,.0f}", f"{priced:,}"


if __name__ == "__main__":
    run_command(main)
