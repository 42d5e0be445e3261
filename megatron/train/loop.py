"""The training loop: when steps, validations, checkpoints and stops happen."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from megatron.base.terminal import print_line, progress
from megatron.batches.loader import BatchShare, batches
from megatron.config.config import CheckpointConfig
from megatron.evaluation.losses import CutOff, mean_losses, never, validation_windows
from megatron.optim.loss_scale import require_updates, skip_warning, skipped_line
from megatron.parallel.slices import slices_of
from megatron.schedule.plan import Step
from megatron.train.log import Log
from megatron.train.records import Outcome
from megatron.train.saving import Checkpoints
from megatron.train.setup import Run
from megatron.train.step import params_norm, train_step
from megatron.train.stop import stop_wishes


@dataclass
class Place:
    """Where training is. `validating`: in the validation behind the step, which a wish to stop cuts off.
    `skipped`: steps in a row without an update."""

    iteration: int
    validating: bool = False
    skipped: int = 0


def train(run: Run, start: int, log: Log, checkpoints: Checkpoints) -> int:
    """Train from the step after `start` to the end of the plan, or until a signal or a limit; returns the
    last step done, whose checkpoint is whole by then. A wish to stop cuts a validation off; one that was cut
    off behind a checkpoint is made up for."""
    interval, steps, place = run.config.logging.eval_interval, run.plan.steps, Place(start)
    if 0 < start < steps and _due(start, interval) and log.lacks_validation(start):
        validate(run, start, log)
    for stage in run.stages:
        stage.train()
    answer = partial(_answer, run, place, checkpoints)
    quiet = not (run.mesh.prints_log and sys.stderr.isatty())
    with (
        stop_wishes(run.config.training.exit_duration_in_mins, answer) as wished,
        progress("training", steps, "steps", start=start, quiet=quiet) as advance,
    ):

        def should_stop() -> bool:  # which all ranks learn of in the step, so that all end with the failure
            return wished() or checkpoints.failed

        _do_steps(run, place, log, checkpoints, should_stop, advance)
        run.gradients.gather_weights()
        checkpoints.wait()  # before a signal would end the process again
    _tell_end(run, place.iteration, checkpoints.saved)
    return place.iteration


def _do_steps(
    run: Run,
    place: Place,
    log: Log,
    checkpoints: Checkpoints,
    should_stop: Callable[[], bool],
    advance: Callable[..., None],
) -> None:
    """All steps that are left, until one that ends training."""
    names = list(run.task.losses(run.config))
    before, cpu = time.perf_counter(), time.process_time()
    for step, micro_batches in log.timers.over("batch-generator", _batches(run, place.iteration)):
        ready = time.perf_counter()
        result = train_step(run, step, micro_batches, should_stop, log.timers)
        place.iteration = step.number
        outcome = Outcome(
            losses=result.losses,
            grad_norm=result.grad_norm,
            seconds=time.perf_counter() - before,
            waited=ready - before,
            cpu_seconds=time.process_time() - cpu,
            loss_scale=run.scaler.state.factor,
            skipped=result.skipped,
            params_norm=params_norm(run),
            loads=result.loads,
        )
        log.train(place.iteration, outcome)
        _judge_skips(run, place, result.skipped)
        loss = sum(outcome.known.get(name, 0.0) for name in names)
        advance(1, f"loss {loss:.3f}")
        if _ends(run, place, log, checkpoints, result.stop, should_stop):
            break
        before, cpu = time.perf_counter(), time.process_time()


def _batches(run: Run, start: int) -> Iterator[tuple[Step, list[Any]]]:
    """The steps behind `start` with the micro-batches of this rank."""
    mesh = run.mesh
    share = BatchShare(mesh.data.rank, mesh.data.size, run.config.training.micro_batch_size, slices_of(mesh))
    steps = (run.plan.at(number) for number in range(start + 1, run.plan.steps + 1))

    def make(step: Step) -> list[Any]:
        return run.rows.batch(run.sampler, step, share)

    return batches(make, steps, mesh.device.type == "cuda")


def _ends(
    run: Run,
    place: Place,
    log: Log,
    checkpoints: Checkpoints,
    stop: bool,
    should_stop: Callable[[], bool],
) -> bool:
    """Save and validate behind a step as far as they are due; whether training ends here. `stop`: it is
    wished to."""
    iteration, last = place.iteration, place.iteration == run.plan.steps
    checkpoint = run.config.checkpoint
    stop = stop or _due(iteration, run.config.training.exit_interval)
    save = stop or last or _due(iteration, checkpoint.save_interval)
    if save:
        _save(checkpoint, checkpoints, iteration, log)
    if _due(iteration, run.config.logging.eval_interval):  # after saving: its end costs no step
        place.validating = not last  # behind the last step nothing is gained by a stop
        whole = validate(run, iteration, log, should_stop=never if last else should_stop)
        place.validating = False
        if not whole and not save:
            _save(checkpoint, checkpoints, iteration, log)
        stop = stop or not whole
    return stop


def _judge_skips(run: Run, place: Place, skipped: bool) -> None:
    """A warning, or UserError, where many steps update nothing under a factor that never changes."""
    place.skipped = place.skipped + 1 if skipped else 0
    fixed = run.config.optimizer.loss_scale
    if fixed and skipped:
        last = place.iteration == run.plan.steps
        require_updates(run.scaler.state, place.iteration, place.skipped, last)
    if fixed and run.mesh.prints_log and (line := skip_warning(place.iteration, place.skipped, fixed)):
        print_line(line)


def _answer(run: Run, place: Place, checkpoints: Checkpoints) -> str:
    """What is said to a signal at once."""
    if not run.mesh.prints_log:
        return ""
    if not run.task.goes_on:
        return f"stopping after step {place.iteration + (not place.validating)}, without results"
    return _stopping(run.config.checkpoint, place.iteration, checkpoints.saved, place.validating)


def _tell_end(run: Run, iteration: int, saved: int) -> None:
    """What is to be known of a run that has ended, and how a stopped one goes on."""
    if not run.mesh.prints_log:
        return
    if line := skipped_line(run.scaler.state, iteration):
        print_line(line)
    if iteration < run.plan.steps:
        way = ""
        if run.task.goes_on:
            way = f"; {_how_to_go_on(run.config.checkpoint, saved == iteration, run.task.by_itself)}"
        print_line(f"stopped at iteration {iteration} of {run.plan.steps}{way}")


def _save(checkpoint: CheckpointConfig, checkpoints: Checkpoints, iteration: int, log: Log) -> None:
    if checkpoint.save:
        with log.timers.span("save-checkpoint"):
            checkpoints.save(iteration)


def validate(
    run: Run, iteration: int, log: Log, split: str = "valid", should_stop: Callable[[], bool] = never
) -> bool:
    """Losses on the first windows of a split, where there are any; False, and nothing is logged, where a wish
    to stop has cut them off."""
    corpora, size = run.data.splits[split], run.config.training.micro_batch_size
    windows = validation_windows(run.config, corpora)
    if len(windows):
        try:
            with log.timers.span("eval-time"):
                losses = mean_losses(
                    run.task, run.config, run.stages, run.rows, corpora, windows, size, run.mesh, should_stop
                )
        except CutOff:
            return False
        log.validation(iteration, losses, len(windows), "validation" if split == "valid" else split)
    return True


def _stopping(checkpoint: CheckpointConfig, iteration: int, saved: int, validating: bool = False) -> str:
    """What happens after a signal in the step behind `iteration`, or in its validation, and what impatience
    would lose."""
    last = iteration + (not validating)
    if not checkpoint.save:
        return f"stopping after step {last}; nothing is saved, as --save is not given"
    if saved == last:
        return f"stopping after step {last}, whose checkpoint is whole"
    lost = f"the {iteration - saved:,} steps since the last" if saved else "all steps so far"
    return (
        f"stopping after step {last}, with a checkpoint of it; a second Ctrl-C stops at once and loses {lost}"
    )


def _how_to_go_on(checkpoint: CheckpointConfig, saved: bool, by_itself: bool = False) -> str:
    """What to do after a stop before the end of the plan."""
    if not saved:
        return "nothing was saved: give --save FOLDER next time"
    same = checkpoint.load and Path(checkpoint.load).resolve() == Path(checkpoint.save or "").resolve()
    if by_itself or (same and checkpoint.ckpt_step is None and not checkpoint.finetune):
        return "the same command goes on"
    return f"the same command goes on with --load {checkpoint.save}, without --ckpt-step and --finetune"


def _due(iteration: int, interval: int | None) -> bool:
    return interval is not None and iteration % interval == 0
