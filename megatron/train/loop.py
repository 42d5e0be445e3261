"""The training loop: batch, forward, backward, sum, clip, update; validation and checkpoints on the way."""

import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.base.terminal import progress
from megatron.batches.gpt import BatchShare, RowFormat, make_batch
from megatron.batches.loader import batches
from megatron.config.config import CheckpointConfig, Config
from megatron.curriculum.sampler import Sampler
from megatron.evaluation.losses import Weighted, first_windows, mean_losses
from megatron.model.gpt import GPT
from megatron.model.inputs import GPTInputs, to_device
from megatron.optim.optimizer import clip, update
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.mesh import Mesh, sum_over_ranks
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan, Step
from megatron.train.log import Log, Outcome
from megatron.train.timers import UNTIMED, Timers

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass
class Run:
    """Everything a training run works with."""

    config: Config
    efficiency: DataEfficiency
    plan: Plan
    mesh: Mesh
    model: GPT
    gradients: GradientBuckets
    optimizer: torch.optim.AdamW
    sampler: Sampler
    splits: dict[str, Weighted]
    row_format: RowFormat


def train(run: Run, start: int, log: Log, save: Callable[[int], Any]) -> int:
    """Train from the step after `start` to the end of the plan, or until a signal or a limit; returns the
    last step done. `save(iteration)` writes a checkpoint."""
    training, checkpoint = run.config.training, run.config.checkpoint
    began, signalled = time.perf_counter(), _listen()
    share = BatchShare(run.mesh.data_rank, run.mesh.data_size, training.micro_batch_size)
    steps = (run.plan.at(number) for number in range(start + 1, run.plan.steps + 1))
    run.model.train()
    iteration = saved = start
    limit = math.inf if training.exit_duration_in_mins is None else training.exit_duration_in_mins * 60

    def make(step: Step) -> list[GPTInputs]:
        return make_batch(run.sampler, step, share, run.row_format)

    def should_stop() -> bool:
        return bool(signalled) or time.perf_counter() - began > limit

    with progress(
        "training",
        run.plan.steps,
        "steps",
        start=start,
        quiet=not (run.mesh.prints_log and sys.stderr.isatty()),
    ) as advance:
        before = time.perf_counter()
        loaded = batches(make, steps, run.mesh.device.type == "cuda")
        for step, micro_batches in log.timers.over("batch-generator", loaded):
            ready = time.perf_counter()
            loss, norm, stop = train_step(run, step, micro_batches, should_stop, log.timers)
            after = time.perf_counter()
            iteration = step.number
            outcome = Outcome({"lm loss": loss}, norm, after - before, ready - before)
            log.train(iteration, outcome._replace(params_norm=_params_norm(run)))
            advance(1, f"loss {loss:.3f}")
            stop = stop or (training.exit_interval is not None and iteration % training.exit_interval == 0)
            validation = _due(iteration, run.config.logging.eval_interval)
            if validation and not stop:
                validate(run, iteration, log)
            if checkpoint.save and (
                stop or iteration == run.plan.steps or _due(iteration, checkpoint.save_interval)
            ):
                with log.timers.span("save-checkpoint"):
                    save(iteration)
                saved = iteration
            if validation and stop:  # little time may be left, and the checkpoint matters more
                validate(run, iteration, log)
            if stop:
                break
            before = time.perf_counter()
    if iteration < run.plan.steps and run.mesh.prints_log:
        print(
            f"stopped at iteration {iteration} of {run.plan.steps}; "
            f"{_how_to_go_on(checkpoint, saved == iteration)}",
            flush=True,
        )
    return iteration


def _how_to_go_on(checkpoint: CheckpointConfig, saved: bool) -> str:
    """What to do after a stop before the end of the plan."""
    if not saved:
        return "nothing was saved: give --save FOLDER next time"
    same = checkpoint.load and Path(checkpoint.load).resolve() == Path(checkpoint.save or "").resolve()
    if same and checkpoint.ckpt_step is None and not checkpoint.finetune:
        return "the same command goes on"
    return f"the same command goes on with --load {checkpoint.save}, without --ckpt-step and --finetune"


def train_step(
    run: Run,
    step: Step,
    micro_batches: list[GPTInputs],
    should_stop: Callable[[], bool] = lambda: False,
    timers: Timers = UNTIMED,
) -> tuple[float, float, bool]:
    """One update. Returns the mean loss a token, the norm of the gradient, and whether any rank wishes to
    stop.

    The loss is divided by the global number of loss tokens before the backward pass, so every reduction is
    a sum."""
    tokens = _loss_tokens(run, step, micro_batches)
    step_key = key(run.config.training.seed, "dropout", step.number)
    total = torch.zeros(2, dtype=torch.float64, device=run.mesh.device)
    run.gradients.zero()
    with timers.span("forward-backward"):
        for number, batch in enumerate(micro_batches):
            if number == len(micro_batches) - 1:
                run.gradients.reduce_from_now_on()
            with timers.span("forward-compute"):
                loss = run.model(to_device(batch, run.mesh.device), step_key, 1 / tokens)
            with timers.span("backward-compute"):
                loss.backward()
            total[0] += loss.detach()
    with timers.span("all-grads-sync"):
        run.gradients.wait()
    total[1] = float(should_stop())
    with timers.span("optimizer"), timers.span("optimizer-clip-main-grad"):
        norm = clip(run.gradients, run.config.optimizer.clip_grad)
    loss, wishes, norm = torch.cat([sum_over_ranks(total, run.mesh), norm[None]]).tolist()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"iteration {step.number}: the loss is {loss} and the gradient's norm {norm}; nothing was "
            "updated or saved. "
            "Lower --lr, lengthen the warm-up, or go on from an older checkpoint with --ckpt-step"
        )
    with timers.span("optimizer"), timers.span("optimizer-inner-step"):
        update(run.optimizer, step.learning_rate)
    return loss, norm, wishes > 0


def validate(run: Run, iteration: int, log: Log, split: str = "valid") -> None:
    """Loss on the first --eval-iters global batches of a split."""
    corpora, wanted = (
        run.splits[split],
        run.config.logging.eval_iters * (run.config.training.global_batch_size or 1),
    )
    if corpora and wanted:
        windows = first_windows(corpora, wanted, run.config.training.seed)
        micro_batch_size = run.config.training.micro_batch_size
        with log.timers.span("eval-time"):
            losses = mean_losses(run.model, corpora, windows, micro_batch_size, run.row_format, run.mesh)
        named = {corpus: {"lm loss": loss} for corpus, loss in losses.items()}
        log.validation(iteration, named, "validation" if split == "valid" else split)


def _loss_tokens(run: Run, step: Step, micro_batches: list[GPTInputs]) -> int:
    """Tokens of the global batch whose loss counts."""
    if not run.config.data.eod_mask_loss:
        return step.rows * step.sequence_length
    mine = torch.tensor(
        [sum(batch.loss_tokens() for batch in micro_batches)], dtype=torch.int64, device=run.mesh.device
    )
    return max(int(sum_over_ranks(mine, run.mesh)), 1)


def _due(iteration: int, interval: int | None) -> bool:
    return interval is not None and iteration % interval == 0


def _params_norm(run: Run) -> float | None:
    if not run.config.logging.log_params_norm:
        return None
    norms = [torch.linalg.vector_norm(parameter.detach()).double() for parameter in run.model.parameters()]
    return float(torch.stack(norms).square().sum().sqrt())


def _listen() -> list[int]:
    """A list that holds a signal once one has come. A second Ctrl-C stops at once."""
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in SIGNALS:
        signal.signal(number, remember)
    return came
