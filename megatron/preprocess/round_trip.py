"""Whether documents come back from their tokens: what a tokenizer has no token for, it drops silently."""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from megatron.data.tokenizer_value import Tokenizer

LONGEST_TRIED = 200_000
"""Bytes of text: longer documents are not decoded, because that takes longer than to encode them."""
BEFORE, SHOWN = 10, 40
NOT_TRIED = ("NullTokenizer", "BertWordPieceLowerCase", "BertWordPieceCase")


class RoundTrip(NamedTuple):
    """Documents that were decoded again, how many of them had changed, and what the first one shows."""

    tried: int = 0
    changed: int = 0
    first: str = ""

    def __add__(self, other: "RoundTrip") -> "RoundTrip":  # type: ignore[override]
        return RoundTrip(self.tried + other.tried, self.changed + other.changed, self.first or other.first)


def try_round_trip(
    tokenizer: Tokenizer,
    documents: Iterable[tuple[int, str, np.ndarray]],
    place: Callable[[int], str],
) -> RoundTrip:
    """Decode documents, each given by number, text and ids. Numbers have no text to lose, and what BERT's
    tokenizers lose, they are meant to."""
    if tokenizer.kind in NOT_TRIED:
        return RoundTrip()
    outcome = RoundTrip()
    for number, text, ids in documents:
        if len(text.encode()) > LONGEST_TRIED:
            continue
        shown = first_change(text, tokenizer.decode(ids))
        told = shown and not outcome.first  # to find a place costs reading up to it
        outcome += RoundTrip(1, bool(shown), f"{place(number)}, where {shown}" if told else "")
    return outcome


def first_change(text: str, decoded: str) -> str:
    """Where a decoded text first differs; empty if it does not. A space that some tokenizers put before a
    text is no difference."""
    text, decoded = text.removeprefix(" "), decoded.removeprefix(" ")
    if text == decoded:
        return ""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, decoded))
    start = max(sum(1 for _ in same) - BEFORE, 0)
    return f"{text[start : start + SHOWN]!r} comes back as {decoded[start : start + SHOWN]!r}"


def describe_round_trip(outcome: RoundTrip) -> str:
    return (
        f"note: {outcome.changed:,} of the {outcome.tried:,} documents that were decoded again have changed: "
        f"the tokenizer drops or alters text. The first is {outcome.first}. A byte-level BPE with a token "
        "for every byte, without a normalizer and add_prefix_space, keeps all text: tools/train_tokenizer.py "
        "makes one"
    )
