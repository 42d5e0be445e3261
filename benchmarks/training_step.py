"""A training step (forward, backward, AdamW) against transformers' GPT-2 of the same shape, both in one
process, in turns.

python benchmarks/training_step.py --threads 1 --shapes 4,128,4,256,8192,8 12,768,12,512,50257,2
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from rich.table import Table

from megatron.base.terminal import show
from megatron.config.arguments import parse
from megatron.config.config import configure
from megatron.config.flags import flag
from megatron.model.gpt import GPT, LM_LOSS
from megatron.model.inputs import GPTInputs
from megatron.optim.optimizer import clip, make_optimizer, update
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import placements
from megatron.tasks.architecture import gpt_architecture


@dataclass(frozen=True)
class Options:
    threads: int = flag(1, "threads of both")
    rounds: int = flag(15, "timed steps of each, in turns")
    shapes: tuple[str, ...] = flag(
        ("4,128,4,256,8192,8", "6,384,6,256,32000,4", "12,768,12,512,50257,1"),
        "layers,hidden,heads,length,vocabulary,rows",
    )


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    transformers.logging.set_verbosity_error()
    table = Table(
        title=f"training step, {options.threads} thread(s), torch {torch.__version__}, transformers "
        f"{transformers.__version__}"
    )
    for heading in (
        "layers,hidden,heads,length,vocabulary,rows",
        "this repository",
        "transformers GPT-2 (sdpa)",
        "ratio (min-max)",
    ):
        table.add_column(heading, justify="right")
    for shape in options.shapes:
        table.add_row(shape, *_compare([int(part) for part in shape.split(",")], options.rounds))
    show(table)


def _compare(shape: list[int], rounds: int) -> tuple[str, str, str]:
    ours, theirs = _our_step(*shape), _their_step(*shape)
    pairs = []
    for number in range(rounds + 2):
        pair = _seconds(ours), _seconds(theirs)
        if number >= 2:
            pairs.append(pair)
    tokens = shape[3] * shape[5]
    ratios = sorted(their / our for our, their in pairs)
    speeds = [tokens / statistics.median(side) for side in zip(*pairs)]
    return (
        f"{speeds[0]:,.0f} tokens/s",
        f"{speeds[1]:,.0f} tokens/s",
        f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})",
    )


def _seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _our_step(
    layers: int, hidden: int, heads: int, length: int, vocabulary: int, rows: int
) -> Callable[[], None]:
    config = configure(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        seq_length=length,
        micro_batch_size=rows,
        lr=1e-4,
        train_iters=1,
        openai_gelu=True,
        hidden_dropout=0,
        attention_dropout=0,
        mock_data=True,
        vocab_size=vocabulary,
    )
    model = GPT(gpt_architecture(config, vocabulary))
    initialize(model, 1)
    gradients = GradientBuckets(dict(model.named_parameters()), placements(model), Mesh())
    optimizer = make_optimizer(dict(model.named_parameters()), config.optimizer)
    ids = torch.randint(vocabulary, (rows, length + 1))
    batch = GPTInputs(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.arange(rows))

    def step() -> None:
        gradients.zero()
        model(batch, scales={LM_LOSS: 1 / (rows * length)})[LM_LOSS].backward()
        clip(gradients, gradients.square().sqrt(), 1.0)
        update(optimizer, 1e-4)

    return step


def _their_step(
    layers: int, hidden: int, heads: int, length: int, vocabulary: int, rows: int
) -> Callable[[], None]:
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=hidden,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="sdpa",
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    ids = torch.randint(vocabulary, (rows, length))

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    run_command(main)
