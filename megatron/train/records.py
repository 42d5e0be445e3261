"""What a run tells, as named numbers: fields of JSON records, and scalars by the names of Megatron and
DeepSpeed."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from megatron.base.units import perplexity
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan
from megatron.train.throughput import Rates

Losses = dict[str, dict[str, float | None]]
"""Means by corpus ("" is over all) and by name; None where nothing was scored."""


class Start(NamedTuple):
    """Where a run starts. `iteration`: the steps already done, with --skip-train those that the weights have
    seen; `totals`: the counters after them; `kept`: steps whose records in this run's places are its own;
    `afresh`: records past those are of another run, and are set aside."""

    iteration: int
    totals: dict[str, int]
    kept: int = 0
    afresh: bool = True


class Outcome(NamedTuple):
    """What a training step came to. `losses`: means by Megatron's names, None where nothing counted;
    `seconds`: wall time; `waited`: of it, for the loader; `cpu_seconds`: CPU time of this process; `skipped`:
    the weights were not updated; `loads`: how many tokens chose each expert, by layer, where that is to be
    logged."""

    losses: Mapping[str, float | None]
    grad_norm: float
    seconds: float
    waited: float
    cpu_seconds: float = 0.0
    loss_scale: float = 1.0
    skipped: bool = False
    params_norm: float | None = None
    loads: Mapping[int, list[float]] = MappingProxyType({})

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return all(map(math.isfinite, self.known.values()))

    @property
    def known(self) -> dict[str, float]:
        """The losses that something counted in."""
        return {name: loss for name, loss in self.losses.items() if loss is not None}


class Record(NamedTuple):
    """All that is told of one iteration: JSON fields, scalars by name (none where none are due), and lines
    for people ("" where none are due)."""

    iteration: int
    fields: dict[str, Any]
    scalars: dict[str, float]
    text: str


def key_of(loss: str) -> str:
    """The JSON key of a loss: lm_loss of "lm loss"."""
    return loss.replace(" ", "_")


def shares(loads: list[float]) -> list[float]:
    """Of an expert of the tokens; sums to 1."""
    total = sum(loads) or 1.0
    return [load / total for load in loads]


def load_scalars(loads: Mapping[int, list[float]]) -> dict[str, float]:
    """How even every layer's loads are: the least and the largest of an expert, in even shares, and their
    entropy, which is 1 where all are even and 0 where one expert has all."""
    scalars: dict[str, float] = {}
    for layer, counts in loads.items():
        parts, number = shares(counts), len(counts)
        entropy = -sum(part * math.log(part) for part in parts if part > 0) / math.log(number)
        values = {"min": min(parts) * number, "max": max(parts) * number, "entropy": entropy}
        scalars |= {f"moe/load_{name}_layer_{layer}": value for name, value in values.items()}
    return scalars


def train_fields(plan: Plan, iteration: int, outcome: Outcome, speed: Rates) -> dict[str, Any]:
    """The JSON record of a training step, whose speed is `speed`."""
    step = plan.at(iteration)
    shares_by_layer = {str(layer): shares(loads) for layer, loads in outcome.loads.items()}
    return {
        "kind": "train",
        "iteration": iteration,
        **plan.totals(iteration),
        **{key_of(name): loss for name, loss in outcome.losses.items()},
        "learning_rate": step.learning_rate,
        "grad_norm": outcome.grad_norm if math.isfinite(outcome.grad_norm) else None,
        "loss_scale": outcome.loss_scale,
        "skipped": outcome.skipped,
        "seq_length": step.sequence_length,
        "kept_length": step.kept_length,
        "batch_size": step.batch_size,
        "caps": step.caps,
        "ms_per_iteration": outcome.seconds * 1e3,
        "ms_waiting_for_data": outcome.waited * 1e3,
        "cpu_ms_per_iteration": outcome.cpu_seconds * 1e3,
        "tokens_per_second": step.rows * step.sequence_length / outcome.seconds,
        "throughput": speed.teraflops,
        **_shares_of_peak(speed),
        **({"expert_shares": shares_by_layer} if shares_by_layer else {}),
    }


def train_scalars(
    plan: Plan, iteration: int, outcome: Outcome, ranks: int, efficiency: DataEfficiency, speed: Rates
) -> dict[str, float]:
    """The scalars of a training step, whose speed is `speed`."""
    step = plan.at(iteration)
    scalars = {
        "learning-rate": step.learning_rate,
        "batch-size": float(step.batch_size),
        **outcome.known,
        "loss-scale": outcome.loss_scale,
        "world-size": float(ranks),
        "grad-norm": outcome.grad_norm,
        "iteration-time": outcome.seconds,
        "throughput": speed.teraflops,
        "learning-rate/learning-rate": step.learning_rate,
        "seqlen/actual_seq_length": float(step.sequence_length),
    }
    if "lm loss" in outcome.known:
        scalars["lm-loss-training/lm loss"] = outcome.known["lm loss"]
    if efficiency.length_metric:
        scalars["seqlen/curriculum_seqlen"] = float(step.sequence_length)
    if efficiency.random_ltd:
        scalars["seqlen/random_ltd_reserved_length"] = float(step.kept_length)
    if outcome.params_norm is not None:
        scalars["params-norm"] = outcome.params_norm
    scalars |= _shares_of_peak(speed)
    scalars |= load_scalars(outcome.loads)
    return scalars | {f"curriculum/{name}": float(cap) for name, cap in step.caps.items()}


def _shares_of_peak(speed: Rates) -> dict[str, float]:
    """MFU and HFU where a peak is known."""
    return {} if speed.mfu is None or speed.hfu is None else {"mfu": speed.mfu, "hfu": speed.hfu}


def validation_fields(
    kind: str, iteration: int, totals: dict[str, int], losses: Losses, windows: int
) -> dict[str, Any]:
    """The JSON record of a validation on so many windows: every loss over all corpora, and under `corpora`
    the first loss by corpus, under `corpora_<loss>` each other one; None where weights give no numbers."""
    fields = {"kind": kind, "iteration": iteration, **totals, "windows": windows}
    losses = {
        corpus: {name: loss if loss is None or math.isfinite(loss) else None for name, loss in values.items()}
        for corpus, values in losses.items()
    }
    for number, (name, loss) in enumerate(losses[""].items()):
        fields[key_of(name)] = loss
        if name == "lm loss":
            fields["perplexity"] = None if loss is None else perplexity(loss)
        corpora = {corpus: values[name] for corpus, values in losses.items() if corpus}
        fields[f"corpora_{key_of(name)}" if number else "corpora"] = corpora
    return fields


def validation_scalars(losses: Losses, what: str) -> dict[str, float]:
    """The scalars of a validation: `<loss> <what>`, with `-<corpus>` behind it for one corpus."""
    scalars = {}
    for corpus, values in losses.items():
        where = f"{what}-{corpus}" if corpus else what
        for name, loss in values.items():
            if loss is None:
                continue
            scalars[f"{name} {where}"] = loss
            if name == "lm loss":
                scalars[f"{name} {where} ppl"] = perplexity(loss)
    return scalars
