"""How many cores a process may use: what a batch system leaves to it, and a container's share of time."""

import os
from pathlib import Path

import pytest

from megatron.base.cores import usable_cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of groups on a machine of 64 cores; this process is in `a/b`."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    (tmp_path / "own").write_text("1:name=systemd:/\n0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


def cores(groups: Path) -> int:
    return usable_cores(groups, groups / "own")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("200000 100000", 2),
        ("150000 100000\n", 2),  # one and a half
        ("5000 100000", 1),
        ("max 100000", 64),
        ("9900000 100000", 64),
        ("", 64),
        ("nonsense", 64),
        ("100000 0", 64),
    ],
)
def test_a_share_of_time(groups: Path, text: str, expected: int) -> None:
    for folder in (groups, groups / "a", groups / "a" / "b"):
        (folder / "cpu.max").write_text(text)
        assert cores(groups) == expected
        (folder / "cpu.max").write_text("max 100000")


def test_the_smallest_of_all_groups_counts(groups: Path) -> None:
    (groups / "a" / "b" / "cpu.max").write_text("800000 100000")
    (groups / "a" / "cpu.max").write_text("300000 100000")
    assert cores(groups) == 3


@pytest.mark.parametrize("quota, expected", [("400000", 4), ("-1", 64)])
def test_older_systems(groups: Path, quota: str, expected: int) -> None:
    (groups / "own").write_text("4:cpu,cpuacct:/docker/1\n")
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(groups) == expected


def test_without_groups(groups: Path) -> None:
    assert usable_cores(groups / "none", groups / "none") == 64
