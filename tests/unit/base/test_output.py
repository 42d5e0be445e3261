"""Whoever reads what a command prints may be gone, and its disk full."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from megatron.base.output import nobody_reads
from tests.support.commands import ROOT

FRAME = "from megatron.base.command import run_command\nimport os, sys\n"


def done(body: str, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    """A command whose work is `body`."""
    code = FRAME + f"def main():\n    {body}\nrun_command(main)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, check=False, **streams
    )


@pytest.fixture
def nobody() -> Callable[[], int]:
    """A function that opens a pipe from which nobody reads."""

    def make() -> int:
        read, write = os.pipe()
        os.close(read)
        return write

    return make


@pytest.mark.parametrize("body", ["print('a')", "print('a', flush=True)", "print('a' * 100_000)"])
def test_a_reader_that_has_enough_is_no_mistake(nobody: Callable[[], int], body: str) -> None:
    ended = done(body, stdout=nobody())
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("body", ["print('a')", "print('a' * 100_000)"])
def test_a_full_disk_behind_the_output_is_one_line(body: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = done(body, stdout=full)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"error: a file could not be written: No space left on device; make room")
    assert ended.stderr.count(b"\n") == 1


def test_another_pipe_that_breaks_is_told() -> None:
    ended = done(
        "os.write((lambda read, write: os.close(read) or write)(*os.pipe()), b'a')", stdout=subprocess.PIPE
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"error: a process that works for this one is gone: Broken pipe; start")


def test_an_output_that_is_closed_takes_everything() -> None:
    body = "from megatron.base.terminal import show; show('a'); print('b'); print('c', file=sys.stderr)"
    ended = done(body, preexec_fn=lambda: (os.close(1), os.close(2)))
    assert ended.returncode == 0


def test_a_reader_is_seen(nobody: Callable[[], int]) -> None:
    read, write = os.pipe()
    assert not nobody_reads(write) and nobody_reads(nobody())
    os.close(read)
    assert nobody_reads(write)


def test_a_line_that_is_refused_is_like_a_closed_terminal(nobody: Callable[[], int]) -> None:
    line = "from megatron.base.terminal import print_line; "
    asks = "import signal; signal.signal(signal.SIGHUP, lambda *_: os.write(2, b'saves\\n')); "
    twice = "print_line('a'); print_line('b'); os.write(2, b'ends\\n')"
    ended = done(asks + line + twice, stdout=nobody())
    assert ended.returncode == 0
    assert ended.stderr == b"the output takes no more lines: Broken pipe\nsaves\nends\n"
    ended = done(line + twice, stdout=nobody())
    assert (ended.returncode, ended.stderr) == (1, b""), "other work ends"
    goes_on = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    ignored = done(goes_on + line + twice, stdout=nobody())
    told = (
        b"the output takes no more lines: Broken pipe; the work goes on without them, as SIGHUP is ignored\n"
    )
    assert ignored.returncode == 0 and ignored.stderr == told + b"ends\n", "as nohup asks"


def test_a_full_disk_behind_both_outputs_ends_no_work_that_ignores_a_closed_terminal() -> None:
    """As of nohup, whose one file takes both."""
    body = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    body += "from megatron.base.terminal import print_line; print_line('a'); "
    body += "print('b', file=sys.stderr, flush=True); sys.exit(7)"
    code = FRAME + f"def main():\n    {body}\nrun_command(main)"
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=full, check=False)
    assert ended.returncode == 7


@pytest.mark.parametrize("rank", [None, "0"])
def test_a_mistake_that_nobody_can_be_told_keeps_its_status(rank: str | None) -> None:
    code = "from megatron.base.errors import UserError\n" + FRAME
    code += "def main():\n    raise UserError('a')\nrun_command(main, ranks=True)"
    more = {"RANK": rank} if rank else {}
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-c", code]
        ended = subprocess.run(words, cwd=ROOT, stderr=full, env=os.environ | more, check=False)
    assert ended.returncode == 2
