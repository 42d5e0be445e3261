"""Signals that stop a table, and processes that are asked to."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from megatron.base.terminal import stop_by_signals
from megatron.reproduce.work import Workers


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_stops_unless_it_is_ignored(ignored: bool) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        stop_by_signals()
        assert signal.getsignal(signal.SIGTERM) == signal.default_int_handler
        expected = signal.SIG_IGN if ignored else signal.default_int_handler
        assert signal.getsignal(signal.SIGHUP) == expected
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_stopping_waits_until_processes_have_ended(tmp_path: Path) -> None:
    workers, told = Workers(), list[str]()
    begun = tmp_path / "begun"
    words = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)"
    command = [sys.executable, "-c", words]
    thread = threading.Thread(target=lambda: told.append(workers.call(command, tmp_path / "log")))
    thread.start()
    while not begun.exists():
        time.sleep(0.01)
    (process,) = workers.processes
    workers.stop()
    assert process.returncode in (-signal.SIGINT, -signal.SIGTERM)
    thread.join()
    assert f"status {process.returncode}" in told[0] and workers.call(command, tmp_path / "log") == "stopped"
