"""What is said of words of other programs: which flag of ours they are, or a sentence."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from megatron.elsewhere import course, first, general, logs, machines, techniques, texts, tools
from megatron.elsewhere.answer import Answer
from megatron.elsewhere.names import WORDS

ANSWERS = (
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
    spelled = {flag.lstrip("-").replace("_", "-"): flag for flag in ours}
    names = ends(word)
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
    found = (f"--{flag}" for flag, others in WORDS.items() if name in others.split())
    return next((flag for flag in found if flag in ours), "")


def _sentence(name: str, ours: Collection[str], answers: Collection[Answer]) -> str:
    """What is said of a name, where the command has the flags that this needs."""
    return next((one.sentence for one in answers if _names(one, name) and flags_needed(one) <= {*ours}), "")


def _names(one: Answer, name: str) -> bool:
    return any(word == name or ("*" in word and fnmatchcase(name, word)) for word in one.words.split())


def flags_needed(one: Answer) -> set[str]:
    """The flags that a command must have for an answer to be true of it."""
    return {*re.findall(r"--[a-z0-9_-]+", f"{one.sentence} {one.needs}")} - {*OF_LAUNCHERS}
