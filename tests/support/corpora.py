"""Corpora in memory, and analyses of them."""

from pathlib import Path

import numpy as np

from megatron.curriculum.analysis import analyze, choose_metrics
from megatron.data.corpora import Corpus


def make_corpus(
    windows: int, seq_length: int, vocab_size: int = 50, seed: int = 0, name: str = "corpus"
) -> Corpus:
    """Tokens with a skewed distribution, so that samples differ in rarity; a few are left over at the end."""
    generator = np.random.default_rng(seed)
    tokens = (generator.random(windows * seq_length + 1 + seq_length // 2) ** 3 * vocab_size).astype(
        np.uint16
    )
    return Corpus(name, tokens, windows, seq_length, (0, windows), f"{name}-{seed}")


def make_analysis(
    corpus: Corpus,
    folder: Path,
    metrics: tuple[str, ...] = ("vocab_rarity",),
    vocab_size: int = 50,
    workers: int = 1,
) -> str:
    """An analysis folder of a corpus."""
    analyze(corpus, "train", choose_metrics(metrics), vocab_size, folder, workers)
    return str(folder)
