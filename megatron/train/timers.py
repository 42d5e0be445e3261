"""Time of the named parts of a step, measured only where it is asked for."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch.profiler import record_function

from megatron.parallel.mesh import CPU, Mesh, gather_over

Item = TypeVar("Item")

# the --timing-log-level from which each part is timed
LEVELS = {
    "forward-backward": 1,
    "forward-compute": 2,
    "backward-compute": 2,
    "batch-generator": 1,
    "all-grads-sync": 1,
    "optimizer": 1,
    "optimizer-clip-main-grad": 2,
    "optimizer-inner-step": 2,
    "params-all-gather": 2,
    "save-checkpoint": 1,
    "eval-time": 1,
}
NOT_OF_A_STEP = ("save-checkpoint", "eval-time")
NOTHING = nullcontext()

Times = dict[str, list[float]]


class Timers:
    """Seconds spent in the parts that `level` asks for, since they were last taken. While `profiling` holds,
    every part is a named range of the profile, too."""

    def __init__(self, level: int = 0, device: torch.device = CPU):
        self.level, self.device, self.profiling = level, device, False
        self.seconds = {name: 0.0 for name, needed in LEVELS.items() if needed <= level}

    def span(self, name: str) -> AbstractContextManager[None]:
        """A context to be timed; where nothing asks for it, one context that does nothing."""
        return self._measure(name) if self.profiling or LEVELS[name] <= self.level else NOTHING

    def over(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with the wait for each of them as a span."""
        iterator, end = iter(items), object()
        while True:
            with self.span(name):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]

    @contextmanager
    def _measure(self, name: str) -> Iterator[None]:
        with record_function(name) if self.profiling else NOTHING:
            before = self._now() if name in self.seconds else 0.0
            yield
            if name in self.seconds:
                self.seconds[name] += self._now() - before

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def collect(self, mesh: Mesh, steps: int = 1, names: Iterable[str] = LEVELS) -> Times:
        """Seconds of these parts by rank, the mean of so many steps or, where the part is none of a step, the
        sum; they start afresh. Parts that no rank has run are left out. All ranks call it together."""
        names = [name for name in names if name in self.seconds]
        if not names:
            return {}
        mine = [self.seconds[name] / (1 if name in NOT_OF_A_STEP else steps) for name in names]
        self.seconds |= dict.fromkeys(names, 0.0)
        ranks = gather_over(torch.tensor(mine, dtype=torch.float64, device=mesh.device), mesh.world)
        return {name: times for name, times in zip(names, ranks.T.tolist()) if any(times)}


UNTIMED = Timers()


def timing_block(times: Times, option: str) -> str:
    """Megatron's lines of times in ms; `option` is --timing-log-option. A rank that has not run a part does
    not count."""
    titles = {"max": "max time", "minmax": "(min, max) time", "all": "times"}
    lines = [f"{titles[option]} across ranks (ms):"]
    for name, seconds in times.items():
        label, took = f"{name} ".ljust(48, "."), [one * 1e3 for one in seconds if one]
        if option == "all":
            lines.append(f"  {name}:")
            lines += [f"     rank {rank:2d}: {one * 1e3:.2f}" for rank, one in enumerate(seconds)]
        elif option == "max":
            lines.append(f"    {label}: {max(took):.2f}")
        else:
            lines.append(f"    {label}: ({min(took):.2f}, {max(took):.2f})")
    return "\n".join(lines)
