"""A tiny table as a user does it: two rows and two seeds, stops, copies of records, failures, prices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "unit" / "reproduce" / "tiny.yaml"


def words(folder: Path, *flags: str, table: Path = TINY) -> list[str]:
    tool = [sys.executable, str(ROOT / "tools" / "reproduce_table.py"), "--table", str(table)]
    return [*tool, "--folder", str(folder), "--seeds", "1-2", "--workers", "2", *flags]


def run(folder: Path, *flags: str, table: Path = TINY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(folder, *flags, table=table), capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("table")
    done = run(folder)
    assert not done.returncode, done.stdout + done.stderr
    assert "dropped is" in done.stdout and "2 seeds." in done.stdout
    return folder


def test_a_table_leaves_records_and_pages_and_no_checkpoints(finished: Path) -> None:
    records = [json.loads(path.read_text()) for path in (finished / "results").iterdir()]
    assert len(records) == 5  # two rows of two seeds, and another rate of the first
    assert {one["seed"] for one in records} == {1, 2}
    for one in records:
        assert one["tokens"]["raw"] >= one["tokens"]["effective"] > 0 and one["cpu_seconds"] > 0
        assert 4 < one["quality"]["loss"] < 7 and one["flops"] > 0 and one["machine"]
    assert not list((finished / "runs").iterdir())
    text = (finished / "tiny.md").read_text()
    assert "| dropped | 263 | 43.7 | 2 |" in text and "263" in (finished / "tiny.html").read_text()
    assert "(tiny_rows.png)" in text and (finished / "tiny_rows.png").read_bytes().startswith(b"\x89PNG")


def test_records_alone_are_enough_elsewhere(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "results", tmp_path / "results")
    done = run(tmp_path)
    assert not done.returncode and "to be done" not in done.stdout + done.stderr
    assert "| dropped | 263 | 43.7 | 2 |" in (tmp_path / "tiny.md").read_text()
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_is_clean_and_the_same_command_goes_on(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "results", tmp_path / "results")
    missing = next(path for path in (tmp_path / "results").iterdir() if "random_ltd" in path.name)
    missing.unlink()
    process = subprocess.Popen(words(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/output.txt")) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopped; the same command goes on" in told
    assert "Traceback" not in told and not missing.exists()
    assert not _processes(str(tmp_path))
    done = run(tmp_path)
    assert not done.returncode and "1 of 4 runs are to be done" in done.stdout + done.stderr
    assert missing.is_file()


def test_a_run_that_stopped_on_the_way_is_not_finished(finished: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiny.yaml"
    words_of_it = 'against: [baseline], flags: [--exit-interval, "1"],'
    table.write_text(TINY.read_text().replace("against: [baseline],", words_of_it))
    shutil.copytree(finished / "results", tmp_path / "results")
    done = run(tmp_path, table=table)
    assert done.returncode == 2 and "stopped at iteration 1 of" in done.stderr, done.stderr
    assert len(list((tmp_path / "results").iterdir())) == len(list((finished / "results").iterdir()))


def _processes(mark: str) -> list[str]:
    """Commands of living processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in command and path.parent.name != str(os.getpid()):
            found.append(command)
    return found


def test_a_failing_run_is_told_with_its_log_and_the_others_go_on(finished: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiny.yaml"
    text = TINY.read_text().replace(
        "against: [baseline],", "against: [baseline], flags: [--exit-interval, x],"
    )
    table.write_text(text)
    shutil.copytree(finished / "results", tmp_path / "results")
    done = run(tmp_path, table=table)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--exit-interval" in done.stderr


def test_a_run_that_fails_on_the_way(finished: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiny.yaml"
    words_of_it = (
        "against: [baseline], flags: [--tokenizer-model, nowhere, --tokenizer-type, HuggingFaceTokenizer],"
    )
    table.write_text(TINY.read_text().replace("against: [baseline],", words_of_it))
    shutil.copytree(finished / "results", tmp_path / "results")
    done = run(tmp_path, table=table)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "output.txt" in done.stderr and "2 runs failed; the same command goes on" in done.stderr
    assert "no seed of both has finished" in done.stdout + done.stderr


def test_a_rate_that_diverges_is_told_with_the_way_to_leave_it_out(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "results", tmp_path / "results")
    done = run(tmp_path, "--rates", "1", "1e15")
    assert done.returncode == 2 and "the loss is nan" in done.stderr and "Traceback" not in done.stderr
    assert "1 run failed; the same command goes on, or, with --rates, one without" in done.stderr


def test_dry_run_prices_and_starts_nothing(tmp_path: Path) -> None:
    done = run(tmp_path / "none", "--dry-run", "--gpu-price", "H100=2")
    assert not done.returncode and "H100 $2" in done.stdout and "2 seeds and 2 rates" in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--rows", "nobody"), "--rows nobody: choose of baseline, dropped"),
        (("--rates", "0"), "--rates 0.0 must be above 0"),
        (("--table", "no.yaml"), "no.yaml: is no file; name a table"),
        (("--dry-run", "--gpu-price", "B200=1"), "--gpu-price B200=1: write NAME=DOLLARS"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    done = run(tmp_path, *flags)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {told}")
