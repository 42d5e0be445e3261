"""Which flag a mistyped word means. What is near to a flag by chance, as --min-length is to --seq-length,
means another thing, so that little is guessed."""

import difflib
from collections.abc import Collection


def likely(word: str, ours: Collection[str], others: Collection[str] = ()) -> str:
    """The flag that a mistyped word means: one of `ours` or `others` but for a letter in eight or a no-
    before it, or the one of `ours` whose parts it shortens or leaves out; empty where there is none."""
    name = word.lstrip("-").replace("_", "-")
    known = {flag.lstrip("-").replace("_", "-"): flag for flag in (*others, *ours)}
    if near := difflib.get_close_matches(
        name, known, n=1, cutoff=min(0.87, 1 - 1 / max(len(name), 2) - 1e-9)
    ):
        return known[near[0]]
    if name.removeprefix("no-") in known:
        return known[name.removeprefix("no-")]
    mine = {flag.lstrip("-").replace("_", "-"): flag for flag in ours}
    shorter = {mine[one] for one in mine if one.startswith(f"{name}-")}
    if len(shorter) != 1:
        shorter = {mine[one] for one in mine if _shortens(name.split("-"), one.split("-"))}
    return shorter.pop() if len(shorter) == 1 else ""


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
