"""What a folder holds, as its owner sees it: without hidden files, and through links."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterator

from megatron.base.errors import UserError
from megatron.base.terminal import print_note

HIDDEN_FOLDERS = ("__MACOSX",)
"""Folders that file managers hide, beside those whose names begin with a dot."""

CLOSE = 0.75
"""How alike names are, of 1, of which one may be meant by the other."""

Judge = Callable[[str], str | None]
"""Of a path below a folder: "" takes it, a reason leaves it out and counts it, None leaves it out. A reason
is a name of such a file: "file of another kind"."""


def list_folder(
    folder: str | os.PathLike[str], judge: Judge, counts: Counter[str] | None = None
) -> list[str]:
    """The files below a folder that are not hidden and that `judge` takes, sorted; links are followed, and
    each file is taken once. Says what is left out, or adds it to `counts`, which `tell_left_out` says of many
    folders at once. UserError for links to nothing; OSError for a folder that cannot be read."""
    files: dict[str, str] = {}
    left_out: Counter[str] = Counter() if counts is None else counts
    broken = []
    for path, real, hidden in sorted(_walk(os.fspath(folder), os.path.realpath(folder), False)):
        reason = "hidden file" if hidden else judge(path)
        if reason:
            left_out[reason] += 1
        elif reason is None:
            continue
        elif not os.path.isfile(real):
            broken.append(f"{path}: leads to {real}, where there is no file; mend or remove it")
        elif files.setdefault(real, path) != path:
            left_out["file that another link leads to"] += 1
    if broken:
        raise UserError(*broken)
    if counts is None:
        tell_left_out(os.fspath(folder), left_out)
    return sorted(files.values())


def holds_file(folder: str | os.PathLike[str], fits: Callable[[str], bool]) -> bool:
    """Whether a file below a folder fits that is not hidden: the first one ends the search. A folder that
    cannot be read holds none."""
    try:
        walk = _walk(os.fspath(folder), os.path.realpath(folder), False)
        return any(fits(path) for path, _, hidden in walk if not hidden)
    except OSError:
        return False


def tell_left_out(place: str, counts: Counter[str]) -> None:
    """Say how many files are left out, and why."""
    if counts:
        print_note(f"{place}: {in_words(counts)}", error=True)


def nearest(path: str, ending: str = "") -> str | None:
    """What is there and most like a path that is not: of an ending, which is left out. Folders on the way may
    be misspelt, too. None where nothing is like it, or the path is there and what it holds is wrong."""
    if os.path.exists(f"{path}{ending}"):
        return None
    folder, name = os.path.split(path.rstrip("/"))
    if folder and not os.path.isdir(folder):
        folder = nearest(folder) or folder
    try:
        there = [one.removesuffix(ending) for one in os.listdir(folder or ".") if one.endswith(ending)]
    except OSError:
        return None
    found = difflib.get_close_matches(name, there, n=1, cutoff=CLOSE)
    return os.path.join(folder, found[0]) if found else None


def or_nearest(path: str) -> str:
    """The end of a message about a path that is not there: which one may be meant."""
    found = nearest(path)
    return f"; did you mean {found}?" if found else ""


def _walk(
    folder: str, real: str, hidden: bool, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, bool]]:
    """Path, real path and whether it is hidden, of all that is no folder. A link back to a folder above is
    not followed, and none is from a hidden folder."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        if not hidden:
            raise
        entries = []
    for entry in entries:
        inner_hidden = hidden or entry.name.startswith(".") or entry.name in HIDDEN_FOLDERS
        inner = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
        if not entry.is_dir(follow_symlinks=not inner_hidden):
            yield entry.path, inner, inner_hidden
        elif inner not in (*above, real):
            yield from _walk(entry.path, inner, inner_hidden, (*above, real))


def in_words(counts: Counter[str]) -> str:
    """How many files are left out, by reason: 1 hidden file left out; 2 files of another kind left out."""
    return "; ".join(
        f"{count:,} {what if count == 1 else what.replace('file', 'files', 1)} left out"
        for what, count in counts.items()
    )
