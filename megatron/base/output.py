"""Standard output and error whose reader may be gone: a `head` that has its lines, a closed terminal, a full
disk."""

import os
import select
import sys


def nobody_reads(output: int) -> bool:
    """Whether who reads from a pipe or terminal, 1 or 2, is gone."""
    watched = select.poll()
    watched.register(output, 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in watched.poll(0))


def to_nowhere(output: int) -> None:
    """From here on nothing of an output is seen, and nothing refused."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)


def let_go() -> None:
    """Lines that nobody reads go nowhere: each would be refused, and a run is still to save."""
    for output in (1, 2):
        if nobody_reads(output):
            to_nowhere(output)


def flush() -> None:
    """Print what is left. What an output does not take goes nowhere, as its end is told already."""
    for number, output in ((1, sys.stdout), (2, sys.stderr)):
        try:
            output.flush()
        except OSError:
            to_nowhere(number)


def open_closed() -> None:
    """An output that is closed takes everything, as /dev/null does."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, it stays open
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, it stays open
