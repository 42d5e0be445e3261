"""Flags that a command line gives several times, where only the last time counts."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from megatron.config.foreign import dashed, flag_name

LONGEST = 60


def given_again(
    argv: list[str], named: Mapping[str, str], read: Callable[[str, list[str]], Any]
) -> dict[str, list[str]]:
    """The words of each time, by the names of flags that are given several times and not alike. `named`:
    the flags' names by their spellings in dashes; `read`: the value of a flag from the words behind it, None
    where it is refused."""
    found: dict[str, list[list[str]]] = {}
    current: list[list[str]] = []
    for word in argv:
        if name := named.get(dashed(flag_name(word))):
            current = found.setdefault(name, [])
            current.append([word])
        elif word.startswith("--"):
            current = []
        elif current:
            current[-1].append(word)
    return {
        name: [" ".join(words) for words in times]
        for name, times in found.items()
        if len({_value(words, partial(read, name)) for words in times}) > 1
    }


def last_counts(texts: list[str]) -> str:
    """What is said where a later value takes the place of an earlier one."""
    return f"of {_shown(texts)} the last one counts"


def lost(texts: list[str], way: str) -> str:
    """What is wrong where both may be meant."""
    return f"{_shown(texts)}: only the last of them would count; {way}, or keep one"


def _value(words: list[str], read: Callable[[list[str]], Any]) -> Any:
    """What stands behind a flag, be it by a space or by =: the words where they are refused."""
    _, behind, first = words[0].partition("=")
    given = [first, *words[1:]] if behind else words[1:]
    value = read(given)
    return " ".join(given) if value is None else value


def _shown(texts: list[str]) -> str:
    return " and ".join(text if len(text) <= LONGEST else f"{text[:LONGEST]}..." for text in texts)
