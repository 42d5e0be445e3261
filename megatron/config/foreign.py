"""What a command does about the flags of another Megatron that are not its own: it takes some as its own,
says of some that they do nothing, and refuses the others.

A table of them has their names in dashes, or patterns such as `moe-*`, and a Foreign for each.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from megatron.config.literal import stray
from megatron.config.values import converts, flatten
from megatron.elsewhere.answers import answer, ends
from megatron.elsewhere.guess import likely, way_out

ANY = "*"
Translation = Callable[[list[str], Mapping[str, Any]], dict[str, list[str]]]
"""From the values of a flag, and all that is given, to values of our own flags by their names."""


class Foreign(NamedTuple):
    """A flag of another Megatron. `accepted`: the values that change nothing, and nothing is said of them;
    None: any, and the user is told that it does nothing. `why` is told, too. `quiet`: values of which
    nothing is said. `needs`: without one of these flags it is never refused (ours are named as fields).
    `moot`: a switch of ours, named as a field, beside which it says nothing new. `ours`: our words for it,
    and `off` where its value is false. `beside`: from all that is given, what is to be said, too; empty for
    nothing."""

    accepted: tuple[str, ...] | None
    why: str
    quiet: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    moot: str = ""
    ours: Translation | None = None
    off: Translation | None = None
    beside: Callable[[Mapping[str, Any]], str] | None = None


BY_LAUNCHERS = {"local-rank": Foreign(None, "a rank is known by its environment", quiet=(ANY,))}
"""What launchers such as torch.distributed.launch and deepspeed write behind every script."""


class Given(NamedTuple):
    """A flag of another Megatron as it is given."""

    spelling: str
    values: list[str]
    entry: Foreign

    @property
    def name(self) -> str:
        return dashed(self.spelling)

    @property
    def flag(self) -> str:
        return f"--{self.spelling}"

    @property
    def words(self) -> str:
        return " ".join([self.flag, *self.values])

    def is_one_of(self, values: Iterable[str]) -> bool:
        return any(_same(" ".join(self.values), value) for value in (*values, "false"))


def is_our(name: str, *values: str) -> Translation:
    """Another word for a flag of ours: with the same value, or with these."""
    return lambda given, _: {name: list(values) or given}


def dashed(name: str) -> str:
    """The name of a flag as tables have it."""
    return name.removeprefix("--").replace("_", "-")


def flag_name(word: str) -> str:
    """The name in a word of a command line that is a flag; empty where it is none."""
    return word.split("=")[0].removeprefix("--") if word.startswith("--") else ""


def spelled(word: str, ours: Mapping[str, str]) -> str:
    """A word of a command line with our own spelling of its flag, which may be given with _ for - and the
    reverse. `ours`: spellings by their names in dashes."""
    name = flag_name(word)
    return ours[dashed(name)] + word[len(name) + 2 :] if dashed(name) in ours else word


def negated(name: str, switches: Collection[str]) -> str:
    """The switch, by its name in dashes, that a name such as no-swiglu or disable-swiglu means to turn off;
    empty where there is none."""
    switch = dashed(name).removeprefix("no-")
    switch = switch if switch in switches else switch.removeprefix("disable-")
    return switch if dashed(name) != switch and switch in switches else ""


def unknown_word(
    text: str, ours: Collection[str], foreign: Mapping[str, Foreign], switches: Collection[str]
) -> str:
    """What is said of a word that is not known: what it is called here, or which known flag is nearest,
    unless that is one that may be refused."""
    if misplaced := _no_flag(text, ours):
        return misplaced
    word = text.split("=")[0]
    if os.path.isfile(text):  # as a glob of the shell finds it
        return f"{text} is read as a flag; give the file as ./{text}"
    if switch := negated(word, switches):
        return f"unknown flag {word}; to turn it off, give --{switch} false"
    if said := answer(word, ours) or _of_another(word, foreign):
        return f"unknown flag {word}; {said}"
    if other := _opposite(word, foreign):
        why = foreign[other].why if foreign[other].ours is None else "what it turns off is off"
        way = why if "leave" in why else f"{why}; leave it out"
        return f"unknown flag {word}, the opposite of --{other}: {way}"
    others = ["--" + name for name, one in foreign.items() if "*" not in name and one.accepted is None]
    if meant := likely(word, ours, others):
        return f"unknown flag {word}; did you mean {meant}?"
    return f"unknown flag {word}; {way_out(word, ours)}"


def _no_flag(text: str, ours: Collection[str]) -> str:
    """What is said of a word without dashes that stands where no value is expected; "" of a flag."""
    name = text.split("=")[0].lstrip("+~")
    places = f"{text!r} stands where no value is expected; "
    of_us = f"--{dashed(name.rpartition('.')[2])}" in ours
    if name != text and not text.startswith("-") and not of_us and (said := answer(name, ours)):
        return f"{places}flags begin with --; {said}"
    if found := stray(text):
        return found
    if text.startswith("-") and not converts(text, float):
        return ""
    is_yaml = text.endswith((".yaml", ".yml")) and "--config" in ours
    return places + ("give it by --config" if is_yaml else "flags begin with --")


def _opposite(word: str, foreign: Mapping[str, Foreign]) -> str:
    """The flag of another Megatron that a word such as --no-NAME, --enable-NAME or --section.NAME denies;
    empty where there is none."""
    for end in ends(word):
        prefix, core = re.fullmatch(r"(no-|disable-|enable-|)(.*)", end, re.DOTALL).groups()  # type: ignore
        denied = ("", "enable-", "use-") if prefix in ("no-", "disable-") else ("no-", "disable-")
        names = (one + bare for one in denied for bare in (core, core.removeprefix("use-")))
        if found := next((name for name in names if name in foreign), ""):
            return found
    return ""


def _of_another(word: str, foreign: Mapping[str, Foreign]) -> str:
    """What is said of a flag of another Megatron that stands behind a section, as in --model.mtp-num-layers,
    or in capitals; empty where it is none."""
    name, *inner = ends(word)
    for end in (*inner, name.replace(".", "-")):
        if one := find(foreign, end):
            way = "" if one.accepted is not None else "; leave it out"
            return f"Megatron's --{end} is read, without the section" if one.ours else one.why + way
    return ""


def find(foreign: Mapping[str, Foreign], name: str, switches: Collection[str] = ()) -> Foreign | None:
    """The entry of a flag, by its name or by the first pattern that fits; by a pattern none where the name
    turns off one of our `switches`, as that is no flag that does nothing."""
    name = dashed(name)
    if name in foreign:
        return foreign[name]
    if negated(name, switches):
        return None
    fits = (entry for key, entry in foreign.items() if "*" in key and fnmatch.fnmatchcase(name, key))
    return next(fits, None)


def translate(raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> tuple[dict[str, Any], list[str]]:
    """What is given with the flags of our own that others stand for, and where the two contradict."""
    ours, problems = dict(raw), []
    for one in _given(raw, foreign):
        for name, values in _our_values(one, raw).items():
            mine = [str(value) for value in flatten(ours.setdefault(name, values))]
            if len(mine) != len(values) or not all(map(_same, mine, values)):
                meant, other = (our_words(name, words) for words in (values, mine))
                problems.append(f"{one.words} is {meant} here, and {other} is given; give only one of them")
    return ours, problems


def foreign_problems(raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> list[str]:
    """One line for each reason to refuse some of the flags."""
    given = _given(raw, foreign)
    reasons = _by_reason(one for one in given if _refused(one, given, raw) and not _moot(one, raw))
    return [f"{', '.join(flags)} {_is(flags)} refused: {why}" for why, flags in reasons.items()]


def foreign_notes(raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> list[str]:
    """What is done about the flags that are not refused: a line for those that are taken as our own, one for
    those that do nothing, and what is to be said beside them."""
    given = _given(raw, foreign)
    taken = [f"{one.words} as {words}" for one in given if (words := _in_our_words(one, raw))]
    idle = [one for one in given if not (_quiet(one) or _moot(one, raw) or _refused(one, given, raw))]
    beside = [one.entry.beside(raw) for one in given if one.entry.beside]
    notes = [f"read {', '.join(taken)}"] if taken else []
    notes += dict.fromkeys(filter(None, beside))
    reasons = [f"{', '.join(flags)} ({why})" for why, flags in _by_reason(idle, "flag").items()]
    return [*notes, f"not used here: {'; '.join(reasons)}"] if reasons else notes


def our_words(name: str, values: list[str]) -> str:
    """A flag of ours by its field's name, as it is written."""
    return " ".join(["--" + dashed(name), *(values if values != ["true"] else [])])


def _given(raw: Mapping[str, Any], foreign: Mapping[str, Foreign]) -> list[Given]:
    return [
        Given(spelling, [str(value) for value in flatten(values)], entry)
        for key, values in raw.items()
        if (spelling := key.removeprefix("foreign-")) != key and (entry := find(foreign, spelling))
    ]


def _refused(one: Given, given: list[Given], raw: Mapping[str, Any]) -> bool:
    entry = one.entry
    if entry.accepted is None or one.is_one_of(entry.accepted):
        return False
    needed = [other for other in given if other.name in entry.needs]
    on = any(not other.is_one_of(other.entry.accepted or ()) for other in needed)
    return not entry.needs or on or any(name in raw for name in entry.needs)


def _moot(one: Given, raw: Mapping[str, Any]) -> bool:
    return any(str(value).lower() == "true" for value in flatten(raw.get(one.entry.moot, "false")))


def _quiet(one: Given) -> bool:
    said_nothing_of = (*one.entry.quiet, *(one.entry.accepted or ()))
    return ANY in said_nothing_of or one.entry.ours is not None or one.is_one_of(said_nothing_of)


def _our_values(one: Given, raw: Mapping[str, Any]) -> dict[str, list[str]]:
    meant = one.entry.off if one.is_one_of(()) else one.entry.ours
    return meant(one.values, raw) if meant else {}


def _in_our_words(one: Given, raw: Mapping[str, Any]) -> str:
    return " ".join(our_words(name, values) for name, values in _our_values(one, raw).items())


def _by_reason(given: Iterable[Given], shown: str = "words") -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for one in given:
        reasons.setdefault(one.entry.why, []).append(getattr(one, shown))
    return reasons


def _is(flags: list[str]) -> str:
    return "is" if len(flags) == 1 else "are"


def _same(text: str, other: str) -> bool:
    """Whether two values are the same number, or the same text in whatever case."""
    try:
        return float(text) == float(other)
    except ValueError:
        return text.lower() == other.lower()
