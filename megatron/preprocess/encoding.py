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
from megatron.preprocess.sentences import Split, is_unsplit, sentence_splitter, split_all

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
    of text, how the fast engine was checked, and how some texts came back from their tokens. `counts`: where
    the lengths are of sentences, how many each document has; else None. `unknown`: how many tokens are
    [UNK]; `unsplit`: bytes of sentences whose end was not seen; `ended`: documents that get an end and have
    one in their text."""

    tokens: np.ndarray
    lengths: np.ndarray
    text_bytes: int
    check: Check
    round_trip: RoundTrip = RoundTrip()
    counts: np.ndarray | None = None
    unknown: int = 0
    unsplit: int = 0
    ended: int = 0

    @property
    def documents(self) -> int:
        return len(self.lengths if self.counts is None else self.counts)

    @property
    def empty(self) -> int:
        """Documents without a token."""
        return int(((self.lengths if self.counts is None else self.counts) == 0).sum())


class Encoded(NamedTuple):
    """A piece, encoded: one part for every key, the records that hold no document, the engine at work."""

    parts: list[Part]
    bad: list[BadRecord]
    engine: str


class Column(NamedTuple):
    """Texts, which are documents or their sentences, the number of the document of each, their UTF-8 bytes,
    their ids back to back, the number of ids of each."""

    texts: list[str]
    owners: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray

    def place(self, piece: Piece, number: int) -> str:
        """Where the document of a text stands."""
        return piece.place(int(self.owners[number]))


class Process(NamedTuple):
    """What a process keeps from piece to piece: the tokenizer, what has been verified of it, and what splits
    documents into sentences, if anything does."""

    tokenizer: Tokenizer
    memory: Memory
    split: Split | None


def encode_piece(options: Any, engine: str, piece: Piece) -> Encoded:
    """Read and encode a piece. UserError for a bad record, unless such records are to be skipped."""
    process = of_process(options, engine)
    texts, bad = piece.read(options.json_keys)
    refuse(piece, bad, options.bad_lines)
    eod = process.tokenizer.eod if options.append_eod else None
    return Encoded(
        [_encode_key(process, column, eod, piece) for column in texts], bad, process.tokenizer.engine
    )


@functools.lru_cache(maxsize=2)
def of_process(options: Any, engine: str) -> Process:
    """The tokenizer and the splitter of a run, built once in every process."""
    split = sentence_splitter(options.lang, options.keep_newlines) if options.split_sentences else None
    return Process(build_tokenizer(options.tokenizer, engine), new_memory(NEW_BYTES), split)


def _encode_key(process: Process, documents: list[str], eod: int | None, piece: Piece) -> Part:
    tokenizer, memory, split = process
    texts, counts = split_all(documents, split) if split else (documents, np.ones(len(documents), np.int64))
    owners = np.repeat(np.arange(len(documents)), counts)
    column = _encode(tokenizer, texts, owners, piece)
    check, round_trip = Check(), RoundTrip()
    if texts:
        round_trip = _decode_again(column, tokenizer, piece)
        if tokenizer.encode_batch is not tokenizer.reference:
            check = _verify(column, tokenizer, piece, memory)
    whole = np.bincount(owners, column.lengths, len(documents)).astype(np.int64)
    ids = with_eod(column.ids, whole, eod, token_dtype(tokenizer.vocab_size))
    part = Part(
        ids,
        whole + (whole > 0) * (eod is not None),
        int(_sizes(documents).sum()),
        check,
        round_trip,
        unknown=int(np.count_nonzero(column.ids == tokenizer.vocabulary.get("[UNK]", -1))),
        unsplit=_unsplit(column) if split else 0,
        ended=0 if eod is None else int((column.ids[np.cumsum(whole)[whole > 0] - 1] == eod).sum()),
    )
    return _of_sentences(part, column, eod is not None) if split else part


def _unsplit(column: Column) -> int:
    """Bytes of sentences whose end was not seen."""
    return sum(size for text, size in zip(column.texts, column.sizes.tolist()) if is_unsplit(text, size))


def _encode(tokenizer: Tokenizer, texts: list[str], owners: np.ndarray, piece: Piece) -> Column:
    if not texts:
        return Column(texts, owners, *[np.empty(0, np.int64)] * 3)
    try:
        return Column(texts, owners, _sizes(texts), *tokenizer.encode_batch(texts))
    except UserError as error:
        raise UserError(f"{_refused(tokenizer, texts, owners, piece)}: {error}") from None


def _sizes(texts: list[str]) -> np.ndarray:
    """Their UTF-8 bytes."""
    return np.array([len(text) if text.isascii() else len(text.encode()) for text in texts], np.int64)


def _of_sentences(part: Part, column: Column, ended: bool) -> Part:
    """The same with the lengths of the sentences that have tokens. `ended`: the last of each document has one
    more, its end."""
    lengths, owners = (values[column.lengths > 0] for values in (column.lengths, column.owners))
    counts = np.bincount(owners, minlength=len(part.lengths))
    lengths[(np.cumsum(counts) - 1)[counts > 0]] += ended
    return part._replace(lengths=lengths, counts=counts)


def _refused(tokenizer: Tokenizer, texts: list[str], owners: np.ndarray, piece: Piece) -> str:
    """Where the first text stands that the tokenizer does not take."""
    for number, text in enumerate(texts):
        try:
            tokenizer.encode_batch([text])
        except UserError:
            return piece.place(int(owners[number]))
    return f"near {piece.name}"


def _decode_again(column: Column, tokenizer: Tokenizer, piece: Piece) -> RoundTrip:
    """Decode the documents that are verified, too."""
    starts = np.cumsum(column.lengths) - column.lengths
    documents = (
        (number, column.texts[number], column.ids[starts[number] : starts[number] + column.lengths[number]])
        for number in draw_documents(column.sizes, piece.name).tolist()
    )
    return try_round_trip(tokenizer, documents, lambda number: column.place(piece, number))


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
        return Check(difference=(column.place(piece, drawn[different]), texts[different]))
    new = _verify_new(column, tokenizer, piece, memory)
    size = int(column.sizes[drawn].sum()) + new.text_bytes
    return new._replace(documents=len(drawn), text_bytes=size)


def _verify_new(column: Column, tokenizer: Tokenizer, piece: Piece, memory: Memory) -> Check:
    """Encode passages with something new by both engines, as far as the budget of the process reaches."""
    passages = find_new(column.texts, memory)
    sizes = np.cumsum([len(passage.text.encode()) for passage in passages])
    count = int(np.searchsorted(sizes, memory.budget, "right"))
    chosen = [passage.text for passage in passages[:count]]
    if chosen:
        different = first_difference(tokenizer.encode_batch(chosen), tokenizer.reference(chosen))
        if different is not None:
            number = passages[different].number
            return Check(difference=(column.place(piece, number), column.texts[number]))
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
