"""scripts/compare_losses.py as a developer types it, and what its numbers say."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.differences import changed_steps, largest_differences

ROOT = Path(__file__).parents[2]
SHORT = ("--run", "baseline", "--steps", "2", "--flags", "--num-layers 2")


def compare(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run from another folder and without PYTHONPATH, as in a fresh clone, with settings of the process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    script = [sys.executable, str(ROOT / "scripts" / "compare_losses.py")]
    return subprocess.run(
        [*script, *words], cwd="/", env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]


def test_flags_that_say_the_same_are_equal():
    done = compare(*SHORT, "--flags-a", "--lr 3e-3", "--flags-b", "")
    assert done.returncode == 0, done.stderr
    assert "A: the working tree, with --exit-interval 2 --num-layers 2 --lr 3e-3\n" in done.stdout
    assert done.stdout.endswith("equal to the last bit\n")
    assert [row[:3] for row in rows(done.stdout)] == [
        ["baseline", "loss", "0 of 2"],
        ["baseline", "gradient norm", "0 of 2"],
    ]


def test_flags_that_change_the_second_step():
    done = compare(*SHORT, "--flags-b", "--lr-warmup-iters=5")
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("\ndifferent\n")
    loss, norm = rows(done.stdout)
    assert loss[2:4] == norm[2:4] == ["1 of 2", "train 2"]
    first, second, absolute, relative = map(float, loss[4:])
    assert absolute == pytest.approx(abs(first - second), rel=0.05)
    assert relative == pytest.approx(abs(first - second) / max(first, second), rel=0.05)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_a_commit_against_itself_leaves_no_worktree(tmp_path):
    """In the folder of this test, so that no other comparison of this repository is taken for it."""
    done = compare(*SHORT, "--base", "HEAD", "--head", "HEAD", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    words = ["git", "-C", str(ROOT), "worktree", "list"]
    assert str(tmp_path) not in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert not list(tmp_path.glob("compare_losses_*"))


def test_a_training_that_fails_is_no_difference():
    done = compare(*SHORT, "--flags-a", "--no-such-flag")
    assert done.returncode == 2 and done.stdout == ""
    assert "error: side A (the working tree, with " in done.stderr and "Traceback" not in done.stderr
    assert "the training baseline ended with status 2 and 0 recorded losses" in done.stderr
    assert "unknown flag --no-such-flag" in done.stderr


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ([], ["there is nothing to compare; give --base COMMIT, or --flags-a and --flags-b"]),
        (
            ["--head", "no/such", "--steps", "0", "--flags-a", "--lr '1"],
            [
                "--head no/such needs --base",
                "--head no/such: ",
                "--steps 0 must be",
                "--flags-a --lr '1: is no",
            ],
        ),
        (["--base", "HEAD", "--run", "colour"], ["--run colour: choose one of baseline, "]),
    ],
)
def test_misuse(words, messages):
    done = compare(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == len(messages)
    assert all(f"error: {message}" in done.stderr for message in messages), done.stderr


def test_help_shows_examples():
    done = compare("--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "--base HEAD" in done.stdout


def test_numbers_are_compared_to_the_last_bit():
    before = {f"train {step}": {"loss": 1.0 + step} for step in range(4)}
    after = {**before, "train 1": {"loss": math.nextafter(2.0, 3.0)}, "train 3": {"loss": 4.5}}
    assert changed_steps(before, before, "loss") == []
    assert changed_steps(before, after, "loss") == ["train 1", "train 3"]
    assert largest_differences(before, after, "loss") == (0.5, 0.5 / 4.5)
    assert changed_steps({"train 1": {"loss": 0.0}}, {"train 1": {"loss": -0.0}}, "loss") == ["train 1"]


def test_missing_steps_and_numbers_that_are_none():
    before, after = {"train 1": {"loss": math.nan}}, {"train 1": {"loss": math.nan}, "train 2": {"loss": 1.0}}
    assert changed_steps(before, after, "loss") == ["train 2"]
    assert changed_steps(before, after, "gradient norm") == []
    assert largest_differences(before, after, "loss") == (0.0, 0.0)
    assert math.isnan(largest_differences(before, {"train 1": {"loss": 1.0}}, "loss")[0])
