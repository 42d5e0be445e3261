"""The lines of the log for people, in Megatron's form, which scripts parse."""

from datetime import datetime

from megatron.base.units import perplexity
from megatron.config.config import Config
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan
from megatron.train.records import Losses, Outcome
from megatron.train.throughput import Rates, rates

MOST_CORPORA = 20
"""Corpora that have a line of their own in a validation."""


def log_line(
    config: Config,
    efficiency: DataEfficiency,
    plan: Plan,
    iteration: int,
    outcomes: list[Outcome],
    ranks: int,
    peak: float | None = None,
) -> str:
    """One line: means and rates since the last line (`outcomes`), everything else of this step. `peak`:
    TFLOP/s of one rank's device."""
    step, totals, last, count = plan.at(iteration), plan.totals(iteration), outcomes[-1], len(outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    speed = rates(plan, iteration - count, iteration, seconds, ranks, peak)
    parts = [
        f" [{datetime.now():%Y-%m-%d %H:%M:%S.%f}] iteration {iteration:8d}/{plan.steps:8d}",
        f"consumed samples: {totals['consumed_samples']:12d}",
        f"consumed tokens: {totals['consumed_tokens']:12d}",
        f"elapsed time per iteration (ms): {seconds / count * 1e3:.1f}",
        *(_speed(speed) if config.logging.log_throughput else ()),
        f"learning rate: {step.learning_rate:.6E}",
        f"global batch size: {step.batch_size:5d}",
        *(f"{name}: {_number(loss)}" for name, loss in mean_losses(outcomes).items()),
        f"loss scale: {last.loss_scale:.1f}",
        f"grad norm: {last.grad_norm:.3f}",
    ]
    if last.params_norm is not None:
        parts.append(f"params norm: {last.params_norm:.3f}")
    parts += [
        f"number of skipped iterations: {sum(outcome.skipped for outcome in outcomes):3d}",
        f"number of nan iterations: {sum(not outcome.finite for outcome in outcomes):3d}",
    ]
    if efficiency.length_metric:
        parts.append(f"curriculum seqlen: {step.sequence_length}")
    parts += [f"curriculum {name}: {cap}" for name, cap in step.caps.items()]
    if efficiency.random_ltd:
        parts.append(f"random ltd reserved length: {step.kept_length}")
    since = slice(iteration - count, iteration)
    samples, tokens = plan.batch_size[since].sum(), (plan.rows[since] * plan.sequence_length[since]).sum()
    parts += [
        f"actual seqlen: {step.sequence_length}",
        f"samples per second: {samples / seconds:.3f}",
        f"tokens per gpu per second (tgs): {tokens / seconds / ranks:.3f}",
        f"TFLOPs: {speed.teraflops:.2f}",
    ]
    return " | ".join(parts) + " |"


def _speed(speed: Rates) -> list[str]:
    parts = [f"throughput per GPU (TFLOP/s/GPU): {speed.teraflops:.1f}"]
    if speed.mfu is not None and speed.hfu is not None:
        parts += [f"MFU (%): {speed.mfu * 100:.1f}", f"HFU (%): {speed.hfu * 100:.1f}"]
    return parts


def mean_losses(outcomes: list[Outcome]) -> dict[str, float | None]:
    """Means of every loss over the steps that were not skipped and in which something counted; None where
    nothing did in any of them."""
    taken = [outcome for outcome in outcomes if not outcome.skipped]
    names = dict.fromkeys(name for outcome in taken for name in outcome.losses)
    values = {name: [one.known[name] for one in taken if name in one.known] for name in names}
    return {name: sum(part) / len(part) if part else None for name, part in values.items()}


def _number(loss: float | None) -> str:
    return "none, as no item of the data counts in it" if loss is None else f"{loss:.6E}"


def validation_block(iteration: int, losses: Losses, what: str) -> str:
    """Megatron's validation lines, framed by dashes."""
    lines = []
    for corpus, values in list(losses.items())[: MOST_CORPORA + 1]:
        parts = [f" {what} loss at iteration {iteration}" + (f" on {corpus}" if corpus else "")]
        for name, loss in values.items():
            parts.append(f"{name} value: {_number(loss)}")
            if name == "lm loss" and loss is not None:
                parts.append(f"{name} PPL: {perplexity(loss):.6E}")
        lines.append(" | ".join(parts) + " | ")
    if (more := len(losses) - 1 - MOST_CORPORA) > 0:
        lines.append(f" {what} losses on {more:,} more corpora are in the records")
    frame = "-" * max(map(len, lines))
    return "\n".join([frame, *lines, frame])
