"""What is said of words of other programs: which flag of ours they are, or a sentence."""

import functools
import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from megatron.elsewhere import course, first, general, logs, machines, techniques, texts, tools
from megatron.elsewhere.answer import Answer
from megatron.elsewhere.names import WORDS

ANSWERS: tuple[Answer, ...] = (
    *first.ANSWERS,
    *texts.ANSWERS,
    *techniques.ANSWERS,
    *course.ANSWERS,
    *logs.ANSWERS,
    *general.ANSWERS,
    *machines.ANSWERS,
    *tools.ANSWERS,
)
OF_LAUNCHERS = ("--nproc-per-node", "--nnodes", "--to")
"""Flags in the answers that are of other commands than the one that is answered."""


def answer(word: str, ours: Collection[str]) -> str:
    """What is to be said of a word of another program: our flag for it, or a sentence; empty where nothing
    is known of it. Of words with dots, as in `--training.steps`, the last parts count, the more of them the
    better; of words with a program's name before them, as accelerate has them, the rest."""
    names = ends(word)
    spelled = {flag.lstrip("-").replace("_", "-"): flag for flag in ours if names[1:]}
    for name in names:
        here = (name != names[0] and spelled.get(name)) or _our_word(name, ours)
        if said := _sentence(name, ours, first.ANSWERS) or (here and f"here it is {here}"):
            return said
        if said := _sentence(name, ours, ANSWERS):
            return said
    return ""


def ends(word: str) -> list[str]:
    """The name in a word without its dashes, then without the part before its first dot, and so on; all
    without what accelerate sets before flags of others."""
    parts = word.lstrip("-").replace("_", "-").lower().split(".")
    names = [".".join(parts[begin:]) for begin in range(len(parts))]
    bare = names[-1].removeprefix("megatron-lm-").removeprefix("parallelism-config-")
    return list(dict.fromkeys([*names, bare]))


def _our_word(name: str, ours: Collection[str]) -> str:
    return next((flag for flag in _flags_called(name) if flag in ours), "")


@functools.cache
def _flags_called(name: str) -> tuple[str, ...]:
    return tuple(f"--{flag}" for flag, others in WORDS.items() if name in others.split())


def _sentence(name: str, ours: Collection[str], answers: tuple[Answer, ...]) -> str:
    """What is said of a name, where the command has the flags that this needs."""
    return next((one.sentence for one in _of_name(name, answers) if flags_needed(one) <= {*ours}), "")


@functools.cache
def _of_name(name: str, answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    return tuple(one for one in answers if any(_fits(name, word) for word in one.words.split()))


def _fits(name: str, word: str) -> bool:
    return name == word or ("*" in word and fnmatchcase(name, word))


@functools.cache
def flags_needed(one: Answer) -> frozenset[str]:
    """The flags that a command must have for an answer to be true of it."""
    return frozenset(re.findall(r"--[a-z0-9_-]+", f"{one.sentence} {one.needs}")) - {*OF_LAUNCHERS}
