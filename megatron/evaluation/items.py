"""Questions made from held-out text alone, without a download: the last word of a passage that has had it
before, as in LAMBADA (arXiv 1606.06031), and the true continuation of a passage among others.

An item follows from the texts, the seed and its number, so checkpoints of other tokenizers and any number of
ranks get the same ones, and more items begin with the fewer ones. Passages are of words between white space.
"""

import bisect
import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.evaluation.held_out import Texts

CLOZE_WORDS = (24, 64)
"""At least and at most so many words of a passage stand before its last one."""
PASSAGE_WORDS, CONTINUATION_WORDS, OTHERS = 32, 16, 3
TRIES = 100
"""Draws for each item, before there are held to be no more."""
WORD = re.compile(r"(?<= )[^\W\d_]{4,}(?!\w)")
SPAN = re.compile(r"\S+")


Item = TypeVar("Item")
Attempt = Callable[[int], tuple[tuple[int, int], Item] | None]
"""From the number of a draw to where an item stands and what it is, None where there is none."""


class Cloze(NamedTuple):
    """A passage, and the word behind it with the space before it."""

    passage: str
    word: str


class Choice(NamedTuple):
    """A passage, and texts that might continue it, the true one first."""

    passage: str
    continuations: tuple[str, ...]


def cloze_items(texts: Texts, count: int, seed: int) -> list[Cloze]:
    """Passages whose last word, of four letters at least, stands in them before. UserError where there are
    none."""

    @functools.lru_cache(1024)
    def candidates(place: int) -> list[tuple[int, int]]:
        return [match.span() for match in WORD.finditer(texts.read(place))]

    def attempt(number: int) -> tuple[tuple[int, int], Cloze] | None:
        place = key(seed, "cloze document", number) % texts.size
        if not (found := candidates(place)):
            return None
        begin, end = found[key(seed, "cloze word", number) % len(found)]
        spans, text = _spans(texts, place), texts.read(place)
        before = bisect.bisect_left(spans, (begin, 0))
        if before < CLOZE_WORDS[0]:
            return None
        passage, word = text[spans[max(before - CLOZE_WORDS[1], 0)][0] : begin - 1], text[begin:end]
        if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", passage):
            return None
        return (place, begin), Cloze(passage, " " + word)

    return _collect(attempt, texts, count, "--cloze", "a passage whose last word it has had before")


def choice_items(texts: Texts, count: int, seed: int) -> list[Choice]:
    """Passages, their continuations, and three of as many words from other documents, behind the same white
    space. UserError where there are none."""

    def attempt(number: int) -> tuple[tuple[int, int], Choice] | None:
        place = key(seed, "choice document", number) % texts.size
        spans, text = _spans(texts, place), texts.read(place)
        room = len(spans) - PASSAGE_WORDS - CONTINUATION_WORDS
        if room < 0:
            return None
        first = key(seed, "choice place", number) % (room + 1)
        middle = first + PASSAGE_WORDS
        passage = text[spans[first][0] : spans[middle - 1][1]]
        between = text[spans[middle - 1][1] : spans[middle][0]]
        true, others = _words(texts, place, middle), list(_others(texts, place, (seed, number)))
        if len(others) < OTHERS or true in others:
            return None
        return (place, first), Choice(passage, tuple(between + one for one in (true, *others)))

    return _collect(attempt, texts, count, "--multiple-choice", "a passage and its continuation")


def _others(texts: Texts, place: int, keys: tuple[int, int]) -> Iterator[str]:
    """Different runs of words, each of another document."""
    found, used = set[str](), {place}
    for attempt in range(TRIES):
        other = key(keys[0], "other document", keys[1], attempt) % texts.size
        room = len(_spans(texts, other)) - CONTINUATION_WORDS
        if other in used or room < 0:
            continue
        words = _words(texts, other, key(keys[0], "other place", keys[1], attempt) % (room + 1))
        if words not in found:
            yield words
            found.add(words)
            used.add(other)
        if len(found) == OTHERS:
            return


def _words(texts: Texts, place: int, first: int) -> str:
    spans = _spans(texts, place)
    return texts.read(place)[spans[first][0] : spans[first + CONTINUATION_WORDS - 1][1]]


@functools.lru_cache(1024)
def _spans(texts: Texts, place: int) -> list[tuple[int, int]]:
    """Where the words of a text begin and end."""
    return [match.span() for match in SPAN.finditer(texts.read(place))]


def _collect(attempt: Attempt[Item], texts: Texts, count: int, flag: str, what: str) -> list[Item]:
    """Different items, in the order of their draws, as many as there are in so many draws."""
    found = dict[tuple[int, int], Item]()
    for number in range(TRIES * count if texts.size else 0):
        if (item := attempt(number)) is not None:
            found.setdefault(*item)
        if len(found) == count:
            break
    if not found:
        where = f"none of {texts.size:,} held-out documents gives {what}"
        raise UserError(f"{flag} {count}: {where}; use more documents or longer ones")
    return list(found.values())
