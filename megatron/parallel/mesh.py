"""The ranks of a run, as a value that is passed: which rank this is, its device, and along which axes it
works together with others."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from megatron.base.errors import UserError, system_problem
from megatron.parallel.layout import AXES, Layout
from megatron.parallel.ranks import launched_rank, local_rank, world_size

CPU = torch.device("cpu")
SHARING = ("data", "context")
"""Along these axes ranks hold the same weights."""
OTHERS = ("shard", "replica", "expert", "expert_tensor", "expert_data", "expert_shard", "expert_replica")
"""Axes that a layout knows beside its own."""
JOINT = (("context", "data"), ("tensor", "context"), ("tensor", "context", "data"))
"""Axes over which ranks work together at once: the sums of gradients, and the slices of a sequence."""


class Axis(NamedTuple):
    """One direction of the mesh: this rank's place on it, how many ranks it has, and their process group,
    None where there is one rank."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None


ALONE = Axis()


@dataclass(frozen=True)
class Mesh:
    """`world`: all ranks. Along `data` ranks compute other rows of the same batch, along `context` other
    tokens of the same rows, along `tensor` other parts of the same matrices, along `pipeline` other layers.
    `shard`: ranks of data and context that share what all of them would hold alike, `replica`: those that
    have the same share. `embedding`: the first and the last stage, which share a tied head. `expert`: ranks
    that have other experts of the same layers, `expert_tensor`: other parts of the same experts' matrices,
    `expert_data`: the same ones, as `expert_shard` and `expert_replica`, again.
    `sequence_parallel`: between matrices the tensor axis shares the tokens; `context_way`: how attention
    joins the parts of a sequence; `joint`: several axes as one; `edges`: on GPUs a group for each direction
    between two ranks of the pipeline, as NCCL keeps only the order of messages in a group."""

    device: torch.device = CPU
    world: Axis = ALONE
    data: Axis = ALONE
    context: Axis = ALONE
    tensor: Axis = ALONE
    pipeline: Axis = ALONE
    shard: Axis = ALONE
    replica: Axis = ALONE
    embedding: Axis = ALONE
    expert: Axis = ALONE
    expert_tensor: Axis = ALONE
    expert_data: Axis = ALONE
    expert_shard: Axis = ALONE
    expert_replica: Axis = ALONE
    sequence_parallel: bool = False
    context_way: str = "allgather"
    joint: Mapping[tuple[str, ...], Axis] = field(default_factory=dict)
    edges: Mapping[tuple[int, int], dist.ProcessGroup] = field(default_factory=dict)

    def axis(self, *names: str) -> Axis:
        """One axis, or the one that all of these span together."""
        used = tuple(name for name in AXES if name in names and getattr(self, name).size > 1)
        if len(names) == 1 or len(used) == 1:
            single: Axis = getattr(self, used[0] if used else names[0])
            return single
        return self.joint[used] if used else ALONE

    @property
    def tokens(self) -> Axis:
        """The tensor axis where its ranks share the tokens between matrices, else one rank."""
        return self.tensor if self.sequence_parallel else ALONE

    @property
    def same_tokens(self) -> bool:
        """Whether the tensor axis has several ranks with the same tokens between matrices."""
        return self.tensor.size > 1 and not self.sequence_parallel

    @property
    def sum_over(self) -> tuple[str, ...]:
        """Axes over which gradients are summed of what works on the tokens of this rank alone."""
        return ("data", "context", "tensor") if self.sequence_parallel else ("data", "context")

    @property
    def first(self) -> bool:
        """Whether this rank writes files."""
        return self.world.rank == 0

    @property
    def prints_log(self) -> bool:
        """Whether this rank prints the log, as in Megatron the last one."""
        return self.world.rank == self.world.size - 1


def start_mesh(backend: str | None, timeout_minutes: float, layout: Layout) -> Mesh:
    """Join the other ranks that torchrun started (one rank needs no torchrun). GPUs are used where there are
    any."""
    device, timeout = device_of_rank(backend), timedelta(minutes=timeout_minutes)
    if world_size() == 1:
        return Mesh(device)
    if not dist.is_initialized():
        library = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(library, timeout=timeout)
    return make_mesh(device, layout, launched_rank(), timeout)


def make_mesh(device: torch.device, layout: Layout, rank: int, timeout: timedelta) -> Mesh:
    """The mesh of a rank whose process group of all ranks exists. Every rank makes the groups that it is
    in, in the same order. `timeout`: how long one waits for the others in each of them."""
    made: dict[tuple[int, ...], dist.ProcessGroup | None] = {
        (rank,): None,
        tuple(range(layout.ranks)): dist.group.WORLD if layout.ranks > 1 else None,
    }

    def axis(members: list[int], apart: bool = False) -> Axis:
        if rank not in members:
            return ALONE
        if (apart and len(members) > 1) or tuple(members) not in made:
            group = dist.new_group(members, timeout, use_local_synchronization=True)
        else:
            group = made[tuple(members)]
        if not apart:
            made[tuple(members)] = group
        return Axis(members.index(rank), len(members), group)

    # tokens on their way to experts must not wait behind sums of gradients in the same group
    single = {name: axis(layout.members(rank, (name,)), name == "expert") for name in (*AXES, *OTHERS)}
    stages = layout.members(rank, ("pipeline",))
    edges = _edges(stages, rank, timeout) if device.type == "cuda" else {}
    used = [tuple(name for name in names if single[name].size > 1) for names in JOINT]
    return Mesh(
        device,
        world=Axis(rank, layout.ranks, made[tuple(range(layout.ranks))]),
        **single,
        embedding=axis(sorted({stages[0], stages[-1]})),
        sequence_parallel=layout.sequence_parallel and layout.tensor > 1,
        context_way=layout.context_way,
        edges=edges,
        joint={names: axis(layout.members(rank, names)) for names in used if len(names) > 1},
    )


def _edges(stages: list[int], rank: int, timeout: timedelta) -> dict[tuple[int, int], dist.ProcessGroup]:
    """A group for each direction between neighbours of a pipeline, the last and the first among them."""
    count, groups = len(stages), {}
    pairs = [(one, (one + step) % count) for step in (1, -1) for one in range(count)] if count > 1 else []
    for source, target in dict.fromkeys(pairs):
        if rank in (stages[source], stages[target]):
            members = sorted((stages[source], stages[target]))
            groups[source, target] = dist.new_group(members, timeout, use_local_synchronization=True)
    return groups


def device_of_rank(backend: str | None) -> torch.device:
    """The GPU of this rank on its machine, or the CPU."""
    place = local_rank()
    if torch.cuda.is_available() and backend != "gloo":
        here = torch.cuda.device_count()
        if place >= here:
            raise UserError(
                f"local rank {place} has no GPU: {here} {'is' if here == 1 else 'are'} here; start fewer "
                "ranks a machine, or let each see all GPUs of its own, as with srun --gpus-per-node in "
                "place of --gpus-per-task"
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


def beside(mesh: Mesh, timeout_minutes: float) -> Mesh:
    """The same ranks with a process group of their own, on CPUs, for what another thread does beside the
    steps: in one group its messages and theirs would meet in another order on every rank."""
    if mesh.world.group is None:
        return replace(mesh, device=CPU)
    timeout = timedelta(minutes=timeout_minutes)
    group = dist.new_group(list(range(mesh.world.size)), timeout, backend="gloo")
    return replace(mesh, device=CPU, world=mesh.world._replace(group=group))


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


def share_bytes(mine: bytes, mesh: Mesh) -> list[bytes]:
    """The bytes of every rank; all of them call it together."""
    if mesh.world.group is None:
        return [mine]
    size = torch.tensor([len(mine)], dtype=torch.int64, device=mesh.device)
    sizes = gather_over(size, mesh.world)[:, 0].tolist()
    padded = torch.zeros(max(*sizes, 1), dtype=torch.uint8)
    padded[: len(mine)] = torch.frombuffer(bytearray(mine), dtype=torch.uint8) if mine else padded[:0]
    rows = gather_over(padded.to(mesh.device), mesh.world).cpu().numpy()
    return [row[:count].tobytes() for row, count in zip(rows, sizes)]


def together(work: Callable[[], bytes], mesh: Mesh) -> list[bytes]:
    """What every rank's work gives; where one of them fails by its input or its files, all end with its
    message."""
    try:
        mine = b"+" + work()
    except (UserError, OSError) as error:
        mine = b"-" + (system_problem(error) or str(error)).encode()
    results = share_bytes(mine, mesh)
    if failed := next((one for one in results if one[:1] == b"-"), None):
        raise UserError(failed[1:].decode())
    return [one[1:] for one in results]


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
