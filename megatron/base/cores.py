"""How many cores this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells what groups of processes may use, and which group this process is in."""


def usable_cores(groups: Path = GROUPS, own: Path = OWN) -> int:
    """The cores that a batch system has left to this process, or as many as its container's share of their
    time is worth (docker --cpus, a limit of Kubernetes), whichever is less; at least 1."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([every, *map(math.ceil, _limits(groups, own))]))


def _limits(groups: Path, own: Path) -> Iterator[float]:
    """Seconds of cores a second that the group of this process and those around it allow, where they do not
    allow all. Older systems tell it in two files, and in a container those of the container."""
    lines = _read(own).splitlines()
    names = next((line.split("/") for line in lines if line.startswith("0::/")), [""])[1:]
    told = [_read(groups.joinpath(*names[:depth], "cpu.max")) for depth in range(len(names) + 1)]
    told.append(f"{_read(groups / 'cpu/cpu.cfs_quota_us')} {_read(groups / 'cpu/cpu.cfs_period_us')}")
    for words in map(str.split, told):
        if len(words) == 2 and all(map(str.isdecimal, words)) and int(words[1]):
            yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
