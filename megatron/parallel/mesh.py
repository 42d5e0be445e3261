"""The ranks of a run, as a value that is passed: which rank this is, its device, and whom it averages
with."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from megatron.base.errors import UserError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Mesh:
    """`data_group`: the process group of data parallelism, None where it has one rank."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    data_rank: int = 0
    data_size: int = 1
    data_group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes files."""
        return self.rank == 0

    @property
    def prints_log(self) -> bool:
        """Whether this rank prints the log, as in Megatron the last one."""
        return self.rank == self.world_size - 1


def world_size() -> int:
    """Ranks that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """This process's rank as torchrun says it; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def start_mesh(backend: str | None, timeout_minutes: float) -> Mesh:
    """Join the other ranks that torchrun started (one rank needs no torchrun). GPUs are used where there
    are any."""
    ranks, rank, local = world_size(), launched_rank(), int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available() and backend != "gloo":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"local rank {local} has no GPU: {torch.cuda.device_count()} are here; start fewer ranks "
                "a machine"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif backend == "nccl":
        raise UserError("--distributed-backend nccl needs a GPU, and none is here; leave it out")
    if ranks == 1:
        return Mesh(device=device)
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=timeout_minutes)
        )
    return Mesh(rank, ranks, device, rank, ranks, dist.group.WORLD)


def repeat_exactly() -> None:
    """Only kernels that give the same bits every time; the setting of cuBLAS must be there before its
    first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def stop_mesh() -> None:
    """Leave the other ranks in good order."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(values: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """Sum a small tensor over the data-parallel ranks, in place."""
    if mesh.data_group is not None:
        dist.all_reduce(values, group=mesh.data_group)
    return values


def gather_over_ranks(values: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """The values [N] of every rank, as [ranks, N]; all ranks call it together."""
    if mesh.world_size == 1:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(mesh.world_size)]
    dist.all_gather(parts, values)
    return torch.stack(parts)


def agree(what: str, value: int, mesh: Mesh) -> None:
    """UserError unless all ranks hold the same 63-bit value: a plan or a configuration that differs would
    ruin a run."""
    if mesh.data_group is None:
        return
    ends = torch.tensor([value, -value], dtype=torch.int64, device=mesh.device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=mesh.data_group)
    if int(ends[0]) != -int(ends[1]):
        raise UserError(
            f"the ranks disagree on {what}; start all of them with the same command, files and software"
        )
