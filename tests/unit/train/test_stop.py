"""Wishes to stop: the first signal is told at once and remembered, a second Ctrl-C raises, time runs out; and
what nobody reads any more ends no run before it has saved."""

from megatron.base.start import ROOT

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from megatron.train import stop
from megatron.train.stop import SIGNALS, stop_wishes


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as nohup leaves it to the tests, too
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    signal.signal(signal.SIGHUP, ignored)


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


def test_a_second_interrupt_stops_at_once(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt), stop_wishes(None, lambda: "") as wishes:
        os.kill(os.getpid(), signal.SIGINT)
        assert wishes()
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == "", "a rank that does not print the log says nothing"


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    """Which nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_wishes(None, lambda: "it stops") as wishes:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not wishes()
    assert signal.signal(signal.SIGHUP, signal.SIG_DFL) == signal.SIG_IGN


def test_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted from the start of the process, as the limit of a job is."""
    now = [1060.0]
    monkeypatch.setattr(stop, "BEGAN", 1000.0)
    monkeypatch.setattr(stop.time, "perf_counter", lambda: now[0])
    with stop_wishes(1.5, lambda: "") as wishes, stop_wishes(None, lambda: "") as never:
        for seconds, wanted in ((60, False), (89, False), (91, True)):
            now[0] = 1000.0 + seconds
            assert wishes() == wanted and not never()


RUN = """
import os, signal, sys, time
from megatron.base.terminal import print_line
from megatron.train.stop import stop_wishes
signal.signal(signal.SIGHUP, signal.{})
with stop_wishes(None, lambda: "it stops") as wishes:
    print_line("begun")
    {}
    for _ in range(3):
        print_line("heard by nobody")
sys.exit(10 + wishes())
"""


@pytest.mark.parametrize(
    ("hang_up", "then", "stops"),
    [
        ("SIG_DFL", "", True),
        ("SIG_IGN", "", False),
        ("SIG_DFL", "os.kill(os.getpid(), signal.SIGINT)", True),
    ],
    ids=["reader gone", "nohup", "Ctrl-C ends a tee, too"],
)
@pytest.mark.parametrize("errors_too", [False, True])
def test_a_pipe_that_nobody_reads_is_a_wish_to_stop(
    hang_up: str, then: str, stops: bool, errors_too: bool
) -> None:
    """As behind `| head` or `2>&1 | tee log`: an error would end the run without a checkpoint."""
    reader, writer = os.pipe()
    os.close(reader)
    run = [sys.executable, "-c", RUN.format(hang_up, then)]
    errors = writer if errors_too else subprocess.PIPE
    done = subprocess.run(run, cwd=ROOT, stdout=writer, stderr=errors, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == 10 + stops, done.stderr
    assert errors_too or done.stderr.count("it stops") == stops


def test_a_terminal_that_is_closed_is_a_wish_to_stop() -> None:
    """As where a connection breaks: what runs there gets SIGHUP, and errors from whatever it prints."""
    ours, theirs = pty.openpty()
    wait = "while not wishes(): time.sleep(0.01)"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format("SIG_DFL", wait)],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    assert os.read(ours, 100).startswith(b"begun")
    os.close(ours)
    assert process.wait(timeout=60) == 11
