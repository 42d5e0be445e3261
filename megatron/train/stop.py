"""Wishes to stop: a signal, or so many minutes. They are met after a step, when the run is whole."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm, LSF, Grid Engine and others send before they kill a job, and Ctrl-C."""


@contextmanager
def stop_wishes(
    minutes: float | None, acknowledge: Callable[[], str], since: float | None = None
) -> Iterator[Callable[[], bool]]:
    """A function that tells whether this rank wishes to stop. `since`: when the minutes have begun, by
    time.perf_counter; now, where it is not given. The first signal is acknowledged at once, by a
    line on standard error; a second Ctrl-C stops at once. Afterwards signals do what they did before."""
    begun = time.perf_counter() if since is None else since
    end = math.inf if minutes is None else begun + minutes * 60
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if not came and (line := acknowledge()):
            os.write(2, f"\n{signal.Signals(number).name}: {line}\n".encode())  # print may be at work already
        came.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, remember) for number in SIGNALS}
    try:
        yield lambda: bool(came) or time.perf_counter() > end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
