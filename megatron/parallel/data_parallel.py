"""Data parallelism: gradients live in flat buckets and are summed over the ranks while the backward pass
still runs.

Buckets are laid out once, in the reverse order of the parameters, and reduced in that order whatever
finishes first, so the sums are the same bits in every step and after every restart. Every reduction is a
sum: the loss is divided by the global number of tokens beforehand.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.parallel.mesh import Axis, Mesh
from megatron.parallel.placement import Placement

BUCKET_ELEMENTS = 1 << 24
NORM_ELEMENTS = 1 << 14


class GradientBuckets:
    """Owns the gradients of the parameters, as views of flat tensors."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        table: dict[str, Placement],
        mesh: Mesh,
        bucket_elements: int = BUCKET_ELEMENTS,
    ):
        self.flats: list[Tensor] = []
        self._axes: list[list[Axis]] = []
        self._missing: list[int] = []
        self._members: list[int] = []
        self._works: list[dist.Work | None] = []
        self._reducing = False
        group: list[nn.Parameter] = []
        axes: tuple[str, ...] = ()
        for name, parameter in reversed(parameters.items()):
            full = sum(map(torch.numel, group)) + parameter.numel() > bucket_elements
            if group and (full or axes != table[name].sum_over):
                self._add(group, axes, mesh)
                group = []
            group.append(parameter)
            axes = table[name].sum_over
        if group:
            self._add(group, axes, mesh)

    def _add(self, group: list[nn.Parameter], axes: tuple[str, ...], mesh: Mesh) -> None:
        """One bucket: a flat tensor, of which the gradients of the group are views, and where it is
        summed."""
        flat = torch.zeros(sum(map(torch.numel, group)), dtype=group[0].dtype, device=group[0].device)
        bucket, place = len(self.flats), 0
        for parameter in group:
            parameter.grad = flat[place : place + parameter.numel()].view_as(parameter)
            place += parameter.numel()
            parameter.register_post_accumulate_grad_hook(lambda _, bucket=bucket: self._ready(bucket))
        self.flats.append(flat)
        self._axes.append([axis for axis in map(mesh.axis, axes) if axis.group is not None])
        self._members.append(len(group))

    def zero(self) -> None:
        """Forget the gradients of the last step."""
        for flat in self.flats:
            flat.zero_()

    def reduce_from_now_on(self) -> None:
        """The backward pass that follows is the step's last: sum every bucket over the ranks once it is
        complete."""
        self._reducing = any(self._axes)
        self._missing = list(self._members)
        self._works = []

    def _ready(self, bucket: int) -> None:
        if self._reducing:
            self._missing[bucket] -= 1
            while len(self._works) < len(self.flats) and self._missing[len(self._works)] <= 0:
                self._start()

    def _start(self) -> None:
        """Sum the next bucket over its axes, one after another; only the last is waited for later."""
        bucket, work = len(self._works), None
        for axis in self._axes[bucket]:
            if work is not None:
                work.wait()
            work = dist.all_reduce(self.flats[bucket], group=axis.group, async_op=True)
        self._works.append(work)

    def wait(self) -> None:
        """Until all sums are there; a bucket with a parameter that got no gradient is summed now."""
        while self._reducing and len(self._works) < len(self.flats):
            self._start()
        for work in self._works:
            if work is not None:
                work.wait()
        self._works = []
        self._reducing = False

    def norm(self) -> Tensor:
        """Euclidean norm over all gradients, a float64 scalar."""
        return torch.cat([_norms(flat) for flat in self.flats]).square().sum().sqrt()

    def scale(self, factor: Tensor | float) -> None:
        """Multiply all gradients."""
        for flat in self.flats:
            flat.mul_(factor)


def _norms(flat: Tensor) -> Tensor:
    """Norms of pieces of a flat tensor, in float64. Pieces in their own precision are ten times faster on
    a CPU than summing all squares in float64, and short enough to lose nothing that matters."""
    whole = len(flat) // NORM_ELEMENTS * NORM_ELEMENTS
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, NORM_ELEMENTS), dim=1)
    return torch.cat([rows, torch.linalg.vector_norm(flat[whole:])[None]]).double()
