"""Which flag a mistyped word means. What is near to a flag by chance, as --min-length is to --seq-length,
means another thing, so that little is guessed."""

from collections.abc import Collection


def likely(word: str, ours: Collection[str], others: Collection[str] = ()) -> str:
    """The flag that a mistyped word means, without a guess: one of `ours` or `others` but for a letter in
    eight, or the one of `ours` whose parts it shortens or leaves out; empty where there is none."""
    name = word.lstrip("-").replace("_", "-")
    known = {flag.lstrip("-").replace("_", "-"): flag for flag in (*others, *ours)}
    most = max(len(name) // 8, 1)
    near = [one for one in known if abs(len(one) - len(name)) <= most and _edits(name, one) <= most]
    if near:
        return known[min(near, key=lambda one: _edits(name, one))]
    if name.removeprefix("no-") in known:
        return known[name.removeprefix("no-")]
    mine = {flag.lstrip("-").replace("_", "-"): flag for flag in ours}
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


def _edits(one: str, other: str) -> int:
    """Letters to put in, take out, exchange, or swap with the next one, so that one word is the other."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, its in enumerate(other, 1):
            ways = [rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != its)]
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                ways.append(rows[-2][j - 2] + 1)
            row.append(min(ways))
        rows.append(row)
    return rows[-1][-1]
