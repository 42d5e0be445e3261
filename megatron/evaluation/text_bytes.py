"""How many bytes of text the scored tokens of a corpus stand for, for bits per byte.

Tokens are decoded from the beginning of their document, because what one stands for depends on those before
it. Where a tokenizer does not give back the text that it was given, the decoded bytes are brought into
proportion by what the dataset's .json says of the original text.
"""

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from megatron.data.corpora import Corpus
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.tokenizer_value import Tokenizer

DOCUMENTS_AT_ONCE = 1024
CHECKED_TOKENS = 1 << 24
"""The largest dataset that is decoded as a whole, to compare it with its .json."""
IsScored = Callable[[np.ndarray], np.ndarray]
"""From neighbouring ids, whether each but the first is scored."""


class TextBytes(NamedTuple):
    """How many bytes of text, and where the number is from: "text" is exact. `factor`: bytes of the whole
    original for each that is decoded."""

    size: float
    source: str
    factor: float = 1.0


class Documents(NamedTuple):
    """The documents of a dataset as they are decoded. `appended`: the id that was put behind every document;
    `left_out`: ids that stand for no text."""

    dataset: IndexedDataset
    appended: int | None
    left_out: np.ndarray


def count_text(
    corpus: Corpus, tokenizer: Tokenizer, windows: int, is_scored: IsScored, allow_trailing_bytes: bool
) -> TextBytes:
    """Bytes of the scored tokens of a corpus' first windows."""
    dataset = IndexedDataset(corpus.name, allow_trailing_bytes=allow_trailing_bytes)
    documents = documents_of(dataset, corpus, tokenizer)
    first = first_token(dataset, corpus.sequences[0])
    last = first + windows * corpus.seq_length + 1
    count = _count(documents, tokenizer, first, last, is_scored)
    factor = _proportion(documents, tokenizer, (corpus.sidecar or {}).get("text_bytes"))
    if factor is None:
        return TextBytes(count, "decoding")
    return TextBytes(count * factor, "text" if factor == 1 else "proportion", factor)


def documents_of(dataset: IndexedDataset, corpus: Corpus, tokenizer: Tokenizer) -> Documents:
    """Where nothing says how a dataset was made, its special tokens are held to be no text."""
    if corpus.sidecar is None:
        special = np.array([*tokenizer.special_tokens.values(), tokenizer.eod])
        return Documents(dataset, tokenizer.eod, special)
    appended = tokenizer.eod if corpus.sidecar.get("append_eod") else None
    return Documents(dataset, appended, np.empty(0, np.int64))


def _proportion(documents: Documents, tokenizer: Tokenizer, text_bytes: int | None) -> float | None:
    """Bytes of the original text for each that is decoded; None where nobody knows."""
    size = len(documents.dataset.tokens)
    if text_bytes is None or size > CHECKED_TOKENS:
        return None
    decoded = _count(documents, tokenizer, -1, size, lambda ids: np.ones(len(ids) - 1, bool))
    return text_bytes / decoded if decoded else None


def _count(documents: Documents, tokenizer: Tokenizer, first: int, last: int, is_scored: IsScored) -> float:
    """Bytes of the scored tokens among those at [first + 1, last) of the dataset."""
    total = 0
    for ends in _chunks(documents.dataset, first + 1, last):
        rows, signs = [], []
        for start, end in pairwise(ends):
            low, high = max(start, first + 1), min(end, last)
            for begin, stop in _runs(documents.dataset.tokens, low, high, is_scored):
                rows += [ids_of_text(documents, start, stop, end), ids_of_text(documents, start, begin, end)]
                signs += [1, -1]
        total += int((tokenizer.text_sizes(rows) * np.array(signs, np.int64)).sum()) if rows else 0
    return total


def _chunks(dataset: IndexedDataset, low: int, high: int) -> Iterator[list[int]]:
    """Where documents that hold the tokens [low, high) begin, some at a time, each list with an end."""
    bounds, count = dataset.document_indices, len(dataset.document_indices) - 1
    of_token = functools.partial(first_token, dataset)
    document = _last_at_most(count, low, lambda number: of_token(int(bounds[number])))
    while document < count and of_token(int(bounds[document])) < high:
        stop = min(document + DOCUMENTS_AT_ONCE, count)
        yield [of_token(int(bound)) for bound in bounds[document : stop + 1]]
        document = stop


def _last_at_most(count: int, token: int, start: Callable[[int], int]) -> int:
    """The last of `count` documents that starts at a token or before it."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if start(middle) <= token else (low, middle)
    return low


def first_token(dataset: IndexedDataset, sequence: int) -> int:
    """The place of a sequence's first token among all tokens."""
    if sequence == len(dataset):
        return len(dataset.tokens)
    return int(dataset.sequence_pointers[sequence]) // dataset.dtype.itemsize


def _runs(tokens: np.ndarray, low: int, high: int, is_scored: IsScored) -> Iterator[tuple[int, int]]:
    """Stretches of scored tokens in [low, high)."""
    if low >= high:
        return
    before = tokens[low - 1 : low] if low else np.array([-1])  # nothing stands before the first token
    scored = is_scored(np.concatenate([before.astype(np.int64), tokens[low:high].astype(np.int64)]))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], scored, [False]])))
    yield from zip((low + edges[::2]).tolist(), (low + edges[1::2]).tolist())


def ids_of_text(documents: Documents, start: int, stop: int, end: int) -> np.ndarray:
    """The ids of a document from its start up to `stop`, without those that stand for no text."""
    ids = np.asarray(documents.dataset.tokens[start:stop])
    if stop == end and len(ids) and ids[-1] == documents.appended:
        ids = ids[:-1]
    return ids[~np.isin(ids, documents.left_out)] if len(documents.left_out) else ids
