"""The examples run as they stand and print a table of two runs."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import ROOT, run_forked

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(example: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_forked(str(example), *words)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_both_ways_to_equal_tokens(example: Path) -> None:
    done = run(example, "--tokens", "8192", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    baseline, other = json.loads(done.stdout.splitlines()[-1]).values()
    for name in ("effective", "tokens"):
        if name in baseline:
            assert 8192 == baseline[name] <= other[name] < 2 * 8192
    assert other["steps"] > baseline["steps"] == 8
    assert baseline["loss"] < 5.6 and other["loss"] < 5.6, "below ln 256 and some"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_mistake_is_one_line(example: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    done = run(example, str(tmp_path / "short.txt"))
    assert done.returncode == 2 and done.stderr.count("too few; give more") == 1
    assert run(example, "--help").stdout.startswith("usage")
