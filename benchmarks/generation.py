"""Tokens a second of generation on one thread, with a cache and without it, of one text and of a batch of
texts of different lengths, by processor time. Greedy tokens of both are asserted to be the same.

python benchmarks/generation.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.common import print_table, processor_seconds, tell
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.evaluation.generate import Choice, generate
from megatron.model.gpt import GPT
from megatron.parallel.initialization import initialize
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config

VOCAB = 32000
FLAGS = "--train-iters 1 --hidden-dropout 0 --attention-dropout 0 --seq-length 1024 "
MODELS = {
    "4 layers of 256": "--num-layers 4 --hidden-size 256 --num-attention-heads 4",
    "12 layers of 768": "--num-layers 12 --hidden-size 768 --num-attention-heads 12",
    "12 layers of 768, rotary, 4 groups": "--num-layers 12 --hidden-size 768 --num-attention-heads 12 "
    "--position-embedding-type rope --swiglu --group-query-attention --num-query-groups 4",
    "4 layers of 256, 8 experts": "--num-layers 4 --hidden-size 256 --num-attention-heads 4 "
    "--num-experts 8 --moe-router-topk 2",
}


@dataclass(frozen=True)
class Options:
    models: tuple[str, ...] = flag(tuple(MODELS), "which", choices=MODELS)
    texts: tuple[int, ...] = flag((1, 4), "texts at a time")
    prompt: int = flag(128, "tokens of the longest prompt", at_least=8)
    num_tokens: int = flag(16, "tokens to add to each", at_least=1)


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(1)
    headings = ("model", "texts", "prompts", "before: tokens/s", "with a cache: tokens/s", "times")
    print_table(headings, rows(options))


def rows(options: Options) -> Iterator[list[str]]:
    """One a model and batch."""
    for name in options.models:
        model = GPT(gpt_architecture(make_config(FLAGS + MODELS[name]), VOCAB)).eval()
        initialize(model, 1)
        for count in options.texts:
            tell(f"{name}, {count}")
            lengths = np.linspace(options.prompt, options.prompt // 2, count).astype(int).tolist()
            numbers = np.random.default_rng(1).integers(0, VOCAB, (count, options.prompt))
            prompts = [row[:length].tolist() for row, length in zip(numbers, lengths)]
            shown = f"{lengths[-1]}-{lengths[0]}" if count > 1 else str(lengths[0])
            before, after = rates(model, prompts, options.num_tokens)
            yield [name, str(count), shown, f"{before:.1f}", f"{after:.1f}", f"{after / before:.1f}"]


def rates(model: GPT, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
    """Tokens a second, each text by itself and computed anew, and all together with a cache."""
    found = dict[bool, list[list[int]]]()

    def work(cached: bool) -> None:
        found[cached] = generate(model, prompts, tokens, 1024, Choice(temperature=0.0), cached=cached)

    generate(model, prompts, 2, 1024, Choice(temperature=0.0))
    slow = processor_seconds(lambda: work(False), 1)
    fast = min(processor_seconds(lambda: work(True), 1) for _ in range(2))
    assert found[False] == found[True]
    return tuple(len(prompts) * tokens / one for one in (slow, fast))  # type: ignore[return-value]


if __name__ == "__main__":
    run_command(main)
