"""One piece of documents into token ids, and the proof that a fast engine gives the ids of the reference
library.

A share of the documents, drawn by the piece, is encoded a second time by the reference, and so are passages
with code points, or pairs of kinds of them, that were not verified before.
"""

import functools
import zlib
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.data.indexed_dataset import token_dtype
from megatron.data.token_engines import first_difference
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.preprocess.bad_lines import refuse
from megatron.preprocess.documents import Piece
from megatron.preprocess.novelty import Memory, find_new, new_memory
from megatron.preprocess.records import BadRecord
from megatron.preprocess.round_trip import RoundTrip, try_round_trip

SAMPLE_BYTES = 20_000
"""Text of a piece that is encoded twice, on average: 0.5 % of 4 MB; all of a small corpus."""
LONGEST_VERIFIED = 4_000_000
NEW_BYTES = 4 << 20
"""How much text a process verifies for what is new in it."""


class Check(NamedTuple):
    """Documents that were encoded twice, and the bytes of all such text; features that were new, and those
    that the budget left out; and the place and text of the first difference, after which nothing else
    counts."""

    documents: int = 0
    text_bytes: int = 0
    verified: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    difference: tuple[str, str] | None = None


class Part(NamedTuple):
    """The documents of one key of a piece: ids with their end-of-document tokens, lengths in tokens, bytes
    of text, how the fast engine was checked, and how some documents came back from their tokens."""

    tokens: np.ndarray
    lengths: np.ndarray
    text_bytes: int
    check: Check
    round_trip: RoundTrip = RoundTrip()


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


def encode_piece(options: Any, engine: str, piece: Piece) -> Encoded:
    """Read and encode a piece. UserError for a bad record, unless such records are to be skipped."""
    tokenizer, memory = of_process(options, engine)
    texts, bad = piece.read(options.json_keys)
    refuse(piece, bad, options.bad_lines)
    eod = tokenizer.eod if options.append_eod else None
    return Encoded(
        [_encode_key(tokenizer, column, eod, piece, memory) for column in texts], bad, tokenizer.engine
    )


@functools.lru_cache(maxsize=2)
def of_process(options: Any, engine: str) -> tuple[Tokenizer, Memory]:
    """The tokenizer of a run, built once in every process, and what has been verified of it there."""
    return build_tokenizer(options.tokenizer, engine), new_memory(NEW_BYTES)


def _encode_key(
    tokenizer: Tokenizer, texts: list[str], eod: int | None, piece: Piece, memory: Memory
) -> Part:
    dtype = token_dtype(tokenizer.vocab_size)
    if not texts:
        return Part(np.empty(0, dtype), np.empty(0, np.int64), 0, Check())
    sizes = np.array([len(text) if text.isascii() else len(text.encode()) for text in texts], np.int64)
    try:
        column = Column(texts, sizes, *tokenizer.encode_batch(texts))
    except UserError as error:
        raise UserError(f"{_refused(tokenizer, texts, piece)}: {error}") from None
    check = (
        Check()
        if tokenizer.encode_batch is tokenizer.reference
        else _verify(column, tokenizer, piece, memory)
    )
    lengths = column.lengths + (column.lengths > 0) * (eod is not None)
    ids = with_eod(column.ids, column.lengths, eod, dtype)
    return Part(ids, lengths, int(sizes.sum()), check, _decode_again(column, tokenizer, piece))


def _refused(tokenizer: Tokenizer, texts: list[str], piece: Piece) -> str:
    """Where the first text stands that the tokenizer does not take."""
    for number, text in enumerate(texts):
        try:
            tokenizer.encode_batch([text])
        except UserError:
            return piece.place(number)
    return f"near {piece.name}"


def _decode_again(column: Column, tokenizer: Tokenizer, piece: Piece) -> RoundTrip:
    """Decode the documents that are verified, too."""
    starts = np.cumsum(column.lengths) - column.lengths
    documents = (
        (number, column.texts[number], column.ids[starts[number] : starts[number] + column.lengths[number]])
        for number in draw_documents(column.sizes, piece.name).tolist()
    )
    return try_round_trip(tokenizer, documents, piece.place)


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


def _verify(column: Column, tokenizer: Tokenizer, piece: Piece, memory: Memory) -> Check:
    """Encode drawn documents, then passages with something new, again by the reference."""
    drawn = draw_documents(column.sizes, piece.name)
    starts, lengths = np.cumsum(column.lengths) - column.lengths, column.lengths[drawn]
    parts = [column.ids[start : start + length] for start, length in zip(starts[drawn], lengths)]
    texts = [column.texts[number] for number in drawn]
    outcome = np.concatenate([*parts, np.empty(0, column.ids.dtype)])
    different = first_difference((outcome, lengths), tokenizer.reference(texts))
    if different is not None:
        return Check(difference=(piece.place(int(drawn[different])), texts[different]))
    new = _verify_new(column.texts, tokenizer, piece, memory)
    size = int(column.sizes[drawn].sum()) + new.text_bytes
    return new._replace(documents=len(drawn), text_bytes=size)


def _verify_new(texts: list[str], tokenizer: Tokenizer, piece: Piece, memory: Memory) -> Check:
    """Encode passages with something new by both engines, as far as the budget of the process reaches."""
    passages = find_new(texts, memory)
    sizes = np.cumsum([len(passage.text.encode()) for passage in passages])
    count = int(np.searchsorted(sizes, memory.budget, "right"))
    chosen = [passage.text for passage in passages[:count]]
    if chosen:
        different = first_difference(tokenizer.encode_batch(chosen), tokenizer.reference(chosen))
        if different is not None:
            number = passages[different].number
            return Check(difference=(piece.place(number), texts[number]))
        memory.budget -= int(sizes[count - 1])
    verified, left_out = (
        tuple(feature for passage in some for feature in passage.features.tolist())
        for some in (passages[:count], passages[count:])
    )
    memory.verified[list(verified)] = True
    return Check(0, int(sizes[count - 1]) if chosen else 0, verified, left_out)


def draw_documents(sizes: np.ndarray, name: str) -> np.ndarray:
    """Numbers of some documents of these bytes of text: a uniform draw keyed by `name`."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    chance = min(1.0, SAMPLE_BYTES / max(int(sizes.sum()), 1))
    wanted = generator.random(len(sizes))
    wanted[np.argmin(wanted)] = 0  # one document at least
    return np.flatnonzero((wanted < chance) & (sizes <= LONGEST_VERIFIED))
