"""Mistakes of the user, and what the system refuses: one clear message each, no traceback."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

NAMELESS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS), "a file could not be written"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "a file could not be opened"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "a file could not be read or written"),
    errno.ENOMEM: "the memory does not suffice",
    errno.EAGAIN: "no process could be started",
    errno.EPIPE: "a process that works for this one is gone",
}
"""What the system refused, where its error comes without the name of a file."""
WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or choose a place on another disk"),
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "mend its permissions",
    errno.EISDIR: "name a file",
    errno.EFBIG: "raise the limit with ulimit -f",
    errno.EMFILE: "raise the limit with ulimit -n",
    errno.ENOMEM: "use a smaller model or batch, or fewer workers",
    errno.EAGAIN: "use fewer workers, or raise the limit with ulimit -u",
    errno.EPIPE: "start the command again, with fewer workers where memory is scarce",
}


class UserError(Exception):
    """One or more problems that the user can mend; every problem says what is wrong, where, and how to
    mend it."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class RanksLost(UserError):
    """Other ranks are gone. Whoever is left says so at once, as it may be stopped next."""


@contextmanager
def collect_problems(problems: list[str]) -> Iterator[None]:
    """Add the problems of a UserError to a list, so that several checks are told together."""
    try:
        yield
    except UserError as error:
        problems += error.problems


def system_problem(error: Exception) -> str | None:
    """What the system refused, in one line; None where the error is no such thing."""
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        error = OSError(errno.ENOMEM, str(error) or os.strerror(errno.ENOMEM))
    if not isinstance(error, OSError) or error.errno is None:
        return None
    what = error.filename or NAMELESS.get(error.errno, "the system refused something")
    way_out = f"; {WAYS_OUT[error.errno]}" if error.errno in WAYS_OUT else ""
    return f"{what}: {error.strerror}{way_out}"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch found no memory; which of its errors says so depends on the device."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
