"""Labelled texts to rows: [CLS] A [SEP], or [CLS] A [SEP] B [SEP], each row cut to its longest text's room
and every batch to the longest row in it."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from megatron.batches.loader import BatchShare
from megatron.curriculum.sampler import Sampler, draw_batch
from megatron.data.corpora import Corpus
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.wordpiece import BertTokens
from megatron.finetuning.examples import Examples
from megatron.model.inputs import ClassifierInputs
from megatron.parallel.slices import Slices
from megatron.schedule.plan import Step

LENGTHS = 8
"""Rows are cut to multiples of this."""


@dataclass(frozen=True)
class ExampleCorpus(Corpus):
    """Examples of a file as rows of `tokens`: row i has those from `starts[i]` on, of which the first
    `first_parts[i]` are of its first text. `texts`: of all rows; `labels`: as in Examples; `pad`: fills rows
    up; `typed`: whether the model tells the texts of a pair apart."""

    starts: np.ndarray | None = None
    first_parts: np.ndarray | None = None
    texts: int = 0
    labels: np.ndarray | None = None
    pad: int = 0
    typed: bool = False

    @property
    def lengths(self) -> np.ndarray:
        """Of every row, int64 [windows]."""
        assert self.starts is not None
        return np.diff(self.starts)

    def describe(self) -> str:
        lengths = self.lengths
        return f"{self.windows:,} examples of {lengths.mean():.1f} tokens, {lengths.max()} at most"


def encode(
    examples: Examples, tokenizer: Tokenizer, marks: BertTokens, most: int, typed: bool
) -> ExampleCorpus:
    """The rows of examples, at most `most` tokens each."""
    pairs = len(examples.texts[0]) == 2
    ids, counts = tokenizer.encode_batch([text for texts in examples.texts for text in texts])
    counts = np.asarray(counts, np.int64).reshape(len(examples.texts), -1)
    behind = np.cumsum(counts)
    first = (behind - counts.reshape(-1)).reshape(counts.shape)
    kept = longest_first(counts, most - (3 if pairs else 2))
    rows, cls, sep = [], np.array([marks.cls]), np.array([marks.sep])
    for place in range(len(examples.texts)):
        spans = zip(first[place], kept[place])
        texts = chain.from_iterable((ids[start : start + count], sep) for start, count in spans)
        rows.append(np.concatenate([cls, *texts]))
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    labels = None if examples.labels is None else examples.labels.tolist()
    content = json.dumps([examples.texts, labels, examples.names])
    return ExampleCorpus(
        name=str(examples.path),
        tokens=np.concatenate(rows).astype(np.int32),
        windows=len(rows),
        seq_length=most,
        sequences=(0, len(rows)),
        source=hashlib.sha256(content.encode()).hexdigest(),
        joined="labelled texts",
        starts=starts,
        first_parts=kept[:, 0] + 2,
        texts=kept.size,
        labels=examples.labels,
        pad=marks.pad,
        typed=typed,
    )


def longest_first(counts: np.ndarray, room: int) -> np.ndarray:
    """How many tokens of every text stay, [rows, 1 or 2]: tokens are taken from the longer one of a pair
    until both fit; where both must be cut, an odd token falls to the longer one, and to the second of equal
    ones, as transformers does it."""
    if counts.shape[1] == 1:
        return np.minimum(counts, room)
    short, long = counts.min(1), counts.max(1)
    left = np.where(short <= room // 2, short, room // 2)
    other = np.minimum(long, room - left)
    swapped = counts[:, 0] > counts[:, 1]
    return np.stack([np.where(swapped, other, left), np.where(swapped, left, other)], 1)


def make_batch(sampler: Sampler, step: Step, share: BatchShare) -> list[ClassifierInputs]:
    """This rank's micro-batches of a step, all as long as the longest row of the global batch."""
    _, samples = draw_batch(sampler, step)
    corpus, size = _examples(sampler.corpora), share.micro_batch_size
    longest = int(corpus.lengths[samples].max())
    starts = range(share.rank * size, step.batch_size, share.ranks * size)
    return [rows_of(corpus, samples[start : start + size], start, longest, share.slices) for start in starts]


def plain_batch(
    corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, slices: Slices
) -> ClassifierInputs:
    """Some rows, for evaluation."""
    corpus = _examples(corpora)
    return rows_of(corpus, samples, 0, int(corpus.lengths[samples].max()), slices)


def rows_of(
    corpus: ExampleCorpus, samples: Sequence[int] | np.ndarray, first: int, longest: int, slices: Slices
) -> ClassifierInputs:
    """These rows, numbered in the global batch from `first` on, and as long as the longest one must be."""
    assert corpus.starts is not None and corpus.first_parts is not None
    samples = np.asarray(samples)
    multiple = math.lcm(LENGTHS, slices.both.size)
    width = -(-longest // multiple) * multiple
    tokens = np.full((len(samples), width), corpus.pad, np.int64)
    lengths = corpus.lengths[samples]
    for row, (start, length) in enumerate(zip(corpus.starts[samples], lengths)):
        tokens[row, :length] = corpus.tokens[start : start + length]
    parts: dict[str, Any] = {}
    if corpus.typed:
        places = np.arange(width)
        second = (places >= corpus.first_parts[samples][:, None]) & (places < lengths[:, None])
        parts["types"] = torch.from_numpy(second.astype(np.int64))
    if (lengths < width).any():
        parts["ends"] = torch.from_numpy(lengths[:, None])
    if corpus.labels is not None:
        parts["labels"] = torch.from_numpy(corpus.labels[samples])
    rows = torch.arange(first, first + len(samples))
    return ClassifierInputs(torch.from_numpy(tokens), rows, first_row=first, **parts)


def _examples(corpora: list[Corpus]) -> ExampleCorpus:
    (corpus,) = corpora
    assert isinstance(corpus, ExampleCorpus)
    return corpus
