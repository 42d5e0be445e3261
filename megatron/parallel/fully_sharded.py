"""ZeRO-2 and ZeRO-3 by PyTorch's fully_shard: between steps a rank holds its own rows of every weight, of its
gradient and of its moments, and no others.

PyTorch gathers the weights of a layer before it is computed. Behind every backward pass it sums the layer's
gradients, gives each rank those of its rows, and adds them to those of the micro-batches before. So the
gradients of a whole stage never exist. Sums over other axes than those of the sharing ranks are made of these
rows, behind the last backward pass. Experts that other ranks share than the rest of a layer are gathered by
themselves; those that no other rank has stay as they are.
"""

import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from megatron.config.parallel import GRADIENTS, OPTIMIZER, WEIGHTS
from megatron.parallel.data_parallel import BUCKET_ELEMENTS, GradientBuckets
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import placements
from megatron.parallel.stages import StageModule
from megatron.parallel.zero import ShardedBuckets, placement_of_rows

if TYPE_CHECKING:  # they take seconds to import, and only runs that share weights wait for them
    from torch.distributed.fsdp import FSDPModule


class FullyShardedBuckets(GradientBuckets):
    """Takes over stages whose weights have no memory yet, and gives this rank's rows of them unfilled memory.
    `again`: whole weights go behind a layer's forward pass and are gathered again before its backward pass
    (ZeRO-3); else they stay until the step is done (ZeRO-2)."""

    def __init__(
        self,
        stages: tuple[StageModule, ...],
        mesh: Mesh,
        again: bool,
        bucket_elements: int = BUCKET_ELEMENTS,
        sent_as: torch.dtype | None = None,
    ):
        own = {
            name: placement_of_rows(placements(stage)[name], len(one), mesh)
            for stage in stages
            for name, one in stage.named_parameters()
        }
        self.units = [unit for stage in stages for unit in _share(stage, mesh, again, sent_as)]
        shared = {name: one for stage in stages for name, one in stage.named_parameters()}
        rows = {name: _own_rows(one) for name, one in shared.items()}
        super().__init__(rows, own, mesh, bucket_elements, sent_as)
        for name, one in shared.items():
            _gather_sums(one, self.parameters[name])

    def wait(self) -> None:
        """Until all sums are there; weights that are still whole are let go."""
        for unit in self.units:
            unit.reshard()
        super().wait()


def make_gradients(
    stages: tuple[StageModule, ...], mesh: Mesh, strategy: str, sent_as: torch.dtype | None = None
) -> GradientBuckets:
    """The gradients of stages whose weights have no memory yet; then they have, unfilled. `strategy`: what
    ranks with the same weights share, as --data-parallel-sharding-strategy says, where there are several.
    `sent_as`: the precision of sums over ranks, where it is not that of the gradients."""
    if strategy in (GRADIENTS, WEIGHTS) and mesh.shard.size > 1:
        return FullyShardedBuckets(stages, mesh, again=strategy == WEIGHTS, sent_as=sent_as)
    for stage in stages:
        stage.to_empty(device=mesh.device)
    parameters = {name: one for stage in stages for name, one in stage.named_parameters()}
    table = {name: one for stage in stages for name, one in placements(stage).items()}
    if strategy != OPTIMIZER or mesh.shard.size == 1:
        return GradientBuckets(parameters, table, mesh, sent_as=sent_as)
    buckets = ShardedBuckets(parameters, table, mesh, sent_as=sent_as)
    for stage in stages:
        buckets.wait_in(stage)
    return buckets


def _share(stage: StageModule, mesh: Mesh, again: bool, sent_as: torch.dtype | None) -> list["FSDPModule"]:
    """Share every layer of a stage, by themselves modules in it that are not cast, and what is left of it,
    which is one unit with the stage itself. That begins the backward pass, so it stays whole from forward to
    backward."""
    from torch.distributed import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    assert mesh.shard.group is not None
    # it warns of views as outputs, which may not be changed in place: nobody changes a stage's
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    ranks = DeviceMesh.from_group(mesh.shard.group, mesh.device.type)
    apart = _shared_apart(stage, mesh)
    same = (
        DeviceMesh.from_group(mesh.expert_shard.group, mesh.device.type) if mesh.expert_shard.group else None
    )
    alone = {one for module in apart for one in module.parameters()} if same is None else set()
    # a layer casts its weights anyway; cast before they are gathered, they are the same bits and fewer bytes
    kept = next(stage.parameters()).dtype
    summed = sent_as or (kept if stage.dtype else None)
    casts = MixedPrecisionPolicy(stage.dtype, summed, cast_forward_inputs=False)
    exact = MixedPrecisionPolicy(reduce_dtype=sent_as, cast_forward_inputs=False)
    parts = [(one, ranks, exact) for one in stage.modules() if getattr(one, "exact", False)]
    parts += [(one, same, casts) for one in apart if same is not None]
    parts += [(one, ranks, casts) for one in stage.layers.values()]
    units = [
        fully_shard(one, mesh=on, reshard_after_forward=again, mp_policy=how, ignored_params=alone)
        for one, on, how in parts
    ]
    units.append(
        fully_shard(stage, mesh=ranks, reshard_after_forward=False, mp_policy=exact, ignored_params=alone)
    )
    for unit in units:
        unit.set_force_sum_reduction_for_comms(True)
        unit.set_gradient_divide_factor(1.0)
        unit.set_reshard_after_backward(again, recurse=False)
    for name in stage.entrances:
        register_fsdp_forward_method(stage, name)
    stage.to_empty(device=mesh.device)
    return units


def _shared_apart(stage: StageModule, mesh: Mesh) -> list[nn.Module]:
    """Modules whose weights other ranks have than those that have the same rest of a layer."""
    if mesh.expert_shard.group is mesh.shard.group:
        return []
    tables = {one: getattr(one, "placements", {}) for one in stage.modules()}
    return [one for one, table in tables.items() if {p.shard for p in table.values()} == {"expert_shard"}]


def _own_rows(shared: nn.Parameter) -> nn.Parameter:
    """This rank's rows of a parameter, in the same memory."""
    from torch.distributed.tensor import DTensor

    return nn.Parameter(shared.data.to_local()) if isinstance(shared.data, DTensor) else shared


@torch.no_grad()
def _gather_sums(shared: nn.Parameter, rows: nn.Parameter) -> None:
    """Let sums of gradients be added up where the gradients of this rank's rows lie."""
    from torch.distributed.tensor import DTensor

    if not isinstance(shared, DTensor) or rows.grad is None:
        return
    ranks, split, shape = shared.device_mesh, shared.placements, shared.shape
    shared.grad = DTensor.from_local(rows.grad, ranks, split, shape=shape, stride=shared.stride())
