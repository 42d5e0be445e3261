"""What a training step is: forward, backward, sum, clip, update, share."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.base.keys import key, signed
from megatron.model.balance import loads_by_layer, settle
from megatron.model.inputs import to_device
from megatron.optim.loss_scale import after_step
from megatron.optim.optimizer import clip, update
from megatron.parallel.mesh import sum_over
from megatron.parallel.pipeline import Links, run_schedule
from megatron.parallel.placement import copies
from megatron.parallel.schedules import SCHEDULES
from megatron.schedule.plan import Step
from megatron.train.setup import Run
from megatron.train.timers import UNTIMED, Timers


class StepResult(NamedTuple):
    """What a step came to. `losses`: means by name, None where nothing counted; `grad_norm`: before clipping;
    `stop`: whether any rank wishes to stop; `skipped`: the gradients overflowed, and nothing was updated;
    `loads`: how many tokens chose each expert, by layer, where that is asked for."""

    losses: dict[str, float | None]
    grad_norm: float
    stop: bool
    skipped: bool = False
    loads: Mapping[int, list[float]] = MappingProxyType({})


class _Sums(NamedTuple):
    """Sums over all ranks behind the backward pass: vectors of float64 on the device. `losses`: scaled;
    `wishes`: to stop; `beside`: what layers tally; `norm`: of the gradients, unscaled."""

    losses: Tensor
    wishes: Tensor
    beside: Tensor
    norm: Tensor


def train_step(
    run: Run,
    step: Step,
    micro_batches: list[Any],
    should_stop: Callable[[], bool] = lambda: False,
    timers: Timers = UNTIMED,
) -> StepResult:
    """One update. Every loss is divided by its own count over the global batch before the backward pass,
    so every reduction is a sum; the host waits for the device once. What other ranks have updated may still
    be on its way: `run.parameters` waits for it, and so does whatever computes with it."""
    items = loss_counts(run, step, micro_batches)
    losses = _accumulate(run, step, micro_batches, items, timers)
    sums = _sum_and_clip(run, losses, should_stop, timers)
    result = _result(run, step, sums, items)
    _require_finite(step.number, result)
    if run.config.training.fp16:
        run.scaler.state = after_step(run.scaler.state, result.skipped, run.config.optimizer)
    if not result.skipped:
        _update(run, step, sums.beside, timers)
    return result


def _accumulate(
    run: Run, step: Step, micro_batches: list[Any], items: dict[str, int], timers: Timers
) -> Tensor:
    """Gradients of the batch, summed over the ranks that share it; this rank's part of the scaled losses."""
    run.gradients.zero()
    for stage in run.stages:
        stage.tally.zero()
    run.gradients.begin(len(micro_batches))
    with timers.span("forward-backward"):
        losses = _run_micro_batches(run, step, micro_batches, items, timers)
    with timers.span("all-grads-sync"):
        run.gradients.wait()
    return losses


def _sum_and_clip(run: Run, losses: Tensor, should_stop: Callable[[], bool], timers: Timers) -> _Sums:
    """All that ranks must agree on, in one message, and the gradients clipped by it."""
    mesh, loss_scale = run.mesh, run.scaler.state.factor
    with timers.span("optimizer"), timers.span("optimizer-clip-main-grad"):
        wishes = torch.full((1,), float(should_stop()), dtype=torch.float64, device=mesh.device)
        beside = torch.stack([stage.tally.sums for stage in run.stages]).sum(0)
        parts = [losses, wishes, beside, run.gradients.square()[None]]
        sums = sum_over(torch.cat(parts), mesh.world).split([len(part) for part in parts])
        norm = sums[-1].sqrt() / loss_scale
        clip(run.gradients, norm[0], run.config.optimizer.clip_grad, loss_scale)
    return _Sums(*sums)._replace(norm=norm)


def _result(run: Run, step: Step, sums: _Sums, items: dict[str, int]) -> StepResult:
    """What the sums say, on the host."""
    config = run.config
    told = _Sums(*torch.cat(sums).cpu().split([len(part) for part in sums]))
    means = zip(run.task.losses(config), (told.losses / run.scaler.state.factor).tolist())
    found: dict[str, float | None] = {name: mean if items[name] else None for name, mean in means}
    tallied = run.stages[0].tally.parts(told.beside)
    for name, layers in run.task.layer_losses(config).items():
        found[name] = float(tallied[name]) / (step.rows * layers)
    norm = float(told.norm)
    overflow = config.training.fp16 and not math.isfinite(norm)
    loads = loads_by_layer(tallied) if config.experts.moe_per_layer_logging else {}
    return StepResult(found, norm, float(told.wishes) > 0, overflow, loads)


def _update(run: Run, step: Step, beside: Tensor, timers: Timers) -> None:
    """New weights, on their way to whoever shares them, and what layers keep of their tallies."""
    with timers.span("optimizer"):
        with timers.span("optimizer-inner-step"):
            update(run.optimizer, step.learning_rate)
        with timers.span("params-all-gather"):
            run.gradients.share_weights()
        for stage in run.stages:
            settle(stage.layers.values(), stage.tally.parts(beside))


def _run_micro_batches(
    run: Run, step: Step, micro_batches: list[Any], items: dict[str, int], timers: Timers
) -> Tensor:
    """Forward and backward passes of all micro-batches by the pipeline's schedule; the scaled losses that
    this rank adds to those of the batch, float64."""
    names, mesh, stages = list(run.task.losses(run.config)), run.mesh, run.stages
    beside = dict.fromkeys(run.task.layer_losses(run.config), step.rows)
    scales = {name: run.scaler.state.factor / max(count, 1) for name, count in (items | beside).items()}
    number = key(run.config.training.seed, "dropout", step.number)
    step_key = torch.full((), signed(number), dtype=torch.int64, device=mesh.device)
    sums = torch.zeros(len(names), dtype=torch.float64, device=mesh.device)
    last = mesh.pipeline.size * len(stages) - 1

    def forward(chunk: int, micro_batch: int, received: Tensor | None) -> Any:
        batch = micro_batches[micro_batch]
        with _kernel_draws(run, number, batch), timers.span("forward-compute"):
            found = stages[chunk](to_device(batch, mesh.device), step_key, scales, received)
        if chunk * mesh.pipeline.size + mesh.pipeline.rank == last and mesh.tensor.rank == 0:
            sums.add_(torch.stack([found[name].detach().double() for name in names]))
        return found

    def backward(found: Any, gradient: Tensor | None) -> None:
        with timers.span("backward-compute"):
            torch.autograd.backward(list(found.values()) if gradient is None else found, gradient)

    shapes = [stages[0].received_shape(*batch.tokens.shape) for batch in micro_batches]
    schedule = SCHEDULES[run.config.parallel.pipeline_schedule]
    actions = schedule(mesh.pipeline.rank, mesh.pipeline.size, len(micro_batches), len(stages))
    links = Links(mesh, len(stages), stages[0].precision)
    run_schedule(actions, links, shapes, forward, backward, run.deferred)
    return sums


def loss_counts(run: Run, step: Step, micro_batches: list[Any]) -> dict[str, int]:
    """How many items of the global batch each loss is a mean over: from the plan where it says so, else
    summed over the ranks."""
    known, losses = run.task.known_counts(run.config, step), run.task.losses(run.config)
    if known is not None:
        if known.keys() != losses.keys():
            names = ", ".join(losses)
            raise ValueError(f"the task {run.task.name} names the losses {names}; known_counts must, too")
        return known
    mine = [sum(map(count, micro_batches)) for count in losses.values()]
    summed = sum_over(torch.tensor(mine, dtype=torch.int64, device=run.mesh.device), run.mesh.data)
    return dict(zip(losses, summed.tolist()))


@contextmanager
def _kernel_draws(run: Run, step_key: int, batch: Any) -> Iterator[None]:
    """Where attention kernels draw dropout themselves, a generator of their own for this micro-batch;
    whoever uses the device's generator finds it as it was."""
    if not getattr(run.stages[0], "kernels_draw", False):
        yield
        return
    device = run.mesh.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        place = [run.mesh.tensor.rank] if run.mesh.tensor.size > 1 else []  # other heads, other draws
        torch.manual_seed(key(step_key, batch.first_row, *place) >> 1)
        yield


def _require_finite(number: int, result: StepResult) -> None:
    losses = [loss for loss in result.losses.values() if loss is not None]
    if not all(map(math.isfinite, losses if result.skipped else (*losses, result.grad_norm))):
        loss = " and ".join(map(str, losses))
        raise UserError(
            f"iteration {number}: the loss is {loss} and the gradient's norm {result.grad_norm}; nothing was "
            "updated or saved. Lower --lr, or lengthen the warm-up; pretraining may also go on from an older "
            "checkpoint with --ckpt-step"
        )


def params_norm(run: Run) -> float | None:
    """Norm of the weights, where --log-params-norm asks for it."""
    if not run.config.logging.log_params_norm:
        return None
    table, total = run.placements, torch.zeros(1, dtype=torch.float64, device=run.mesh.device)
    for name, one in run.parameters.items():
        if copies(table[name].copies_over, run.mesh)[0] == 0:
            total += torch.linalg.vector_norm(one.detach()).double().square()
    return float(sum_over(total, run.mesh.world).sqrt())
