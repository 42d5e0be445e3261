"""Samples of an encoder: runs of sentences of one document, joined until a target length is reached (arXiv
1810.04805, appendix A.2).

Where a run ends depends on where it begins alone, and every target on (seed, pass, first sentence). So no map
of samples is written or kept: of every 64th sample its first sentence is noted when the data is opened, and
the others are found from there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.keys import key
from megatron.base.random import draw

STRIDE = 64
"""Of so many samples the first one is noted."""
CHUNK = 1 << 20
"""Sentences that are counted at a time."""


class Joining(NamedTuple):
    """How sentences become samples: at most `target` tokens, or of a share `short` a length drawn from 2 on;
    at least `minimum` sentences; `passes` over the documents, each with targets of its own. `pair`: what is
    told of their halves, "" for nothing."""

    target: int
    short: float
    minimum: int
    passes: int
    seed: int
    pair: str

    @property
    def seq_length(self) -> int:
        """Of a row, with the tokens around its texts."""
        return self.target + (3 if self.pair else 2)


class Runs(NamedTuple):
    """The samples of some documents, pass after pass. `lengths`: tokens of every sentence; `documents`: the
    first sentence of each, and the end; `keys`: of the targets of every pass; `before`: samples before every
    chunk, and in all; `marks`: the first sentence of every 64th sample of a chunk, `first_mark`: where those
    of a chunk begin; `chunks`: how many a pass has; `skipped`: documents that are too short."""

    lengths: np.ndarray
    documents: np.ndarray
    joining: Joining
    keys: np.ndarray
    before: np.ndarray
    marks: np.ndarray
    first_mark: np.ndarray
    chunks: int
    skipped: int

    @property
    def samples(self) -> int:
        return int(self.before[-1])


def find_runs(lengths: np.ndarray, documents: np.ndarray, joining: Joining, workers: int) -> Runs:
    """The samples of documents of sentences of these lengths, counted by so many threads."""
    chunks = list(_chunks(documents))
    keys = np.array([key(joining.seed, "target", number) for number in range(joining.passes)], np.uint64)

    def count(part: tuple[np.uint64, int, int]) -> np.ndarray:
        return _marks(lengths, documents, *part, *joining[:3])

    parts = [(one, *chunk) for one in keys for chunk in chunks]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(count, parts))
    counts = np.array([marks[-1] for marks in found], np.int64)
    marks = [marks[:-1] for marks in found]
    return Runs(
        lengths,
        documents,
        joining,
        keys,
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([*marks, np.empty(0, np.int64)]),
        np.concatenate([[0], np.cumsum([len(one) for one in marks])]),
        len(chunks),
        int(np.count_nonzero(np.diff(documents) < joining.minimum)),
    )


def locate(runs: Runs, samples: np.ndarray) -> np.ndarray:
    """Of every sample its first sentence, the one behind its last, its target, and the ends of its document:
    int64 [samples, 4], and the first two of the document as columns 3 and 4."""
    out = np.empty((len(samples), 5), np.int64)
    _locate(
        runs.lengths,
        runs.documents,
        runs.keys,
        runs.before,
        runs.marks,
        runs.first_mark,
        runs.chunks,
        samples.astype(np.int64),
        *runs.joining[:3],
        out,
    )
    return out


def _chunks(documents: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of documents of about CHUNK sentences."""
    first, count = 0, len(documents) - 1
    while first < count:
        last = int(np.searchsorted(documents, documents[first] + CHUNK, side="left"))
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


@compiled(inline="always")
def _target(key, sentence, target, short):
    """The target of a sample that begins with this sentence."""
    bits = draw(key, np.uint64(sentence))
    if np.float64(bits >> np.uint64(40)) * 2.0**-24 < short:
        return min(target, 2 + np.int64((bits & np.uint64(0xFFFFFF)) % np.uint64(max(target - 1, 1))))
    return target


@compiled(inline="always")
def _end(lengths, first, last, target, minimum):
    """The end of a sample: it has reached its target and at least `minimum` sentences, and leaves more than
    one; or that of its document."""
    total = np.int64(0)
    for sentence in range(first, last):
        total += lengths[sentence]
        enough = total >= target and sentence - first + 1 >= minimum
        if enough and last - sentence - 1 > 1:
            return sentence + 1
    return last


@compiled()
def _marks(lengths, documents, key, first, last, target, short, minimum):
    """The first sentence of every 64th sample of documents [first, last), and the number of all samples."""
    marks = np.empty((documents[last] - documents[first]) // STRIDE + 2, np.int64)
    count = 0
    for document in range(first, last):
        sentence, end = documents[document], documents[document + 1]
        if end - sentence < minimum:
            continue
        while sentence < end:
            if count % STRIDE == 0:
                marks[count // STRIDE] = sentence
            sentence = _end(lengths, sentence, end, _target(key, sentence, target, short), minimum)
            count += 1
    used = (count + STRIDE - 1) // STRIDE
    marks[used] = count
    return marks[: used + 1].copy()


@compiled()
def _locate(
    lengths, documents, keys, before, marks, first_mark, chunks, samples, target, short, minimum, out
):
    for i in range(len(samples)):
        chunk = np.searchsorted(before, samples[i], side="right") - 1
        key, left = keys[chunk // chunks], samples[i] - before[chunk]
        sentence = marks[first_mark[chunk] + left // STRIDE]
        left %= STRIDE
        document = np.searchsorted(documents, sentence, side="right") - 1
        while True:
            end = documents[document + 1]
            if sentence == documents[document] and end - sentence < minimum:
                document, sentence = document + 1, end
                continue
            if sentence >= end:
                document += 1
                continue
            wanted = _target(key, sentence, target, short)
            behind = _end(lengths, sentence, end, wanted, minimum)
            if left == 0:
                out[i, 0], out[i, 1], out[i, 2] = sentence, behind, wanted
                out[i, 3], out[i, 4] = documents[document], end
                break
            sentence, left = behind, left - 1
