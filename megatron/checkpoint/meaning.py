"""What the words of a checkpoint mean for its steps, so that other words for the same run are the same."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from megatron.config.flags import spelling
from megatron.curriculum.draws import counts, weighted_chain
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.learning_rate import learning_rates
from megatron.schedule.plan import Plan

MOST_RISES = 4096
WRITTEN = 2e-3
"""How far shares may be from what they stand for: 0.333 from a third."""


def flags_in_effect(config: dict[str, Any]) -> dict[str, Any]:
    """The flags that do something only beside others, as far as they do, by spelling."""
    model, training = config["model"], config["training"]
    names = ["add_qkv_bias"] if model["disable_bias_linear"] else []
    rope = model["position_embedding_type"] == "rope"
    names += ["rotary_base", "rotary_percent"] if rope else ["max_position_embeddings"]
    names += ["rope_scaling_factor"] if model["use_rope_scaling"] else []
    ramp = training["rampup_batch_size"]
    grows = ramp and ramp[0] != training["global_batch_size"] and ramp[-1]
    in_effect = {name: model[name] for name in names} | {"rampup_batch_size": ramp if grows else []}
    if rope and config["bert"]["window_size"]:
        in_effect["local_rotary_base"] = config["bert"]["local_rotary_base"]
    return {spelling(name): value for name, value in in_effect.items()}


def same_rates(
    saved: dict[str, Any], mine: dict[str, Any], plan: Plan, reference_schedules: bool = False
) -> bool:
    """Whether two configurations come to the same learning rate at every step of the plan."""
    try:
        one, other = (
            learning_rates(
                SimpleNamespace(**config["optimizer"]),  # type: ignore[arg-type]
                SimpleNamespace(**config["training"]),  # type: ignore[arg-type]
                plan.consumed,
                reference_schedules,
            )
            for config in (saved, mine)
        )
    except (AttributeError, KeyError, TypeError):
        return False  # what is not understood is not the same
    return np.allclose(one, other, rtol=1e-9, atol=0)


def same_draws(
    saved: list[dict[str, Any]], mine: list[dict[str, Any]], plan: Plan, steps: int, seed: int
) -> bool:
    """Whether two blends of the same corpora have the same weights: on whatever scale, or to the digits
    that people write, where the first `steps` steps drew the same number from each."""
    weights = [
        np.array([part["samples"] if part["weight"] is None else part["weight"] for part in data], float)
        for data in (saved, mine)
    ]
    one, other = (weighted_chain(part, seed) for part in weights)
    if np.array_equal(one.size, other.size):
        return True
    theirs, ours = (part / part.sum() for part in weights)
    return np.allclose(theirs, ours, rtol=WRITTEN, atol=0) and all(
        np.array_equal(counts(one, drawn), counts(other, drawn))
        for drawn in plan.consumed_samples[:steps].tolist()
    )


def custom_rises(efficiency: DataEfficiency, plan: Plan, steps: int) -> dict[str, list[list[int]]]:
    """Of every custom pacing the steps at which its value rises, and the value: nothing else tells later
    what a function gave that has changed since."""
    columns = {one.name: plan.caps[one.name] for one in efficiency.metrics if one.pacing.curve == "custom"}
    if efficiency.length and efficiency.length.curve == "custom":
        columns[efficiency.length_metric] = plan.sequence_length
    rises = {}
    for name, column in columns.items():
        places = np.flatnonzero(np.diff(column[:steps], prepend=-1))[:MOST_RISES]
        rises[name] = np.stack([places + 1, column[places]], axis=1).tolist()
    return rises


def first_change(rises: dict[str, list[list[int]]], plan: Plan, steps: int) -> str | None:
    """The first step at which a custom pacing gives another value than it did; None where none is known."""
    found = []
    for name, pairs in rises.items():
        starts, values = np.array(pairs, np.int64).reshape(-1, 2).T
        last = steps if len(starts) < MOST_RISES else int(starts[-1])
        column = plan.caps.get(name, plan.sequence_length)[:last]
        old = values[np.searchsorted(starts, np.arange(1, len(column) + 1), side="right") - 1]
        found += [
            (
                int(place) + 1,
                f"the pacing of its curriculum {name} gave {old[place]} and gives {column[place]}",
            )
            for place in np.flatnonzero(old != column)[:1]
        ]
    step, line = min(found, default=(0, None))
    return line and f"{line} at step {step}: its pacing function has changed"
