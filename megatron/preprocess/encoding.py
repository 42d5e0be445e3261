"""One piece of documents into token ids, and the proof that a fast engine gives the ids of the reference
library.

A share of the documents, drawn by the piece, and those with unusual code points are encoded a second time
by the reference.
"""

import functools
import unicodedata
import zlib
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.data.indexed_dataset import token_dtype
from megatron.data.token_engines import first_difference
from megatron.data.tokenizer import Tokenizer, build_tokenizer
from megatron.preprocess.bad_lines import refuse
from megatron.preprocess.documents import Piece
from megatron.preprocess.records import BadRecord

SAMPLE_BYTES = 20_000
"""Text of a piece that is encoded twice, on average: 0.5 % of 4 MB; all of a small corpus."""
LONGEST_VERIFIED = 4_000_000
UNUSUAL_CATEGORIES = ("Mn", "Mc", "Me", "Cc", "Cf", "Cn", "Co", "Cs", "Zs", "Zl", "Zp", "Lm", "Nl", "No")


class Check(NamedTuple):
    """Documents that were encoded twice, their bytes of text, the bytes among them that were chosen as
    unusual only; and the place and text of the first that came out differently, after which nothing else
    counts."""

    documents: int = 0
    text_bytes: int = 0
    unusual_bytes: int = 0
    difference: tuple[str, str] | None = None


class Part(NamedTuple):
    """The documents of one key of a piece: ids with their end-of-document tokens, lengths in tokens, bytes
    of text."""

    tokens: np.ndarray
    lengths: np.ndarray
    text_bytes: int
    check: Check


class Encoded(NamedTuple):
    """A piece, encoded: one part for every key, the records that hold no document, the engine at work."""

    parts: list[Part]
    bad: list[BadRecord]
    engine: str


class Column(NamedTuple):
    """Texts, their UTF-8 bytes, their ids back to back, the number of ids of each."""

    texts: list[str]
    sizes: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray


def encode_piece(options: Any, engine: str, piece: Piece, allowance: int) -> Encoded:
    """Read and encode a piece. `allowance`: bytes of unusual text to verify. UserError for a bad record,
    unless such records are to be skipped."""
    tokenizer = _tokenizer(options, engine)
    texts, bad = piece.read(options.json_keys)
    refuse(piece, bad, options.bad_lines)
    eod = tokenizer.eod if options.append_eod else None
    return Encoded(
        [_encode_key(tokenizer, column, eod, piece, allowance) for column in texts], bad, tokenizer.engine
    )


@functools.lru_cache(maxsize=2)
def _tokenizer(options: Any, engine: str) -> Tokenizer:
    """The tokenizer of a run, built once in every process."""
    return build_tokenizer(options.tokenizer, engine)


def _encode_key(
    tokenizer: Tokenizer, texts: list[str], eod: int | None, piece: Piece, allowance: int
) -> Part:
    dtype = token_dtype(tokenizer.vocab_size)
    if not texts:
        return Part(np.empty(0, dtype), np.empty(0, np.int64), 0, Check())
    sizes = np.array([len(text) if text.isascii() else len(text.encode()) for text in texts], np.int64)
    try:
        column = Column(texts, sizes, *tokenizer.encode_batch(texts))
    except UserError as error:
        raise UserError(f"near {piece.name}: {error}") from None
    check = (
        Check()
        if tokenizer.encode_batch is tokenizer.reference
        else _verify(column, tokenizer, piece, allowance)
    )
    lengths = column.lengths + (column.lengths > 0) * (eod is not None)
    return Part(with_eod(column.ids, column.lengths, eod, dtype), lengths, int(sizes.sum()), check)


def with_eod(ids: np.ndarray, lengths: np.ndarray, eod: int | None, dtype: np.dtype) -> np.ndarray:
    """The ids in `dtype`, with `eod` behind every document that has tokens; None adds nothing."""
    if eod is None:
        return ids.astype(dtype)
    lengths = lengths[lengths > 0]
    out = np.full(len(ids) + len(lengths), eod, dtype)
    is_text = np.ones(len(out), bool)
    is_text[np.cumsum(lengths + 1) - 1] = False
    out[is_text] = ids
    return out


def _verify(column: Column, tokenizer: Tokenizer, piece: Piece, allowance: int) -> Check:
    """Encode chosen documents again, by the reference."""
    drawn, unusual = choose_documents(column, piece.name, allowance)
    chosen = np.union1d(drawn, unusual)
    if not len(chosen):
        return Check()
    starts, lengths = np.cumsum(column.lengths) - column.lengths, column.lengths[chosen]
    outcome = np.concatenate(
        [column.ids[start : start + length] for start, length in zip(starts[chosen], lengths)]
    )
    texts = [column.texts[number] for number in chosen]
    different = first_difference((outcome, lengths), tokenizer.reference(texts))
    if different is not None:
        return Check(difference=(piece.place(int(chosen[different])), texts[different]))
    only_unusual = np.setdiff1d(unusual, drawn)
    return Check(len(chosen), int(column.sizes[chosen].sum()), int(column.sizes[only_unusual].sum()))


def choose_documents(column: Column, name: str, allowance: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the documents to verify: a uniform draw keyed by `name`, and unusual ones of `allowance`
    bytes in all."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    chance = min(1.0, SAMPLE_BYTES / max(int(column.sizes.sum()), 1))
    wanted = generator.random(len(column.sizes))
    wanted[np.argmin(wanted)] = 0  # one document at least
    drawn = np.flatnonzero((wanted < chance) & (column.sizes <= LONGEST_VERIFIED))
    unusual = []
    for number, (text, size) in enumerate(zip(column.texts, column.sizes.tolist())):
        if size <= allowance and is_unusual(text):
            unusual.append(number)
            allowance -= size
    return drawn, np.array(unusual, np.int64)


def is_unusual(text: str) -> bool:
    """Whether a text holds code points on which tokenizers tend to differ: beyond the basic plane,
    combining, formatting, unassigned, private, letter-like numbers, spaces other than the plain one."""
    return not text.isascii() and bool(_unusual()[np.frombuffer(text.encode("utf-16-le"), np.uint16)].any())


@functools.cache
def _unusual() -> np.ndarray:
    """For every UTF-16 unit, whether it is unusual; surrogates stand for what lies beyond the basic plane."""
    categories = np.array([unicodedata.category(chr(code)) for code in range(0x10000)])
    unusual = np.isin(categories, UNUSUAL_CATEGORIES)
    unusual[:128] = False
    return unusual
