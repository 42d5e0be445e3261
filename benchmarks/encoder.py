"""Encoders: how much of the FLOPs that random-LTD saves is saved in time, a training step against
transformers' BERT, what is won where padding is cut, grouped or packed, and how fast samples are found.

python benchmarks/encoder.py --threads 1 --shape 12,256,4,256,8192,8
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import transformers
from rich.table import Table

from megatron.base.terminal import show
from megatron.batches.loader import BatchShare
from megatron.config.arguments import parse
from megatron.config.config import Config, configure
from megatron.config.flags import flag
from megatron.data.sentences import Joining, find_runs, locate
from megatron.model.inputs import BertInputs
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.tasks.bert import BERT_TASK
from megatron.train.setup import Run, build, join
from megatron.train.step import train_step

SHARES = (0.25, 0.5, 0.75)
Step = Callable[[], object]


@dataclass(frozen=True)
class Options:
    threads: int = flag(1, "threads of all")
    rounds: int = flag(9, "timed steps of each, in turns")
    shape: str = flag("12,256,4,256,8192,8", "layers,hidden,heads,length,vocabulary,rows")
    sentences: int = flag(20_000_000, "made-up sentences that are joined to samples")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    shape = [int(part) for part in options.shape.split(",")]
    show(_dropping(shape, options.rounds), _against(shape, options.rounds), _padding(shape, options.rounds))
    show(_joining(options.sentences, options.threads))


def _config(shape: list[int], **more: object) -> Config:
    layers, hidden, heads, length, vocabulary, rows = shape
    flags = {"num_layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "seq_length": length}
    flags |= {"micro_batch_size": rows, "mock_data": True, "vocab_size": vocabulary, "train_iters": 100}
    flags |= {"lr": 1e-4, "hidden_dropout": 0, "attention_dropout": 0, "short_seq_prob": 0}
    return configure(**(flags | more))


def _run(shape: list[int], **more: object) -> Run:
    config = _config(shape, **more)
    run = build(join(BERT_TASK, config, describe(config)[0], BERT_TASK.open_data(config)), Mesh())
    run.model.train()
    return run


def _step(run: Run, number: int = 1) -> Step:
    step, size = run.plan.at(number), run.config.training.micro_batch_size
    return partial(train_step, run, step, run.rows.batch(run.sampler, step, BatchShare(0, 1, size)))


def _seconds(steps: list[Step], rounds: int) -> list[list[float]]:
    """Times of every step, which take turns; two rounds are not counted."""
    found = []
    for _ in range(rounds + 2):
        times = []
        for step in steps:
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        found.append(times)
    return [list(one) for one in zip(*found[2:])]


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _dropping(shape: list[int], rounds: int) -> Table:
    """Steps under random-LTD, all but the first and the last layer keeping a share, over a whole step."""
    kept = [round(share * shape[3]) for share in SHARES]
    runs = [
        _run(shape),
        *(_run(shape, random_ltd=True, random_ltd_min=one, random_ltd_duration=100) for one in kept),
    ]
    whole, *times = _seconds([_step(run) for run in runs], rounds)
    flops = [float(run.plan.flops[0]) for run in runs]
    table = _table("random-LTD", "kept", "FLOPs", "time (median)", "range", "time / FLOPs")
    for one, part, cost in zip(kept, times, flops[1:]):
        ratios = sorted(mine / all_ for mine, all_ in zip(part, whole))
        middle = statistics.median(ratios)
        words = (f"{middle:.3f}", f"{ratios[0]:.3f}-{ratios[-1]:.3f}", f"{middle / (cost / flops[0]):.3f}")
        table.add_row(f"{one} of {shape[3]}", f"{cost / flops[0]:.3f}", *words)
    return table


def _against(shape: list[int], rounds: int) -> Table:
    """A step here and with transformers' BertForPreTraining of the same shape, on the same rows."""
    run = _run(shape, apply_residual_connection_post_layernorm=True, norm_epsilon=1e-12)
    (batch,) = run.rows.batch(run.sampler, run.plan.at(1), BatchShare(0, 1, shape[5]))
    here, theirs = _seconds([_step(run), _their_step(shape, batch)], rounds)
    ratios = sorted(other / mine for mine, other in zip(here, theirs))
    tokens = batch.tokens.numel()
    table = _table("a step", "here, tokens/s", "transformers BERT (sdpa)", "ratio (range)")
    words = [f"{tokens / statistics.median(one):,.0f}" for one in (here, theirs)]
    table.add_row(*words, f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})")
    return table


def _their_step(shape: list[int], batch: BertInputs) -> Step:
    layers, hidden, heads, length, vocabulary, rows = shape
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    model = transformers.BertForPreTraining(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    labels = torch.full((rows * batch.tokens.shape[1],), -100)
    labels[batch.masked] = batch.labels
    ends = batch.ends if batch.ends is not None else torch.full((rows, 1), batch.tokens.shape[1])
    inputs = {
        "input_ids": batch.tokens,
        "attention_mask": (torch.arange(batch.tokens.shape[1]) < ends).long(),
        "token_type_ids": batch.types,
        "labels": labels.view_as(batch.tokens),
        "next_sentence_label": batch.pairs,
    }

    def step() -> None:
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _padding(shape: list[int], rounds: int) -> Table:
    """Steps of four micro-batches in which most samples are short."""
    ways = {"cut to the longest": {}, "grouped": {"bert_group_lengths": True}, "packed": {"bert_pack": True}}
    size = {"global_batch_size": 4 * shape[5], "short_seq_prob": 0.9}
    runs = {name: _run(shape, **size, **more) for name, more in ways.items()}
    times = _seconds([_step(run) for run in runs.values()], rounds)
    table = _table("samples of which 90 % are drawn short", "rows", "tokens and padding", "time")
    for (name, run), part in zip(runs.items(), times):
        ratios = [mine / first for mine, first in zip(part, times[0])]
        batches = run.rows.batch(run.sampler, run.plan.at(1), BatchShare(0, 1, shape[5]))
        tokens = sum(batch.tokens.numel() for batch in batches)
        table.add_row(name, f"{tokens:,}", f"{statistics.median(ratios):.2f}")
    return table


def _joining(sentences: int, threads: int) -> Table:
    """Samples of made-up sentences of 25 tokens on average, in documents of 20."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(5, 46, sentences).astype(np.int32)
    documents = np.arange(0, sentences + 1, 20)
    table = _table(f"{sentences:,} sentences", "length", "samples", "sentences/s", "finding 1,024 of them")
    for length in (128, 512):
        joining = Joining(length - 3, 0.1, 2, 1, 1, "sop")
        find_runs(lengths[:20_000], documents[:1001], joining, threads)
        began = time.perf_counter()
        runs = find_runs(lengths, documents, joining, threads)
        seconds = time.perf_counter() - began
        drawn = generator.integers(0, runs.samples, 1024)
        locate(runs, drawn)
        began = time.perf_counter()
        locate(runs, drawn)
        found = time.perf_counter() - began
        words = (f"{sentences / seconds:,.0f}", f"{found * 1e3:.1f} ms")
        table.add_row(str(length), f"{runs.samples:,}", *words)
    return table


if __name__ == "__main__":
    run_command(main)
