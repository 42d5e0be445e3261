"""The whole run in advance: for every step its lengths, batch, tokens, FLOPs and learning rate, from the
configuration alone.

No schedule has a state: what a step does follows from the configuration and the step's number, so a run
can be priced, plotted and resumed from the number alone, and no rank has to ask another.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.base.keys import key
from megatron.config.config import Config
from megatron.schedule.data_efficiency import RESHAPE, DataEfficiency
from megatron.schedule.learning_rate import learning_rates
from megatron.schedule.pacing import Pacing, first_decrease, levels

STEPS_AT_A_TIME = 1 << 16
MOST_STEPS = 50_000_000

RowFlops = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From length and kept length of a row: FLOPs of the model, and of the hardware, which computes some of it
again."""


class Step(NamedTuple):
    """What one step does. `caps`: the admitted difficulty of every metric; `drawn_before`: samples drawn
    by earlier steps."""

    number: int
    batch_size: int
    sequence_length: int
    kept_length: int
    rows: int
    drawn_before: int
    learning_rate: float
    caps: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """Arrays with one entry a step, step 1 first. The token counts are totals through the end of the step.
    `hardware_flops` counts what is recomputed, `flops` does not."""

    batch_size: np.ndarray
    sequence_length: np.ndarray
    kept_length: np.ndarray
    rows: np.ndarray
    consumed_samples: np.ndarray
    consumed_tokens: np.ndarray
    raw_tokens: np.ndarray
    drawn_tokens: np.ndarray
    layer_tokens: np.ndarray
    flops: np.ndarray
    hardware_flops: np.ndarray
    learning_rate: np.ndarray
    caps: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return len(self.batch_size)

    @property
    def consumed(self) -> dict[str, np.ndarray]:
        """What is consumed through the end of every step, by unit."""
        steps = np.arange(1, self.steps + 1)
        return {"samples": self.consumed_samples, "tokens": self.consumed_tokens, "iters": steps}

    def at(self, step: int) -> Step:
        """The step with this number, counted from 1."""
        i = step - 1
        return Step(
            number=step,
            batch_size=int(self.batch_size[i]),
            sequence_length=int(self.sequence_length[i]),
            kept_length=int(self.kept_length[i]),
            rows=int(self.rows[i]),
            drawn_before=int(self.consumed_samples[i] - self.batch_size[i]),
            learning_rate=float(self.learning_rate[i]),
            caps={name: int(values[i]) for name, values in self.caps.items()},
        )

    def digest(self, steps: int) -> int:
        """A 62-bit value of the lengths, batches and admitted difficulties of the first `steps` steps."""
        columns = (self.rows, self.sequence_length, self.kept_length, *self.caps.values())
        return key(*(column[:steps].tobytes().hex() for column in columns)) >> 2

    def totals(self, step: int) -> dict[str, int]:
        """The cumulative counters after `step` steps; all 0 after none."""
        names = ("consumed_samples", "consumed_tokens", "raw_tokens", "drawn_tokens", "layer_tokens")
        return {name: int(getattr(self, name)[step - 1]) if step else 0 for name in names}


def fullest_step(plan: Plan) -> Step:
    """The step whose layers compute most of a sample, and of such steps the one with most samples."""
    work = (plan.rows / plan.batch_size) * (plan.sequence_length + plan.kept_length)
    order = np.lexsort((-np.arange(plan.steps), plan.batch_size, work))
    return plan.at(int(order[-1]) + 1)


def build_plan(config: Config, efficiency: DataEfficiency, row_flops: RowFlops) -> Plan:
    """The plan of a resolved configuration; `row_flops` prices a row. UserError where a pacing decreases."""
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    totals = {"samples": 0, "tokens": 0}
    while True:
        part = _columns(
            config, efficiency, done + 1, min(STEPS_AT_A_TIME, 1024 << len(parts)), totals["samples"]
        )
        stop = _stop(config, part, done, totals)
        parts.append({name: values[:stop] for name, values in part.items()} if stop else part)
        done += len(parts[-1]["batch_size"])
        totals = {
            "samples": totals["samples"] + int(part["batch_size"].sum()),
            "tokens": totals["tokens"] + int(part["effective"].sum()),
        }
        if stop:
            break
        if done >= MOST_STEPS:
            raise UserError(
                f"the run is longer than {MOST_STEPS:,} steps; lower --train-iters, -samples or -tokens, "
                "or raise the batch size"
            )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _assemble(config, efficiency, columns, row_flops)


def _assemble(
    config: Config, efficiency: DataEfficiency, columns: dict[str, np.ndarray], row_flops: RowFlops
) -> Plan:
    rows, length, kept = columns["rows"], columns["sequence_length"], columns["kept_length"]
    layers = config.model.num_layers
    dropping = len(efficiency.dropping_layers)
    samples, tokens = np.cumsum(columns["batch_size"]), np.cumsum(columns["effective"])
    consumed = {"samples": samples, "tokens": tokens, "iters": np.arange(1, len(rows) + 1)}
    model_flops, hardware_flops = row_flops(length, kept)
    return Plan(
        batch_size=columns["batch_size"],
        sequence_length=length,
        kept_length=kept,
        rows=rows,
        consumed_samples=samples,
        consumed_tokens=tokens,
        raw_tokens=np.cumsum(rows * length),
        drawn_tokens=samples * config.data.seq_length,
        layer_tokens=np.cumsum(rows * (kept * dropping + length * (layers - dropping))),
        flops=rows * model_flops,
        hardware_flops=rows * hardware_flops,
        learning_rate=learning_rates(
            config.optimizer, config.training, consumed, efficiency.reference_schedules
        ),
        caps={
            name.removeprefix("cap."): values for name, values in columns.items() if name.startswith("cap.")
        },
    )


def _columns(
    config: Config, efficiency: DataEfficiency, first: int, count: int, samples: int
) -> dict[str, np.ndarray]:
    """Columns of `count` steps from step `first` on, before which `samples` samples were drawn."""
    batch_size = _batch_sizes(config, samples, count)
    length = _lengths(config, efficiency, first, count)
    kept = length
    if efficiency.random_ltd:
        pacing, exactly = efficiency.random_ltd.pacing, efficiency.reference_schedules
        kept = np.minimum(checked_levels(pacing, "random-LTD", first - 1, count, exactly, False), length)
    rows = _rows(config, efficiency, batch_size, length)
    layers, dropping = config.model.num_layers, len(efficiency.dropping_layers)
    columns = {
        "batch_size": batch_size,
        "sequence_length": length,
        "kept_length": kept,
        "rows": rows,
        "effective": rows * ((length * (layers - dropping) + kept * dropping) // layers),
    }
    for metric in efficiency.metrics:
        name, exactly = f"curriculum {metric.name}", efficiency.reference_schedules
        columns[f"cap.{metric.name}"] = checked_levels(metric.pacing, name, first, count, exactly, True)
    return columns


def _lengths(config: Config, efficiency: DataEfficiency, first: int, count: int) -> np.ndarray:
    """Tokens of a row in every step."""
    full = config.data.seq_length
    if not efficiency.length:
        return np.full(count, full, np.int64)
    name = f"curriculum {efficiency.length_metric}"
    levels = checked_levels(efficiency.length, name, first, count, efficiency.reference_schedules, True)
    length = np.minimum(levels, full)
    if length.min() < 1:
        step = first + int(length.argmin())
        raise UserError(f"{name}: length {length.min()} at step {step} must be at least 1")
    return length


def _rows(
    config: Config, efficiency: DataEfficiency, batch_size: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """Rows of every step, of which reshaping makes more than samples."""
    full, micro = config.data.seq_length, config.training.micro_batch_size
    if efficiency.length_metric != RESHAPE:
        return batch_size
    if efficiency.reference_schedules:
        return batch_size // micro * reference_rows(micro, full, length)
    return batch_size * rows_per_sample(full, length)


def checked_levels(
    pacing: Pacing, name: str, first: int, count: int, reference_schedules: bool, minimum_rounds_up: bool
) -> np.ndarray:
    """Values (int64) of a pacing at `count` steps from `first` on, refused where they decrease; one step more
    than asked for joins the parts."""
    start = max(first - 1, 1 if minimum_rounds_up else 0)
    values = levels(
        pacing,
        start,
        count + first - start,
        reference_schedules=reference_schedules,
        minimum_rounds_up=minimum_rounds_up,
    )
    if fall := first_decrease(values, start):
        raise UserError(f"{name}: {fall}")
    return values[first - start :]


def _batch_sizes(config: Config, samples: int, count: int) -> np.ndarray:
    """Samples of every step; with --rampup-batch-size START INCREMENT SAMPLES a function of the samples
    drawn before."""
    full, ramp = config.training.global_batch_size, config.training.rampup_batch_size
    sizes = np.full(count, full, np.int64)
    if not ramp or samples >= ramp[2]:
        return sizes
    start, increment, over = ramp
    per_stage = over / max((full - start) // increment, 1)
    for i in range(count):
        if samples >= over:
            break
        sizes[i] = min(start + increment * int(samples / per_stage), full)
        samples += int(sizes[i])
    return sizes


def _stop(config: Config, part: dict[str, np.ndarray], done: int, totals: dict[str, int]) -> int:
    """How many steps of the part run before the first limit is reached; 0 where none is."""
    training = config.training
    reached = np.zeros(len(part["batch_size"]), bool)
    if training.train_iters is not None:
        reached |= done + np.arange(1, len(reached) + 1) >= training.train_iters
    if training.train_samples is not None:
        reached |= totals["samples"] + np.cumsum(part["batch_size"]) >= training.train_samples
    if training.train_tokens is not None:
        reached |= totals["tokens"] + np.cumsum(part["effective"]) >= training.train_tokens
    return int(np.argmax(reached)) + 1 if reached.any() else 0


def rows_per_sample(full: int, length: np.ndarray) -> np.ndarray:
    """Rows that reshaping makes of one sample: the whole pieces of `length` tokens in `full`."""
    return full // length


def reference_rows(micro_batch_size: int, full: int, length: np.ndarray) -> np.ndarray:
    """Rows that DeepSpeed's reshaping makes of a micro-batch: whole pieces and overlapping tails of full+1
    ids, at most as many as the ids suffice for, and an even number."""
    ids, piece = full + 1, length + 1
    rows = np.minimum(micro_batch_size * (ids // piece + 1), -(-micro_batch_size * ids // piece))
    rows = np.where((rows % 2 == 1) & (rows > 1), rows - 1, rows)
    return np.where(length < full, rows, micro_batch_size)
