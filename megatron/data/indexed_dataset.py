"""Megatron's indexed datasets, read through memory maps: `<prefix>.bin` holds token ids back to back,
`<prefix>.idx` says where sequences and documents begin, and `<prefix>.json`, where it exists, says what made
them.

The .idx is little-endian and unaligned: magic (9 bytes), version (uint64), type code (uint8), S sequences
(uint64), D document boundaries (uint64), then lengths int32[S] in tokens, pointers int64[S] in bytes,
document_indices int64[D]. Document d is the sequences [document_indices[d], document_indices[d+1]).
Opening costs the same at any size; `validate` reads the whole index.
"""

import hashlib
import json
import operator
import os
import struct
from pathlib import Path
from typing import Any, overload

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import spread_blocks, whole_file
from megatron.base.mapping import map_file
from megatron.data.dataset_paths import AGAIN, require_files

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
TYPE_CODES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
FLOAT_CODES = (6, 7)
SIDECAR_KEYS = {"tokenizer", "vocab_size", "eod"}
SAMPLED_POINTERS = 64
CHUNK = 1 << 20


def token_dtype(vocab_size: int) -> np.dtype:
    """The type of the ids of a vocabulary, by Megatron's rule."""
    return np.dtype(np.uint16 if vocab_size < 65500 else np.int32)


class IndexedDataset:
    """The sequences of `<prefix>.bin` and `<prefix>.idx`; arrays are views of the files. UserError where
    the files do not fit."""

    def __init__(self, prefix: str | os.PathLike[str], *, allow_trailing_bytes: bool = False):
        self.prefix = os.fspath(prefix)
        require_files(self.prefix)
        self.dtype, sequences, boundaries = _read_header(self.prefix + ".idx")
        index = map_file(self.prefix + ".idx")
        pointers_at = HEADER.size + 4 * sequences
        documents_at = pointers_at + 8 * sequences
        self.sequence_lengths = index[HEADER.size : pointers_at].view("<i4")
        self.sequence_pointers = index[pointers_at:documents_at].view("<i8")
        self.document_indices = index[documents_at : documents_at + 8 * boundaries].view("<i8")
        self._check_index()
        self.tokens = self._map_tokens(allow_trailing_bytes)

    @staticmethod
    def exists(prefix: str | os.PathLike[str]) -> bool:
        """Whether both files are there."""
        return all(os.path.isfile(os.fspath(prefix) + ending) for ending in (".bin", ".idx"))

    def __len__(self) -> int:
        return len(self.sequence_lengths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        """The tokens of a sequence, or of neighbouring sequences."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(
                    "a slice of an indexed dataset takes neighbouring sequences: its step must be 1"
                )
            return [self.get(i) for i in range(start, stop)]
        return self.get(index)

    def get(self, index: int, offset: int = 0, length: int | None = None) -> np.ndarray:
        """`length` tokens of a sequence from its token `offset` on; by default all that follow."""
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        start, whole = self._span(index)
        length = whole - offset if length is None else length
        if not 0 <= offset <= offset + length <= whole:
            raise IndexError(f"tokens [{offset}, {offset + length}) of a sequence of {whole}")
        return self.tokens[start + offset : start + offset + length]

    def validate(self) -> None:
        """Check every length, pointer and document boundary, in bounded memory. UserError tells the first
        that is wrong."""
        end = 0
        for first in range(0, len(self), CHUNK):
            lengths = self.sequence_lengths[first : first + CHUNK].astype(np.int64)
            ends = end + np.cumsum(lengths) * self.dtype.itemsize
            starts = np.concatenate(([end], ends[:-1]))
            wrong = np.flatnonzero((lengths < 0) | (self.sequence_pointers[first : first + CHUNK] != starts))
            if len(wrong):
                raise self._damaged(
                    f"sequence {first + wrong[0]} does not begin where the one before it ends"
                )
            end = int(ends[-1])
        for first in range(0, len(self.document_indices) - 1, CHUNK):
            falls = np.flatnonzero(np.diff(self.document_indices[first : first + CHUNK + 1]) < 0)
            if len(falls):
                raise self._damaged(f"document {first + falls[0]} ends before it begins")

    def _span(self, index: int) -> tuple[int, int]:
        """First token and length of a sequence, checked against the tokens that exist."""
        length, pointer = int(self.sequence_lengths[index]), int(self.sequence_pointers[index])
        start, odd = divmod(pointer, self.dtype.itemsize)
        if odd or length < 0 or not 0 <= start <= start + length <= len(self.tokens):
            raise self._damaged(f"sequence {index} reaches outside the .bin file")
        return start, length

    def _check_index(self) -> None:
        """What can be said of the index in constant time."""
        lengths, pointers, documents = self.sequence_lengths, self.sequence_pointers, self.document_indices
        if int(documents[0]) != 0 or int(documents[-1]) != len(self):
            raise self._damaged(
                f"documents cover the sequences {documents[0]} to {documents[-1]}, not 0 to {len(self)}"
            )
        if not len(self):
            return
        sample = np.unique(np.linspace(0, len(self) - 1, SAMPLED_POINTERS).astype(np.int64))
        before = np.maximum(sample - 1, 0)
        expected = np.where(
            sample > 0, pointers[before] + lengths[before].astype(np.int64) * self.dtype.itemsize, 0
        )
        wrong = sample[(pointers[sample] != expected) | (lengths[sample] < 0)]
        if len(wrong):
            raise self._damaged(f"sequence {wrong[0]} does not begin where the one before it ends")

    def _map_tokens(self, allow_trailing_bytes: bool) -> np.ndarray:
        """All tokens of the .bin file, whose size must be what the index says."""
        path = self.prefix + ".bin"
        size = os.path.getsize(path)
        expected = (
            int(self.sequence_pointers[-1]) + int(self.sequence_lengths[-1]) * self.dtype.itemsize
            if len(self)
            else 0
        )
        if size < expected or expected < 0 or expected % self.dtype.itemsize:
            raise UserError(
                f"{path}: has {size:,} bytes where {self.prefix}.idx says {expected:,}; it is cut short, "
                f"{AGAIN}"
            )
        if size > expected and not allow_trailing_bytes:
            raise UserError(
                f"{path}: has {size:,} bytes where {self.prefix}.idx says {expected:,}. "
                "Megatron-DeepSpeed's --append-eod makes such files: its end-of-document tokens are in the "
                ".bin but not in the lengths, so all documents after the first are shifted. Preprocess the "
                "text again; training, analysis and tools/inspect_data.py take the file as it is with "
                "--allow-trailing-bytes"
            )
        self.trailing_bytes = size - expected
        if not expected:
            return np.empty(0, self.dtype)
        return map_file(path)[:expected].view(self.dtype)

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.prefix}.idx: is damaged: {what}; {AGAIN}")


def fingerprint(dataset: IndexedDataset) -> str:
    """A hash of the files' sizes, type and 64 evenly spread blocks of each; constant time, whatever their
    path or date."""
    counts = (len(dataset), len(dataset.document_indices))
    return fingerprint_files(dataset.prefix + ".bin", dataset.prefix + ".idx", dataset.dtype, counts)


def fingerprint_files(tokens: str, index: str, dtype: np.dtype, counts: tuple[int, int]) -> str:
    """The fingerprint of a dataset whose files are called so. `counts`: sequences, document boundaries."""
    sizes = [os.path.getsize(path) for path in (tokens, index)]
    state = hashlib.blake2b(digest_size=16)
    state.update(f"{counts[0]} {counts[1]} {dtype.name} {sizes}".encode())
    for path in (tokens, index):
        for block in spread_blocks(path, 4096):
            state.update(block)
    return state.hexdigest()


def require_own_sidecar(dataset: IndexedDataset, source: str, sidecar: dict[str, Any]) -> None:
    """UserError where a .json was written for another dataset, or for another state of this one. `source`:
    the fingerprint of the files."""
    found: dict[str, Any] = {
        "documents": len(dataset.document_indices) - 1,
        "sequences": len(dataset),
        "tokens": len(dataset.tokens),
    }
    if not dataset.trailing_bytes:
        found["fingerprint"] = source
    differences = [
        f"{sidecar[name]} {name} against {value}" if name != "fingerprint" else "other bytes"
        for name, value in found.items()
        if sidecar.get(name, value) != value
    ]
    if differences:
        raise UserError(
            f"{dataset.prefix}.json: is not of this .bin and .idx, it was written for "
            f"{', '.join(differences)}; copy the three files together again, or remove the .json"
        )


def read_sidecar(prefix: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `<prefix>.json` says of the tokenizer and the documents of a dataset; None where there is no
    such file."""
    path = Path(os.fspath(prefix) + ".json")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); {AGAIN}, or remove this one file") from None
    if not isinstance(content, dict) or SIDECAR_KEYS - content.keys() or not _of_types(content):
        raise UserError(
            f"{path}: does not describe a dataset by {', '.join(sorted(SIDECAR_KEYS))}; {AGAIN}, or "
            "remove this one file"
        )
    return content


def _of_types(sidecar: dict[str, Any]) -> bool:
    """Whether the size of a vocabulary is a number above 0, and the end of documents an id or none."""
    size, end = sidecar["vocab_size"], sidecar["eod"]
    return type(size) is int and size > 0 and (end is None or (type(end) is int and 0 <= end < size))


def write_sidecar(prefix: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write `<prefix>.json`."""
    with whole_file(os.fspath(prefix) + ".json", "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def _read_header(path: str) -> tuple[np.dtype, int, int]:
    """Type of the tokens, number of sequences and of document boundaries, checked against the size of the
    file."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(HEADER.size)
    if not MAGIC.startswith(head[: len(MAGIC)]):
        older = "the older TNTIDX format is not read; make it again from its text"
        hint = older if head.startswith(b"TNTIDX") else AGAIN
        raise UserError(f"{path}: is no Megatron index, it begins with {head[:9]!r}; {hint}")
    if len(head) < HEADER.size:
        raise UserError(
            f"{path}: is cut short: {size} bytes, where the header alone has {HEADER.size}; {AGAIN}"
        )
    _, version, code, sequences, boundaries = HEADER.unpack(head)
    if version != VERSION:
        raise UserError(f"{path}: has version {version}, and only version {VERSION} exists; {AGAIN}")
    if code not in TYPE_CODES:
        kind = (
            "floating-point numbers, which are no token ids"
            if code in FLOAT_CODES
            else f"an unknown type (code {code})"
        )
        raise UserError(f"{path}: says that the .bin file holds {kind}; {AGAIN}")
    if boundaries < 1:
        raise UserError(f"{path}: has 0 document boundaries, so no document; {AGAIN}")
    expected = HEADER.size + 12 * sequences + 8 * boundaries
    if size != expected:
        multimodal = (
            "; it looks like a multimodal dataset, which is not supported"
            if size == expected + sequences
            else ""
        )
        raise UserError(
            f"{path}: has {size:,} bytes where its header, of {sequences:,} sequences and {boundaries:,} "
            "document boundaries, "
            f"says {expected:,}{multimodal}; {AGAIN}"
        )
    return np.dtype(TYPE_CODES[code]), sequences, boundaries
