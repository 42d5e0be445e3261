"""What the plan of a run comes to: totals, growth of every schedule and milestones, as plain values and as
terminal tables."""

from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from megatron.base.units import amount, exact, short
from megatron.config.config import Config
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.pacing import Pacing
from megatron.schedule.plan import Plan

MILESTONES = (0, 10, 25, 50, 75, 100)
PETAFLOP_DAY = 1e15 * 86400
MEANINGS = {
    "consumed_tokens": "layer tokens / layers; the stop and the learning rate count these",
    "raw_tokens": "entered the first layer",
    "drawn_tokens": "taken from the corpus, also where a sample was then cut",
    "layer_tokens": "summed over the layers",
}


def summarise(
    config: Config, efficiency: DataEfficiency, plan: Plan, data_parallel_size: int
) -> dict[str, Any]:
    """The plan in numbers, ready for JSON. Steps count from 1; `from_step` is the first step with the last
    value."""
    random_ltd, layers = efficiency.random_ltd, config.model.num_layers
    totals = plan.totals(plan.steps)
    peak = int(np.argmax(plan.learning_rate))
    return {
        "steps": plan.steps,
        "num_layers": layers,
        "micro_batch_size": config.training.micro_batch_size,
        "data_parallel_size": data_parallel_size,
        "batch_size": _growth(plan.batch_size, config.training.global_batch_size),
        "sequence_length": _growth(
            plan.sequence_length, largest(efficiency.length) if efficiency.length else config.data.seq_length
        ),
        "kept_length": _growth(plan.kept_length, largest(random_ltd.pacing))
        | {"layers": len(random_ltd.layers)}
        if random_ltd
        else None,
        "caps": {
            metric.name: _growth(plan.caps[metric.name], largest(metric.pacing))
            | {"difficulty": metric.difficulty}
            for metric in efficiency.metrics
        },
        "totals": totals,
        "layer_tokens_saved": 1 - totals["layer_tokens"] / (layers * totals["raw_tokens"]),
        "flops": float(plan.flops.sum()),
        "vocab_size": config.tokenizer.vocab_size,
        "learning_rate": {
            "peak": float(plan.learning_rate[peak]),
            "peak_step": peak + 1,
            "last": float(plan.learning_rate[-1]),
        },
        "milestones": [_milestone(plan, layers, share) for share in MILESTONES],
    }


def _growth(values: np.ndarray, full: int) -> dict[str, int]:
    """Of a column that never decreases: its first and last value, the first step that has the last one,
    and the goal."""
    return {
        "first": int(values[0]),
        "last": int(values[-1]),
        "from_step": int(np.searchsorted(values, values[-1])) + 1,
        "full": full,
    }


def largest(pacing: Pacing) -> int:
    """The value that a pacing grows to."""
    return pacing.values[-1] if pacing.curve == "fixed_discrete" else pacing.maximum


def _milestone(plan: Plan, layers: int, share: int) -> dict[str, Any]:
    number = max(plan.steps * share // 100, 1)
    step, totals = plan.at(number), plan.totals(number)
    return {
        "percent": share,
        "step": number,
        "batch_size": step.batch_size,
        "sequence_length": step.sequence_length,
        "kept_length": step.kept_length,
        "caps": step.caps,
        **totals,
        "layer_tokens_saved": 1 - totals["layer_tokens"] / (layers * totals["raw_tokens"]),
        "learning_rate": step.learning_rate,
    }


def tables(summary: dict[str, Any]) -> list[Table]:
    """The summary as two tables: the run as a whole, and its milestones."""
    whole = Table(title="Plan of the run", title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    whole.add_column(style="bold", no_wrap=True)
    whole.add_column()
    for name, text in _lines(summary):
        whole.add_row(name, text)
    return [whole, _milestone_table(summary)]


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    kept, rate, totals = summary["kept_length"], summary["learning_rate"], summary["totals"]
    ranks = summary["data_parallel_size"]
    batch = (
        f"micro-batches of {summary['micro_batch_size']} on {ranks} data-parallel "
        f"rank{'s' if ranks > 1 else ''}"
    )
    dropping = (
        f"{_grown(kept, ' tokens')}; in {kept['layers']} of {summary['num_layers']} layers"
        if kept
        else "nothing is dropped"
    )
    lines = [
        ("steps", exact(summary["steps"])),
        ("batch size", f"{_grown(summary['batch_size'], ' samples')}; {batch}"),
        ("sequence length", _grown(summary["sequence_length"], " tokens")),
        ("kept length", dropping),
    ]
    for name, cap in summary["caps"].items():
        lines.append(
            (f"admitted {name}", _grown(cap, "% of the samples" if cap["difficulty"] == "percentile" else ""))
        )
    lines.append(("samples", amount(totals["consumed_samples"])))
    for name, meaning in MEANINGS.items():
        lines.append((_plain(name), f"{amount(totals[name])}, {meaning}"))
    return [
        *lines,
        (
            "layer tokens saved",
            f"{summary['layer_tokens_saved']:.1%} of computing every raw token in every layer",
        ),
        ("FLOPs", _flops(summary)),
        (
            "learning rate",
            f"peak {rate['peak']:.4g} at step {exact(rate['peak_step'])}, last {rate['last']:.4g}",
        ),
    ]


def _plain(name: str) -> str:
    return {"consumed_tokens": "effective tokens"}.get(name, name.replace("_", " "))


def _grown(growth: dict[str, int], unit: str) -> str:
    """A schedule in words: "80 to 2,048 tokens, full from step 110,000"."""
    first, last = exact(growth["first"]), exact(growth["last"]) + unit
    reached = growth["last"] >= growth["full"]
    short_of = "" if reached else f", short of the full {exact(growth['full'])}"
    if growth["first"] == growth["last"]:
        return f"{last} in every step{short_of}"
    return f"{first} to {last}, {'full ' if reached else ''}from step {exact(growth['from_step'])}{short_of}"


def _flops(summary: dict[str, Any]) -> str:
    vocab_size = summary["vocab_size"]
    logits = (
        f"with the logits of {exact(vocab_size)} tokens"
        if vocab_size
        else "without the logits; --vocab-size adds them"
    )
    return f"{summary['flops']:.4g} ({summary['flops'] / PETAFLOP_DAY:,.3g} PFLOP/s-days), {logits}"


def _milestone_table(summary: dict[str, Any]) -> Table:
    table = Table(title="Milestones", title_justify="left", box=box.SIMPLE_HEAD)
    caps = list(summary["caps"])
    names = ["run", "step", "batch", "length", "kept", *caps, "effective", "raw", "saved", "learning rate"]
    for name in names:
        table.add_column(name, justify="right")
    for row in summary["milestones"]:
        table.add_row(
            f"{row['percent']}%",
            *(exact(row[name]) for name in ("step", "batch_size", "sequence_length", "kept_length")),
            *(exact(row["caps"][name]) for name in caps),
            short(row["consumed_tokens"]),
            short(row["raw_tokens"]),
            f"{row['layer_tokens_saved']:.1%}",
            f"{row['learning_rate']:.3e}",
        )
    return table
