"""What torchrun says of this rank, and in one line each what keeps ranks from working together."""

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch.distributed as dist

from megatron.base.errors import RanksLost, UserError
from megatron.parallel.roll_call import RollCall

START = "start the ranks with torchrun --nproc-per-node N pretrain_gpt.py ..."
OTHER_LAUNCHERS = {
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),
}
"""Variables in which launchers that know nothing of PyTorch say how many processes there are, and which one
this is."""
PATIENCE = 10.0
"""Seconds in which the name of a machine may become known: a cluster may write it as its machines start."""
COMMUNICATION = ("/gloo/", "[c10d]", "NCCL")
"""What stands in the message of a RuntimeError of a library that ranks speak through."""


def world_size() -> int:
    """Ranks that torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def launched_rank() -> int:
    """This process's rank as torchrun says it; 0 without torchrun."""
    return _number("RANK", 0)


def local_rank() -> int:
    """This process's place among the ranks of its machine; 0 without torchrun."""
    return _number("LOCAL_RANK", 0)


def ranks_here() -> int:
    """Ranks that torchrun started on this machine; 1 without it."""
    return _number("LOCAL_WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < default:
        raise UserError(f"the environment has {name}={text}, which is no such number; unset it, or {START}")
    return int(text)


def require_launch() -> None:
    """UserError where the environment names a part of what ranks need to meet, or what cannot be."""
    size, rank = world_size(), launched_rank()
    if rank >= size:
        raise UserError(
            f"the environment has RANK={rank}, and WORLD_SIZE is {size}; unset both for one rank, or {START}"
        )
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if size > 1 and not os.environ.get(name)]
    if missing:
        raise UserError(
            f"the environment has WORLD_SIZE={size} without {', '.join(missing)}; "
            f"unset WORLD_SIZE for one rank, or {START}"
        )
    if size > 1:
        _require_meeting_place(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])


def _require_meeting_place(address: str, port: str) -> None:
    """UserError where ranks cannot meet there, for which they would wait until their timeout."""
    if re.search(r"\w\[|,", address):  # a list as Slurm writes it
        raise UserError(
            f"the environment has MASTER_ADDR={address}, which names several machines; take the first one, "
            f"as scontrol show hostnames tells it, or {START}"
        )
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UserError(
            f"the environment has MASTER_PORT={port}, which is no port; take a free one from 1024 to 65535, "
            f"or {START}"
        )
    if not _is_known(address.strip("[]")):
        raise UserError(
            f"the environment has MASTER_ADDR={address}, which this machine knows no address of; mend the "
            f"name, or give the IP address of the machine of rank 0, or {START}"
        )


def _is_known(machine: str) -> bool:
    """Whether a name or number leads to a machine, or does so before long."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return bool(socket.getaddrinfo(machine, None))
        except (OSError, UnicodeError):  # (a label of a name has at most 63 letters)
            if time.monotonic() >= end:
                return False
        time.sleep(1)


def launch_notes(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A note where another launcher has started several processes, each of which is a run of its own."""
    if "WORLD_SIZE" in environment:
        return []
    notes = [
        f"{launcher} has started {environment[size]} processes, and each is a run of its own; to join them, "
        f"{launcher} should start torchrun once on every machine, and torchrun the ranks"
        for launcher, (size, rank) in OTHER_LAUNCHERS.items()
        if rank in environment and environment.get(size, "1") not in ("", "0", "1")
    ]
    return notes[:1]  # srun sets the variables of mpiexec, too


@contextmanager
def joined_ranks(roll: RollCall | None = None) -> Iterator[None]:
    """UserError where ranks do not meet, or where another one is gone: which one and why, as far as they have
    told each other. Who ends by a mistake of its own tells the others."""
    try:
        yield
    except Exception as error:
        if _is_of_communication(error):
            raise _what_broke(str(error), roll) from error
        if roll is not None:
            roll.leave(_one_line(error))
        raise


def _one_line(error: Exception) -> str:
    line = (str(error).strip() or "no more is known").split("\n")[0]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def _is_of_communication(error: Exception) -> bool:
    if not isinstance(error, RuntimeError | ValueError):
        return False
    return isinstance(error, dist.DistError) or any(word in str(error) for word in COMMUNICATION)


def _first_sentence(text: str) -> str:
    """Without the place in the library's sources before it; of NCCL's message what its last line says."""
    text = text.rpartition("Last error:")[2].strip() or text.strip()  # where NCCL has kept none
    return re.sub(r"^\[[^]]*\.cc:\d+\] ", "", text).split("\n")[0].split(". ")[0].rstrip(".")


def _what_broke(text: str, roll: RollCall | None) -> UserError:
    line, interface = _first_sentence(text), os.environ.get("GLOO_SOCKET_IFNAME")
    if interface and "Unable to find address" in text:
        return UserError(
            f"GLOO_SOCKET_IFNAME={interface} names no network interface of this machine; unset it, or name "
            "one that ip addr lists"
        )
    if "Duplicate GPU detected" in text:
        return UserError(
            f"two ranks of a machine have the same GPU ({line}); give every rank its place among them in "
            f"LOCAL_RANK, or {START}"
        )
    if not dist.is_initialized():
        place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        return UserError(
            f"the ranks do not meet at {place}: {line}. See that all {world_size()} ranks are started, that "
            "every machine reaches this address, and that no other run uses its port"
        )
    who = roll.lost() if roll else None
    who = who or "another rank is gone, or does not answer within --distributed-timeout-minutes"
    return RanksLost(
        f"{who} ({line}). What it printed last, or the system's log where it was killed, says why"
    )
