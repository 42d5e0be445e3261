"""Documents in a keyed random order, in bounded memory.

The order is that of a 64-bit hash of (seed, number of the document), so it depends on nothing else.
Documents are first spread over files by the leading bits of their hashes; then one file after another is
read, sorted and handed on.
"""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.compiled import compiled
from megatron.base.keys import key
from megatron.base.random import draw
from megatron.base.terminal import progress
from megatron.data.index_builder import IndexedDatasetBuilder

BUCKET_BYTES = 128 << 20
MOST_FILES = 256
ABOUT = np.dtype([("hash", "<u8"), ("sequences", "<i4")])
LENGTH = np.dtype("<i4")


def bucket_bits(text_bytes: int, shuffles: int = 1) -> int:
    """The leading bits to spread by, so that a file takes about BUCKET_BYTES of text. All shuffles together
    open MOST_FILES files at most, and a quarter of what the system allows; beyond that files grow instead."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if allowed == resource.RLIM_INFINITY else min(MOST_FILES, allowed // 4)
    return min((text_bytes // BUCKET_BYTES).bit_length(), max(most // shuffles, 1).bit_length() - 1)


class DocumentShuffle:
    """Takes documents as the builder does, and hands them to it, shuffled, in `finish`. A context manager,
    for its files."""

    def __init__(self, builder: IndexedDatasetBuilder, seed: int, bits: int):
        self.builder, self.key, self.bits = builder, np.uint64(key(seed, "order of documents")), bits
        self.documents = 0
        self.split = False

    def __enter__(self) -> "DocumentShuffle":
        with ExitStack() as files:
            folder = Path(self.builder.prefix).parent
            self._buckets = [
                files.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(1 << self.bits)
            ]
            self._files = files.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add_documents(
        self, tokens: np.ndarray, lengths: np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """Spread documents, back to back in `tokens`, over the files of their hashes. `lengths` and `counts`
        as the builder takes them."""
        self.split = counts is not None
        sequences = np.ones(len(lengths), np.int64) if counts is None else counts
        records = np.empty(len(sequences), ABOUT)
        records["hash"], records["sequences"] = hashes(self.key, self.documents, len(records)), sequences
        sizes = _sums(lengths, sequences)
        self.documents += len(records)
        bucket = records["hash"] >> np.uint64(63 - self.bits) >> np.uint64(1)
        for number in np.unique(bucket):
            chosen = np.flatnonzero(bucket == number)
            file = self._buckets[number]
            file.write(len(chosen).to_bytes(8, "little"))
            file.write(records[chosen])
            file.write(_choose(lengths.astype(LENGTH), sequences, chosen))
            file.write(_choose(tokens, sizes, chosen))

    def finish(self) -> None:
        """Hand on all documents, file by file."""
        with progress("shuffling", self.documents, "documents") as advance:
            for file in self._buckets:
                file.seek(0)
                frames = list(_frames(file.read(), self.builder.dtype))
                if frames:
                    records, lengths, tokens = (np.concatenate(parts) for parts in zip(*frames))
                    self._hand_on(records, lengths, tokens)
                    advance(len(records))

    def _hand_on(self, records: np.ndarray, lengths: np.ndarray, tokens: np.ndarray) -> None:
        """Add documents to the builder in the order of their hashes; equal hashes keep the order of the
        input."""
        order = np.argsort(records["hash"], kind="stable")
        self.builder.add_documents(
            _choose(tokens, _sums(lengths, records["sequences"]), order),
            _choose(lengths, records["sequences"], order),
            records["sequences"][order] if self.split else None,
        )


def _sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of the values of groups, which lie back to back; int64 [groups]."""
    ends = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))[np.cumsum(counts)]
    return np.diff(ends, prepend=0)


def _choose(values: np.ndarray, counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The values of chosen groups, of groups of these counts that lie back to back."""
    counts = counts.astype(np.int64)
    return gather(values, (np.cumsum(counts) - counts)[chosen], counts[chosen])


def _frames(content: bytes, dtype: np.dtype) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What `add_documents` wrote to one file, call by call."""
    at = 0
    while at < len(content):
        records = np.frombuffer(content, ABOUT, int.from_bytes(content[at : at + 8], "little"), at + 8)
        at += 8 + records.nbytes
        lengths = np.frombuffer(content, LENGTH, int(records["sequences"].sum(dtype=np.int64)), at)
        at += lengths.nbytes
        tokens = np.frombuffer(content, dtype, int(lengths.sum(dtype=np.int64)), at)
        at += tokens.nbytes
        yield records, lengths, tokens


@compiled()
def hashes(key, first, count):
    """Hashes of the documents first, first + 1, ...; uint64 [count]."""
    out = np.empty(count, np.uint64)
    for i in range(count):
        out[i] = draw(key, first + i)
    return out


@compiled()
def gather(tokens, starts, lengths):
    """The pieces [starts[i], starts[i] + lengths[i]) of `tokens`, back to back."""
    out = np.empty(lengths.sum(), tokens.dtype)
    end = 0
    for i in range(len(starts)):
        out[end : end + lengths[i]] = tokens[starts[i] : starts[i] + lengths[i]]
        end += lengths[i]
    return out
