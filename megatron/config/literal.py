"""Texts of flags that a shell would have read otherwise, or that name no file of this machine. They are
refused: a folder named ~, s3: or None would be made of them, and nobody looks for a run there."""

import re
from collections.abc import Collection, Iterable, Mapping

LEFT_OUT = "leave it out, or in a YAML file the value empty"
"""How a flag has no value, also one that an included file gives."""
LITERAL: Mapping[str, str] = {
    r"(?:.*=)?~[\w.-]*/.*": "~ is a home folder at the start alone, and of a user of this machine; write the "
    "whole path",
    r".*\$\{[^{}]+\}.*|(?:.*/)?\$[A-Za-z_]\w*(?:/.*)?": "names a variable that is not in the "
    "environment, or not at the start; export it, or write the path itself",
    r".*(?:\{\{.+\}\}|%\(\w+\)s).*": "has the place of a variable in a template, and none is filled in "
    "here; write the path itself",
    r"(?:.*=)?(?i:none|null|true|false)": f"is a word for nothing or a switch; {LEFT_OUT}, or write ./ "
    "before such a name",
    r"(?:.*=)?[A-Za-z]:\\.*|(?:.*[\w.])?\\[\w.].*": "has \\ between its folders, as on Windows; write /, "
    "and in WSL /mnt/c/ for C:\\",
    r"(?:.*=)?[A-Za-z][A-Za-z0-9+.-]+://.*": "is an address, and files of this machine alone are read and "
    "written; mount or copy what lies there, and name its path",
}
"""What is said of texts, by patterns of them."""
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
"""What word processors and web pages make of hyphens."""
PATHS = ("FOLDER", "FILE", "PREFIX", "PATH", "TASK")
"""How that begins which values of flags are called in --help where they are paths; NAME= may stand before."""


def is_path(metavar: str) -> bool:
    """Whether values that --help calls so are paths."""
    return metavar.removeprefix("NAME=").startswith(PATHS)


def literal_problem(value: str) -> str:
    """What is wrong with a path that would be taken literally and is hardly meant so; "" where nothing is."""
    return next((words for pattern, words in LITERAL.items() if re.fullmatch(pattern, value, re.DOTALL)), "")


def is_nothing(value: str) -> bool:
    """Whether a value is a word for none."""
    return value.strip().lower() in ("none", "null")


def is_variable(value: str) -> bool:
    """Whether a value holds a variable of a shell or the place of one in a template."""
    return bool(re.search(r"\$\{|^\$[A-Za-z_]|\{\{.+\}\}|%\(\w+\)s", value))


def stray(word: str) -> str:
    """What is to be said of a word of a command line that stands where none is expected; "" for nothing."""
    if not word.strip(" \\"):
        return (
            f"the word {word!r} says nothing: at the end of a line no space may follow the \\, and a "
            "variable in quotes may be empty"
        )
    if word.startswith("@"):
        return f"{word} is not read: of training, flags stand in a YAML file, which --config names"
    if found := re.fullmatch(r"[+~]*(?:[A-Za-z]\w*\.)*([A-Za-z]\w*)=(.*)", word, re.DOTALL):
        return f"write {word} as --{found[1].replace('_', '-')} {found[2]}".rstrip()
    if re.match(r"--\w[\w-]*\s", word):
        return f"{word!r} is one word; give the flag and its value as two"
    return ""


def odd_words(words: Iterable[str], flags: Collection[str]) -> list[str]:
    """What is wrong with words of a command line that went through another program than a shell: lines of
    Windows, and dashes in the place of hyphens. `flags`: names of flags in dashes."""
    words = list(words)
    problems = []
    if found := [word for word in words if word.endswith("\r")]:
        more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        problems.append(
            f"the word {found[0]!r}{more} of the command ends in a carriage return, as the lines of a script "
            r"that was saved on Windows do; convert it: sed -i 's/\r$//' SCRIPT"
        )
    for word in words:
        name = word.split("=")[0].lstrip(DASHES + "-").replace("_", "-")
        if word[:1] in tuple(DASHES) and name in flags:
            problems.append(f"{word} begins with {word[0]!r}, which is no hyphen; write --{name}")
    return problems
