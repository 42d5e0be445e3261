"""Flags that a command line gives several times, where only the last time counts."""

import re
from collections.abc import Mapping

from megatron.config.foreign import dashed, flag_name

LONGEST = 60


def given_again(argv: list[str], named: Mapping[str, str]) -> dict[str, list[str]]:
    """The words of each time, by the names of flags that are given several times and not alike. `named`:
    the flags' names by their spellings in dashes."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for word in argv:
        if name := named.get(dashed(flag_name(word))):
            current = found.setdefault(name, [])
            current.append(word)
        elif word.startswith("--"):
            current = []
        elif current:
            current[-1] += f" {word}"
    return {name: texts for name, texts in found.items() if len(set(map(_value, texts))) > 1}


def last_counts(texts: list[str]) -> str:
    """What is said where a later value takes the place of an earlier one."""
    return f"of {_shown(texts)} the last one counts"


def lost(texts: list[str], way: str) -> str:
    """What is wrong where both may be meant."""
    return f"{_shown(texts)}: only the last of them would count; {way}, or keep one"


def _value(text: str) -> str:
    """What stands behind a flag, be it by a space or by =."""
    return re.split("[= ]", text, maxsplit=1)[-1]


def _shown(texts: list[str]) -> str:
    return " and ".join(text if len(text) <= LONGEST else f"{text[:LONGEST]}..." for text in texts)
