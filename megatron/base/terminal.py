"""What people see: tables, and the progress of long work, as a bar with rate and estimate on a terminal
and as a plain line now and then elsewhere."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from megatron.base.output import to_nowhere

SECONDS_BETWEEN_LINES = 10.0
WIDTH_ELSEWHERE = 130


def show(*parts: RenderableType, elsewhere: int = WIDTH_ELSEWHERE) -> None:
    """Print tables and texts as wide as the terminal, or as a wide one where the output goes elsewhere.
    Brackets and colons in them are what they are: names come from the files and paths of the user."""
    width = None if sys.stdout.isatty() else elsewhere
    Console(width=width, markup=False, emoji=False).print(*parts, sep="\n")


def print_line(text: str) -> None:
    """Print a text and the end of its line at once and as one: another thread may print between two. Where
    the output takes no more, as who reads it is gone or its disk is full, what follows goes nowhere, and work
    that answers to a closed terminal answers to that: a run saves before it stops. One that ignores it, as
    nohup asks, goes on and says so once on standard error. OSError for other work."""
    try:
        print(f"{text}\n", end="", flush=True)
    except OSError as error:
        answer = signal.getsignal(signal.SIGHUP)
        if answer in (signal.SIG_DFL, None):
            raise
        to_nowhere(1)
        more = "; the work goes on without them, as SIGHUP is ignored" if answer is signal.SIG_IGN else ""
        try:
            os.write(2, f"the output takes no more lines: {error.strerror}{more}\n".encode())
        except OSError:  # most often the same file, and nothing that is written there may end the work
            to_nowhere(2)
        signal.raise_signal(signal.SIGHUP)


def stop_by_signals() -> None:
    """Let SIGTERM and a closed terminal do what Ctrl-C does, as what this process has started would outlive
    it; nohup's choice stays."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, signal.default_int_handler)


class Advance(Protocol):
    """Call with how much more is done, and a note to show."""

    def __call__(self, amount: float, note: str = "") -> None: ...


def print_note(text: str, error: bool = False) -> None:
    """What all ranks find alike, as in the same files, is told by the first alone. `error`: on standard
    error."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr if error else sys.stdout, flush=True)


@contextmanager
def progress(
    what: str, total: float, unit: str, scale: float = 1.0, start: float = 0.0, quiet: bool = False
) -> Iterator[Advance]:
    """Show the progress of `what` towards `total`; rates are printed in `unit`s of `scale`, e.g. ("MB",
    1e6)."""
    console = Console(stderr=True, markup=False, emoji=False)
    if quiet:
        yield lambda amount, note="": None
    elif console.is_terminal:
        yield from _bar(console, what, total, unit, scale, start)
    else:
        yield from _lines(what, total, unit, scale, start)


def _bar(
    console: Console, what: str, total: float, unit: str, scale: float, start: float
) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began = time.perf_counter()
    done = start
    note = TextColumn("{task.fields[note]}", markup=False)
    with Progress(
        *columns, note, console=console, transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task(what, total=total, completed=int(start), rate="", note="")

        def advance(amount: float, note: str = "") -> None:
            nonlocal done
            done += amount
            rate = (done - start) / scale / max(time.perf_counter() - began, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:,.1f} {unit}/s", note=note)

        yield advance


def _lines(what: str, total: float, unit: str, scale: float, start: float) -> Iterator[Advance]:
    began = last = time.perf_counter()
    done = start

    def advance(amount: float, note: str = "") -> None:
        nonlocal done, last
        done += amount
        now = time.perf_counter()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (done - start) / (now - began)
            left = f", {(total - done) / rate:,.0f} s left" if rate else ""
            share = f"{done / total:.0%}" if total else "?"
            print(
                f"{what}: {share}, {rate / scale:,.1f} {unit}/s{left} {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield advance
