"""Which flag a mistyped word means. What is near to a flag by chance, as --min-length is to --seq-length,
means another thing, so that little is guessed."""

import difflib
from collections.abc import Collection

from megatron.elsewhere.topics import about

MOST = 3
"""So many nearest flags are named at most; more have too little in common."""
EMPTY = ("use", "enable", "disable", "no", "with", "num", "size", "path", "dir", "file", "type", "name")
"""Parts of names that alone say little of what is meant."""


def likely(word: str, ours: Collection[str], others: Collection[str] = ()) -> str:
    """The flag that a mistyped word means: one of `ours` or `others` but for a letter in eight, one of
    `ours` behind no-, use- or the like, or the one of `ours` whose parts it shortens or leaves out; empty
    where there is none."""
    name = word.lstrip("-").replace("_", "-")
    mine = {flag.lstrip("-").replace("_", "-"): flag for flag in ours}
    theirs = {one: flag for flag in others if _alike(name, one := flag.lstrip("-").replace("_", "-"))}
    known = theirs | mine
    near = difflib.get_close_matches(name, known, n=1, cutoff=min(0.87, 1 - 1 / max(len(name), 2) - 1e-9))
    if near and len(name) > 2:
        return known[near[0]]
    if _without_verb(name) in mine:
        return mine[_without_verb(name)]
    shorter = {mine[one] for one in mine if one.startswith(f"{name}-")}
    if len(shorter) != 1:
        shorter = {mine[one] for one in mine if _shortens(name.split("-"), one.split("-"))}
    return shorter.pop() if len(shorter) == 1 else ""


def way_out(word: str, ours: Collection[str]) -> str:
    """What is said of a word of which nothing is known: where flags are listed, and which are nearest by
    their names, or else of the same kind."""
    if len(word) == 2 and word[1:].isalpha():
        return "flags are whole words here; --help lists all flags"
    if near := nearest(word, ours):
        return f"--help lists all flags; nearest by name: {', '.join(near)}"
    listed = "--help lists all flags"
    listed += ", and what has no like there can be left out" if word.startswith("--") else ""
    kin = about(word, ours)
    return f"of this kind {'are' if kin[1:] else 'is'} {', '.join(kin)} here; {listed}" if kin else listed


def nearest(word: str, ours: Collection[str]) -> list[str]:
    """Up to MOST flags whose names have all telling parts of a word, of which two say what is meant, or else
    stand in it whole; empty where there are more."""
    parts = word.lstrip("-").replace("_", "-").lower().split("-")
    names = {flag: flag.lstrip("-").replace("_", "-").split("-") for flag in ours}
    telling = [part for part in parts if part not in EMPTY]
    found = [
        flag
        for flag, name in names.items()
        if len(telling) > 1 and all(any(one.startswith(part) for one in name) for part in telling)
    ]
    found = found or [flag for flag, name in names.items() if len(flag) > 8 and {*name} <= {*parts}]
    return found if len(found) <= MOST else []


def _alike(name: str, other: str) -> bool:
    """Whether every part of a name is near to that of another: what has a part more, as no-save has, means
    another thing, and three letters of four are chance."""
    pairs = list(zip(name.split("-"), other.split("-"), strict=False))
    same = name.count("-") == other.count("-") and len(name) > 4
    return same and all(difflib.SequenceMatcher(None, *pair).ratio() > 0.75 for pair in pairs)


def _without_verb(name: str) -> str:
    """A name without the word before it that turns on or off what the rest names; empty where it has none."""
    verb, _, rest = name.partition("-")
    return rest if verb in ("no", "use", "enable", "with") else ""


def _shortens(parts: list[str], of: list[str]) -> bool:
    """Whether parts are those of a longer name, cut short or without their vowels and the like; all of them,
    the first ones, or at least two in their order."""
    if len(parts) == len(of):
        return all(map(_abbreviates, parts, of))
    rest = iter(of)
    return parts == of[: len(parts)] or (len(parts) > 1 and all(part in rest for part in parts))


def _abbreviates(short: str, long: str) -> bool:
    letters = iter(long)
    begins = short[:1] == long[:1] and len(short) > 2
    return short == long or (begins and all(letter in letters for letter in short))
