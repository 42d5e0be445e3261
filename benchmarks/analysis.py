"""Speed of the difficulty analysis: both passes over a corpus of made-up tokens.

python benchmarks/analysis.py --tokens 4e8 --workers 2
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.curriculum.analysis import analyze, choose_metrics
from megatron.data.corpora import open_corpus, open_source
from megatron.data.index_builder import IndexedDatasetBuilder


@dataclass(frozen=True)
class Options:
    tokens: int = flag(400_000_000, "tokens of the corpus, 2 bytes each")
    seq_length: int = flag(2048, "tokens of a sample")
    vocab_size: int = flag(50_257, "size of the vocabulary")
    workers: int = flag(2, "threads")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/tokens"
        generator = np.random.default_rng(0)
        with IndexedDatasetBuilder(prefix, np.dtype(np.uint16)) as builder:
            for _ in range(options.tokens // 4_000_000):
                block = (generator.random(4_000_000) ** 4 * options.vocab_size).astype(np.uint16)
                builder.add_documents(block, np.full(4_000, 1_000))
        corpus = open_corpus(open_source(prefix, False), (0.0, 1.0), options.seq_length, "train")
        if corpus is None:
            return
        for metrics in (("vocab_rarity",), ("vocab_rarity",), ("vocab_rarity", "distinct_tokens")):
            began = time.perf_counter()
            analyze(
                corpus,
                "train",
                choose_metrics(metrics),
                options.vocab_size,
                Path(folder) / "analysis",
                options.workers,
            )
            seconds = time.perf_counter() - began
            print(
                f"{', '.join(metrics)}: {corpus.windows:,} samples, {len(corpus.tokens) / 1e6:,.0f} M "
                f"tokens in {seconds:.2f} s, ",
                end="",
            )
            print(f"{len(corpus.tokens) / seconds / 1e6:,.0f} M tokens/s on {options.workers} threads")


if __name__ == "__main__":
    run_command(main)
