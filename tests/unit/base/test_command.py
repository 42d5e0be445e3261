from megatron.base.command import run_command
from megatron.base.start import ROOT

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from megatron.base.errors import UserError
from megatron.base.files import writable_folder


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error, status, text",
    [
        (UserError("one is wrong", "two is wrong"), 2, "error: one is wrong\nerror: two is wrong\n"),
        (
            OSError(28, "No space left on device", "/data/x.bin"),
            2,
            "error: /data/x.bin: No space left on device; make room, or choose a place on another disk\n",
        ),
        (
            OSError(24, "Too many open files"),
            2,
            "error: a file could not be opened: Too many open files; raise the limit with ulimit -n\n",
        ),
        (
            OSError(24, "Too many open files", "/data/x.bin"),
            2,
            "error: /data/x.bin: Too many open files; raise the limit with ulimit -n\n",
        ),
        (
            OSError(2, "No usable temporary directory found in ['/tmp']"),
            2,
            "error: the system refused something: No usable temporary directory found in ['/tmp']\n",
        ),
        (
            OSError(28, "No space left on device"),
            2,
            "error: a file could not be written: No space left on device; make room, or choose a place on "
            "another disk\n",
        ),
        (
            OSError(12, "Cannot allocate memory"),
            2,
            "error: the memory does not suffice: Cannot allocate memory; use a smaller model or batch, "
            "or fewer workers\n",
        ),
        (
            MemoryError("Unable to allocate 8 EiB"),
            2,
            "error: the memory does not suffice: Unable to allocate 8 EiB; use a smaller model or batch, "
            "or fewer workers\n",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 EiB"),
            2,
            "error: the memory does not suffice: DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 8 EiB; use a smaller model or batch, or fewer workers\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_command_ends_with_a_message_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    text: str,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: fail(error))
    assert caught.value.code == status and capsys.readouterr().err == text


def test_a_bug_is_no_mistake_of_the_user() -> None:
    for error in (ValueError("a bug"), OSError("a bug without a file")):
        with pytest.raises(type(error), match="a bug"):
            run_command(lambda error=error: fail(error))
    run_command(lambda: None)


@pytest.mark.parametrize(
    "encoding, shown", [("ascii", b"\\xe9 \\u65e5"), ("latin-1", b"\xe9 \\u65e5"), ("utf-8", "é 日".encode())]
)
def test_what_the_output_cannot_encode_is_shown_by_its_number(encoding: str, shown: bytes) -> None:
    code = "from megatron.base.command import run_command\nrun_command(lambda: print('\\xe9 \\u65e5'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (shown, b"")


@pytest.mark.parametrize(
    ("rank", "ranks", "printed", "told"),
    [
        ("0", "False", b"done", b"note: this command works in one process"),
        ("1", "False", b"", b""),
        ("1", "True", b"done", b""),
    ],
)
def test_a_command_of_one_process_is_done_once_under_torchrun(
    rank: str, ranks: str, printed: bytes, told: bytes
) -> None:
    code = f"from megatron.base.command import run_command\nrun_command(lambda: print('done'), ranks={ranks})"
    launched = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": rank}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | launched, capture_output=True, check=True
    )
    assert done.stdout.strip() == printed and done.stderr.startswith(told) and bool(told) == bool(done.stderr)


def test_a_mistake_leaves_no_folder_that_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the command has made, and nothing that holds a file."""
    monkeypatch.delenv("RANK", raising=False)
    (tmp_path / "mine").mkdir()

    def main() -> None:
        for name in ("mine", "a/b/c", "full"):
            writable_folder(tmp_path / name)
        (tmp_path / "full" / "text").write_text("kept")
        raise UserError("the data is missing")

    with pytest.raises(SystemExit):
        run_command(main)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["full", "mine"]


def test_torchrun_is_told_the_mistake(tmp_path: Path) -> None:
    """Its own class reads the file as the cause of the failure, which its report shows."""
    code = (
        "from megatron.base.command import run_command\nfrom megatron.base.errors import UserError\n"
        "def main(): raise UserError('one is wrong', 'two is wrong')\nrun_command(main, ranks=True)"
    )
    path = tmp_path / "error.json"
    launched = {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_ERROR_FILE": str(path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | launched, check=False)
    failure = ProcessFailure(0, 1, done.returncode, str(path))
    report = ChildFailedError("pretrain_gpt.py", {0: failure}).format_msg()
    assert done.returncode == 2 and "traceback : error: one is wrong\n  error: two is wrong\n" in report


RANK = """
from megatron.base.command import run_command
import pathlib, signal, sys, time

def main():
    signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1], "saved").touch(), sys.exit(0)))
    pathlib.Path(sys.argv[1], "ready").touch()
    time.sleep(60)

run_command(main, ranks=True)
"""
LAUNCHER = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]], env=os.environ | {"TORCHELASTIC_RUN_ID": "1"})
"""


def test_a_rank_whose_launcher_is_killed_is_told_to_stop(tmp_path: Path) -> None:
    """It would else go on where nobody sees it."""

    def wait_for(name: str) -> None:
        end = time.monotonic() + 30
        while not (tmp_path / name).exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, RANK, str(tmp_path)], cwd=ROOT)
    wait_for("ready")
    launcher.kill()
    launcher.wait()
    wait_for("saved")
