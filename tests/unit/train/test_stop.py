"""Wishes to stop: the first signal is told at once and remembered, a second Ctrl-C raises, time runs out."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from megatron.train import stop
from megatron.train.stop import SIGNALS, stop_wishes
from tests.support.commands import ROOT


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_alone_is_acknowledged(number: signal.Signals, capfd: pytest.CaptureFixture) -> None:
    said = iter(["it stops", "never said"])
    with stop_wishes(None, lambda: next(said)) as wishes:
        assert not wishes()
        os.kill(os.getpid(), number)
        assert wishes() and wishes()
        os.kill(os.getpid(), signal.SIGTERM)
        assert wishes()
    assert capfd.readouterr().err == f"\n{number.name}: it stops\n"


def test_a_terminal_that_is_closed_refuses_no_line(capfd: pytest.CaptureFixture) -> None:
    """The run is still to save, and says so where it can."""
    code = (
        "import os, pty, signal, sys\n"
        "from megatron.train.stop import stop_wishes\n"
        "mine, terminal = pty.openpty()\n"
        "log = os.dup(1)\n"
        "os.dup2(terminal, 1); os.dup2(terminal, 2); os.close(terminal)\n"
        "with stop_wishes(None, lambda: 'it stops') as wishes:\n"
        "    os.close(mine)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('a line', flush=True)\n"
        "    os.write(log, b'stops' if wishes() else b'goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"stops", b"")


def test_what_nohup_asks_for_stays() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_wishes(None, lambda: "") as wishes:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not wishes()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_stops_at_once(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt), stop_wishes(None, lambda: "") as wishes:
        os.kill(os.getpid(), signal.SIGINT)
        assert wishes()
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == "", "a rank that does not print the log says nothing"


def test_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(stop.time, "perf_counter", lambda: now[0])
    with stop_wishes(1.5, lambda: "") as wishes, stop_wishes(None, lambda: "") as never:
        for seconds, wanted in ((0, False), (89, False), (91, True)):
            now[0] = 1000.0 + seconds
            assert wishes() == wanted and not never()
