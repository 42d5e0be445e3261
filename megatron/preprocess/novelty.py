"""What is new in a text: code points, and pairs of kinds of code points side by side, that no verified text
of this process had.

A kind is a Unicode category in a block of 256 code points; the large scripts are one block each. Tokenizers
cut and normalize texts by such kinds. ASCII by itself is never new: every text has it.
"""

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LETTERS, MARKS, NUMBERS = ("Lu", "Ll", "Lt", "Lm", "Lo"), ("Mn", "Mc", "Me"), ("Nd", "Nl", "No")
SIGNS = ("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So")
CATEGORIES = (*LETTERS, *MARKS, *NUMBERS, *SIGNS, "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn")
CODE_POINTS = 0x110000
ASCII = np.arange(128)
KIND_BITS = 13
UNMET = -1
AROUND = 24
"""Code points on each side that are verified with a new one."""


@dataclass
class Memory:
    """What a process has met and verified. A feature is a code point, or CODE_POINTS and above a pair of
    kinds. `budget`: bytes of new text that the process may still verify."""

    kinds: np.ndarray
    verified: np.ndarray
    budget: int


def new_memory(budget: int) -> Memory:
    """Nothing met but ASCII."""
    memory = Memory(
        np.full(CODE_POINTS, UNMET, np.int32), np.zeros(CODE_POINTS + (1 << 2 * KIND_BITS), bool), budget
    )
    _meet(ASCII, memory)
    kinds = np.unique(memory.kinds[ASCII])
    memory.verified[ASCII] = True
    memory.verified[_pairs(np.repeat(kinds, len(kinds)), np.tile(kinds, len(kinds)))] = True
    return memory


class Passage(NamedTuple):
    """A part of the texts with something new in it: the number of the text where it begins, the features."""

    text: str
    number: int
    features: np.ndarray


def find_new(texts: list[str], memory: Memory) -> list[Passage]:
    """The passages around everything new, in the order of the texts, which are taken as one with line ends
    between them."""
    strange = [number for number, text in enumerate(texts) if not text.isascii()]
    if not strange:
        return []
    whole = "\n".join(["", *(texts[number] for number in strange), ""])
    features, places = _features(np.frombuffer(whole.encode("utf-32-le"), np.uint32), memory)
    starts = np.cumsum([1, *(len(texts[number]) + 1 for number in strange)])[:-1]
    passages = []
    for group in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > 2 * AROUND) + 1):
        if len(group):
            first, last = int(places[group[0]]), int(places[group[-1]])
            number = strange[int(np.searchsorted(starts, first, "right")) - 1]
            text = whole[max(first - AROUND, 0) : last + AROUND + 1]
            passages.append(Passage(text, number, features[group]))
    return passages


def describe(features: set[int]) -> str:
    """How many code points and pairs, and the first code points, in words."""
    points = sorted(feature for feature in features if feature < CODE_POINTS)
    shown = " ".join(f"U+{point:04X}" for point in points[:3])
    names = f" ({shown}{' ...' if len(points) > 3 else ''})" if points else ""
    return f"{len(points):,} code points{names} and {len(features) - len(points):,} pairs of kinds of them"


def _features(codes: np.ndarray, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """New features and the places where they first occur, in the order of the places."""
    near = codes >= 128
    near[:-1] |= near[1:]
    near[1:] |= codes[:-1] >= 128
    places = np.flatnonzero(near)
    strange = codes[places].astype(np.intp)
    kinds = memory.kinds.take(strange)
    if (kinds == UNMET).any():
        _meet(strange[kinds == UNMET], memory)
        kinds = memory.kinds.take(strange)
    found = [_new(one, places, memory) for one in (strange, _pairs(kinds[:-1], kinds[1:]))]
    features, first = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(first, kind="stable")
    return features[order], first[order]


def _pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The features of kinds side by side."""
    return (left.astype(np.intp) << KIND_BITS) + right + CODE_POINTS


def _new(features: np.ndarray, places: np.ndarray, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """The features that are not verified, once each, and their first places."""
    new = np.flatnonzero(~memory.verified.take(features))
    values, first = np.unique(features[new], return_index=True)
    return values, places[new[first]]


def _meet(codes: np.ndarray, memory: Memory) -> None:
    """Find out the kinds of code points that were not met before."""
    for code in np.unique(codes).tolist():
        memory.kinds[code] = _block(code) << 5 | CATEGORIES.index(unicodedata.category(chr(code)))


def _block(code: int) -> int:
    """A number below 256 for code points that belong together."""
    block = code >> 8
    if 0x34 <= block < 0xA0 or 0x200 <= block < 0x400:
        return 0x34  # Han
    if 0xAC <= block < 0xD8:
        return 0xAC  # Hangul
    if code < 0x10000:
        return block
    return 0x35 + min((code - 0x10000) >> 10, 64)  # numbers that Han leaves free
