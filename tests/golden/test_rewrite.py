"""Golden files are shown before they are written, and written only where they differ and it is asked for."""

import sys

import pytest

from megatron.base.errors import UserError
from tests.golden.rewrite import rewrite
from tests.golden.runs import RUNS

LINES = ["train 1 512 5.281421 1.05201", "train 2 1024 5.257769 1.07119", "valid 2 1024 5.300000 0.00000"]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Rewrites with new losses of the run `seqres`; gives the exit status and what was printed. `noise` of
    training is not shown."""
    for run in RUNS:
        (tmp_path / f"{run}.txt").write_text("\n".join(LINES) + "\n")

    def losses(run: str, changed: list[str]) -> list[str]:
        print("noise")
        return changed if run == "seqres" else LINES

    def run(changed: list[str], *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["test_golden.py", *words])
        monkeypatch.setenv("COLUMNS", "130")
        status = 0
        try:
            rewrite(tmp_path, lambda name: losses(name, changed))
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out

    return run


CHANGED = [LINES[0], "train 2 1024 5.257669 1.17119", "valid 2 1000 5.300000 0.00000"]


def test_nothing_changed(call, tmp_path):
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for words in ([], ["--write"]):
        status, printed = call(LINES, *words)
        assert status == 0 and printed == "".join(f"{run}.txt: as before\n" for run in RUNS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_without_write_a_change_is_only_shown(call, tmp_path):
    status, printed = call(CHANGED)
    assert status == 1 and "noise" not in printed
    assert "seqres.txt: 2 of 3 steps changed" in printed and "baseline.txt: as before" in printed
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert rows == [
        ["train 2", "", "5.257769 → 5.257669", "1.07119 → 1.17119"],
        ["valid 2", "1024 → 1000", "", ""],
        ["largest difference", "24", "0.0001", "0.1"],
        ["... relative", "0.023", "1.9e-05", "0.085"],
    ]
    assert printed.endswith(f"1 of {len(RUNS)} files differ and were not written; --write writes them\n")
    assert (tmp_path / "seqres.txt").read_text().splitlines() == LINES


def test_write_writes_only_what_differs(call, tmp_path):
    before = (tmp_path / "baseline.txt").stat().st_mtime_ns
    status, printed = call(CHANGED, "--write")
    assert status == 0 and "5.257769 → 5.257669" in printed and printed.count("wrote ") == 1
    assert (tmp_path / "seqres.txt").read_text().splitlines() == CHANGED
    assert (tmp_path / "baseline.txt").stat().st_mtime_ns == before
    assert call(CHANGED)[0] == 0


def test_steps_and_files_that_one_side_lacks(call, tmp_path):
    (tmp_path / "seqres.txt").unlink()
    status, printed = call(LINES[:1])
    assert status == 1 and "none → 5.281421" in printed
    call(LINES, "--write")
    _, printed = call(LINES[:1])
    assert "seqres.txt: 2 of 3 steps changed" in printed and "5.257769 → none" in printed


def test_an_unknown_flag_is_refused(call):
    with pytest.raises(UserError, match="unknown flag --wirte; did you mean --write"):
        call(LINES, "--wirte")
