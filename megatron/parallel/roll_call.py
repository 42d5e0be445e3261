"""Which rank is gone, where ranks lose each other. All sign in where they have met. Who ends by a mistake
says so there. Of a process on the same machine the system tells whether it still runs. And who loses another
rank reports there, so that those that are left say from whom they hear nothing."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread

import torch.distributed as dist

SECONDS = 2.0
"""How long ranks that have lost another one wait for each other's reports."""
CAUSE = "cause"


class RollCall:
    """What ranks know of each other: `store` is one that all of them reach, and outlives most of them."""

    def __init__(self, store: dist.Store, rank: int, size: int):
        self.store, self.rank, self.size = store, rank, size
        store.set(f"process/{rank}", _this_process())

    def leave(self, why: str) -> None:
        """Tell the others why this rank ends."""
        line = f"rank {self.rank} has ended: {why}"

        def tell() -> None:
            self._agree(line)

        _in_time(tell)

    def lost(self) -> str | None:
        """What has made this rank lose another one, as far as it can be known; all ranks say the same."""
        found: list[str] = []
        _in_time(lambda: found.append(self._find()))
        return found[0] if found else None

    def _agree(self, cause: str) -> str:
        """The first cause that a rank has found: all others follow from it."""
        return str(self.store.compare_set(CAUSE, "", cause).decode())

    def _find(self) -> str:
        self.store.set(f"lost/{self.rank}", "")
        others = [one for one in range(self.size) if one != self.rank]
        near, end = self._near(others), time.monotonic() + SECONDS
        while time.monotonic() < end:
            dead = [line for rank, place in near.items() if (line := _death(rank, place))]
            if dead or self.store.check([CAUSE]):
                return self._agree("; ".join(dead))
            time.sleep(0.02)
        silent = [str(one) for one in others if not self.store.check([f"lost/{one}"])]
        names = f"rank{'s' * (len(silent) > 1)} {', '.join(silent)}"
        line = f"no word comes from {names} within --distributed-timeout-minutes"
        return self._agree(line) if silent else ""

    def _near(self, ranks: list[int]) -> dict[int, str]:
        """The processes of those ranks that are on this machine."""
        places = {rank: self.store.get(f"process/{rank}").decode() for rank in ranks}
        here = _this_process().rsplit(" ", 1)[0]
        return {rank: place for rank, place in places.items() if place.rsplit(" ", 1)[0] == here}


def open_roll_call(rank: int, size: int, timeout_minutes: float) -> RollCall | None:
    """Sign in at the store of torchrun, or of rank 0 where there is no torchrun."""
    if size == 1:
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    wait = timedelta(minutes=timeout_minutes)
    store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=wait)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return RollCall(dist.PrefixStore(f"roll call {attempt}", store), rank, size)


def _death(rank: int, place: str) -> str:
    """What the system says of a rank's process where it does not run any more."""
    machine, _, number = place.split(" ")
    state = _state(number)
    if state in ("", "Z", "X"):
        return f"rank {rank} is gone, process {number} on {machine}"
    return f"rank {rank} is stopped, process {number} on {machine}" if state == "T" else ""


def _this_process() -> str:
    """The machine, the space of process numbers in it, and the number of this process."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {space or os.getpid()} {os.getpid()}"


def _state(number: str) -> str:
    """The state of a process as Linux names it; nothing where there is none."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def _in_time(work: Callable[[], None]) -> None:
    """Do it, unless the store is gone, too, or hangs."""

    def quietly() -> None:
        with suppress(RuntimeError):
            work()

    thread = Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(2 * SECONDS)
