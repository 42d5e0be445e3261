"""Small datasets of sentences."""

from pathlib import Path

import numpy as np

from megatron.data.corpora import Source, open_source
from megatron.data.index_builder import IndexedDatasetBuilder


def sentence_source(prefix: Path, documents: int, most: int = 14, tokens: int = 1 << 15) -> Source:
    """A dataset of documents of 1 to `most` sentences of 1 to 20 tokens, whose ids count up from 10, and from
    10 again behind `tokens`."""
    generator, count = np.random.default_rng(3), 0
    with IndexedDatasetBuilder(prefix, np.uint16) as builder:
        for _ in range(documents):
            lengths = generator.integers(1, 21, generator.integers(1, most + 1))
            total = int(lengths.sum())
            builder.add_document(10 + (count + np.arange(total)) % tokens, lengths)
            count += total
    return open_source(str(prefix), False)
