"""Writer of Megatron's indexed datasets, token for token as a stream: memory does not depend on the number
of documents."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import left_behind, whole_file
from megatron.data.indexed_dataset import (
    CHUNK,
    HEADER,
    MAGIC,
    TYPE_CODES,
    VERSION,
    IndexedDataset,
    fingerprint_files,
    write_sidecar,
)

LONGEST = (1 << 31) - 1
"""Tokens of the longest sequence that the format knows."""


class IndexedDatasetBuilder:
    """Writes `<prefix>.bin`, `<prefix>.idx` and, where `sidecar` is set, `<prefix>.json`; none appears unless
    all is well.

    A context manager. Lengths and document boundaries wait in unnamed files beside the output until the
    index is written."""

    def __init__(self, prefix: str | os.PathLike[str], dtype: Any, longest_sequence: int | None = None):
        self.prefix, self.dtype, self.longest_sequence = (
            os.fspath(prefix),
            np.dtype(dtype),
            longest_sequence or LONGEST,
        )
        self.code = next(code for code, known in TYPE_CODES.items() if known == self.dtype)
        self.sequences = self.documents = self.tokens = 0
        self.sidecar: dict[str, Any] | None = None
        self._files = ExitStack()

    def __enter__(self) -> "IndexedDatasetBuilder":
        _tell_left_behind(self.prefix)
        with ExitStack() as files:
            files.enter_context(_full_disk(self.prefix))
            # On the way out the last one is closed first: the index takes its name after the tokens.
            self._index: IO[Any] = files.enter_context(whole_file(self.prefix + ".idx"))
            self._tokens: IO[Any] = files.enter_context(whole_file(self.prefix + ".bin"))
            folder = Path(self.prefix).parent
            self._lengths: IO[Any] = files.enter_context(tempfile.TemporaryFile(dir=folder))
            self._boundaries: IO[Any] = files.enter_context(tempfile.TemporaryFile(dir=folder))
            self._files = files.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._files.__exit__(*error)
            return
        with self._files:
            self._write_index()
            self._write_sidecar()

    def add_item(self, tokens: np.ndarray) -> None:
        """Add one sequence to the document that `end_document` ends."""
        self._write(tokens, np.array([np.size(tokens)]))

    def end_document(self) -> None:
        """End a document, which may be empty."""
        self._end_documents(np.array([self.sequences]))

    def add_document(self, tokens: np.ndarray, lengths: Sequence[int] | np.ndarray) -> None:
        """Add a document whose sequences, of these lengths, lie back to back in `tokens`."""
        self._write(tokens, np.asarray(lengths, np.int64))
        self.end_document()

    def add_documents(
        self, tokens: np.ndarray, lengths: Sequence[int] | np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """Add documents, back to back in `tokens`. `lengths`: of their sequences, of which each document has
        as many as `counts` says. Without it, each is one sequence; a document of length 0 has none, and one
        longer than `longest_sequence` has several."""
        lengths = np.asarray(lengths, np.int64)
        if counts is not None:
            boundaries = self.sequences + np.cumsum(counts)
            self._write(tokens, lengths)
            self._end_documents(boundaries)
            return
        pieces = -(-lengths // self.longest_sequence)
        boundaries = self.sequences + np.cumsum(pieces)
        sequences = np.full(pieces.sum(), self.longest_sequence)
        ends = (np.cumsum(pieces) - 1)[pieces > 0]
        sequences[ends] = (lengths - (pieces - 1) * self.longest_sequence)[pieces > 0]
        self._write(tokens, sequences)
        self._end_documents(boundaries)

    def add_index(self, prefix: str | os.PathLike[str]) -> None:
        """Add all documents of another dataset, of the same type or one whose numbers this has, too."""
        other = IndexedDataset(prefix)
        if other.dtype != self.dtype and wider(other.dtype, self.dtype) != self.dtype:
            raise UserError(
                f"{other.prefix}: holds {other.dtype.name} tokens, and {self.prefix} holds "
                f"{self.dtype.name}; make both alike"
            )
        before = self.sequences
        for boundaries in _chunks(other.document_indices[1:]):
            self._end_documents(before + boundaries)
        for tokens in _chunks(other.tokens):
            self._tokens.write(np.ascontiguousarray(tokens, self.dtype))
        for lengths in _chunks(other.sequence_lengths):
            self._lengths.write(np.ascontiguousarray(lengths))
        self.sequences += len(other)
        self.tokens += len(other.tokens)

    def _write(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        if lengths.sum() != np.size(tokens):
            raise ValueError(f"lengths add up to {lengths.sum()}, and there are {np.size(tokens)} tokens")
        self._tokens.write(np.ascontiguousarray(tokens, self.dtype))
        self._lengths.write(lengths.astype("<i4"))
        self.sequences += len(lengths)
        self.tokens += np.size(tokens)

    def _end_documents(self, boundaries: np.ndarray) -> None:
        self._boundaries.write(boundaries.astype("<i8"))
        self.documents += len(boundaries)

    def _write_index(self) -> None:
        index = self._index
        index.write(HEADER.pack(MAGIC, VERSION, self.code, self.sequences, self.documents + 1))
        self._lengths.seek(0)
        shutil.copyfileobj(self._lengths, index, CHUNK)
        self._write_pointers()
        index.write(np.zeros(1, "<i8"))
        self._boundaries.seek(0)
        shutil.copyfileobj(self._boundaries, index, CHUNK)
        index.flush()
        os.fsync(index.fileno())

    def _write_pointers(self) -> None:
        """The byte at which every sequence begins: the running sum of lengths, in 64 bits."""
        self._lengths.seek(0)
        begin = 0
        while piece := self._lengths.read(4 * CHUNK):
            ends = begin + np.cumsum(np.frombuffer(piece, "<i4"), dtype=np.int64) * self.dtype.itemsize
            self._index.write(np.concatenate(([begin], ends[:-1])).astype("<i8"))
            begin = int(ends[-1])

    def _write_sidecar(self) -> None:
        """Say what the dataset is, or remove what was said of the files that it replaces."""
        if self.sidecar is None:
            Path(self.prefix + ".json").unlink(missing_ok=True)
        else:
            counts = {"documents": self.documents, "sequences": self.sequences, "tokens": self.tokens}
            self._tokens.flush()
            counted = (self.sequences, self.documents + 1)
            source = fingerprint_files(self._tokens.name, self._index.name, self.dtype, counted)
            write_sidecar(self.prefix, self.sidecar | counts | {"fingerprint": source})


def wider(one: np.dtype, other: np.dtype) -> np.dtype | None:
    """The type of whole numbers that has those of both; None where the format has none."""
    found = np.result_type(one, other)
    return found if one.kind in "iu" and other.kind in "iu" and found in TYPE_CODES.values() else None


def existing_dataset(prefix: str) -> list[str]:
    """What would be lost if a dataset were written to this prefix, as a problem to tell; empty where nothing
    would."""
    there = [ending for ending in (".bin", ".idx", ".json") if os.path.lexists(prefix + ending)]
    if not there:
        return []
    return [
        f"--output-prefix: {prefix} has {', '.join(there)} already; choose another, or replace what is there "
        "with --overwrite"
    ]


def _tell_left_behind(prefix: str) -> None:
    """Hidden files of an earlier run are as large as its dataset, and nobody else removes them."""
    paths = [path for ending in (".bin", ".idx") for path in left_behind(Path(prefix + ending))]
    if paths:
        size = sum(path.stat().st_size for path in paths) / 1e6
        print(
            f"note: {' '.join(map(str, paths))} ({size:,.1f} MB): left by a run that was ended from outside; "
            "remove them, unless one is writing there now",
            file=sys.stderr,
        )


@contextmanager
def _full_disk(prefix: str) -> Iterator[None]:
    """Say which files a full disk, a quota or a limit of size stops; the system's own error does not."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"{prefix}.bin and .idx: {error.strerror}; nothing was written, make room or choose another "
            "folder"
        ) from None


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[first : first + CHUNK] for first in range(0, len(values), CHUNK))
