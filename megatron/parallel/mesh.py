"""The ranks of a run, as a value that is passed: which rank this is, its device, and along which axes it
works together with others."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from megatron.base.errors import UserError
from megatron.parallel.ranks import launched_rank, local_rank, world_size

CPU = torch.device("cpu")


class Axis(NamedTuple):
    """One direction of the mesh: this rank's place on it, how many ranks it has, and their process group,
    None where there is one rank."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None


ALONE = Axis()


@dataclass(frozen=True)
class Mesh:
    """`world`: all ranks. `data`: those that compute other rows of the same batch with the same weights."""

    device: torch.device = CPU
    world: Axis = ALONE
    data: Axis = ALONE

    def axis(self, name: str) -> Axis:
        """The axis of this name, as placements write it."""
        axis: Axis = getattr(self, name)
        return axis

    @property
    def first(self) -> bool:
        """Whether this rank writes files."""
        return self.world.rank == 0

    @property
    def prints_log(self) -> bool:
        """Whether this rank prints the log, as in Megatron the last one."""
        return self.world.rank == self.world.size - 1


def start_mesh(backend: str | None, timeout_minutes: float) -> Mesh:
    """Join the other ranks that torchrun started (one rank needs no torchrun). GPUs are used where there are
    any."""
    device = device_of_rank(backend)
    if world_size() == 1:
        return Mesh(device)
    if not dist.is_initialized():
        library = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(library, timeout=timedelta(minutes=timeout_minutes))
    everyone = Axis(launched_rank(), world_size(), dist.group.WORLD)
    return Mesh(device, world=everyone, data=everyone)


def device_of_rank(backend: str | None) -> torch.device:
    """The GPU of this rank on its machine, or the CPU."""
    place = local_rank()
    if torch.cuda.is_available() and backend != "gloo":
        if place >= torch.cuda.device_count():
            raise UserError(
                f"local rank {place} has no GPU: {torch.cuda.device_count()} are here; "
                "start fewer ranks a machine"
            )
        torch.cuda.set_device(place)
        return torch.device("cuda", place)
    if backend == "nccl":
        raise UserError("--distributed-backend nccl needs a GPU, and none is here; leave it out")
    return CPU


def repeat_exactly() -> None:
    """Only kernels that give the same bits every time; the setting of cuBLAS must be there before its first
    use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def stop_mesh() -> None:
    """Leave the other ranks in good order."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over(values: torch.Tensor, axis: Axis) -> torch.Tensor:
    """Sum a small tensor over the ranks of an axis, in place."""
    if axis.group is not None:
        dist.all_reduce(values, group=axis.group)
    return values


def wait_for_all(mesh: Mesh) -> None:
    """Until every rank has come here."""
    if mesh.world.group is not None:
        dist.barrier(mesh.world.group)


def gather_over(values: torch.Tensor, axis: Axis) -> torch.Tensor:
    """The values [N] of every rank of an axis, as [ranks, N]; all of them call it together."""
    if axis.group is None:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(axis.size)]
    dist.all_gather(parts, values, group=axis.group)
    return torch.stack(parts)


def agree(what: str, value: int, mesh: Mesh) -> None:
    """UserError unless all ranks hold the same 63-bit value: a plan or a configuration that differs would
    ruin a run."""
    if mesh.world.group is None:
        return
    ends = torch.tensor([value, -value], dtype=torch.int64, device=mesh.device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=mesh.world.group)
    if int(ends[0]) != -int(ends[1]):
        raise UserError(
            f"the ranks disagree on {what}; start all of them with the same command, files and software"
        )
