"""Wishes to stop: a signal, or so many minutes. They are met after a step, when the run is whole."""

from megatron.base.start import BEGAN

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from megatron.base.output import let_go

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What Slurm, LSF, Grid Engine and others send before they kill a job, Ctrl-C, and a terminal that closes:
torchrun passes that on, also where nohup has started it."""


@contextmanager
def stop_wishes(minutes: float | None, acknowledge: Callable[[], str]) -> Iterator[Callable[[], bool]]:
    """A function that tells whether this rank wishes to stop. `minutes`: of this process, as what limits a
    job counts its start, too. The first signal is acknowledged at once, by a line on standard error; a second
    Ctrl-C stops at once. A hang-up that nohup has the run ignore stays ignored. Afterwards signals do what
    they did before."""
    end = math.inf if minutes is None else BEGAN + minutes * 60
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        let_go()  # Ctrl-C has ended a tee, too, and whose terminal is closed has none
        if not came and (line := acknowledge()):
            with suppress(OSError):  # and no print, which may be at work already
                os.write(2, f"\n{signal.Signals(number).name}: {line}\n".encode())
        came.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [number for number in SIGNALS if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, remember) for number in wanted}
    try:
        yield lambda: bool(came) or time.perf_counter() > end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
