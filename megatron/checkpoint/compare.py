"""Whether a run may go on from a checkpoint: the same model, data and plan, or a message that says what differs."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from megatron.plan import Plan

FREE: dict[str, set[str]] = {
    "model": {"attention_backend"},
    "data": {"data_path", "train_data_path", "valid_data_path", "test_data_path", "split", "allow_trailing_bytes"},
    "training": {
        "micro_batch_size",
        "train_iters",
        "train_samples",
        "train_tokens",
        "exit_interval",
        "exit_duration_in_mins",
        "recompute_granularity",
        "deterministic_mode",
        "distributed_backend",
        "distributed_timeout_minutes",
        "skip_train",
        "dry_run",
    },
}
SCHEDULE: dict[str, set[str]] = {"optimizer": set()}
MEANING = ("vocabulary", "data_efficiency")
ALONE = "--finetune takes its weights alone"


def flag_differences(saved: dict[str, Any], mine: dict[str, Any], free: dict[str, set[str]]) -> list[str]:
    """Flags of the groups in `free` whose values differ, apart from the names that are free to."""
    lines = []
    for group, names in free.items():
        lines += _differences(saved.get(group, {}), mine.get(group, {}), lambda name: f"--{name.replace('_', '-')}", names)
    return lines


def resume_problems(index: dict[str, Any], about: dict[str, Any], plan: Plan, override_schedule: bool) -> list[str]:
    """Why the run described by `about` cannot go on exactly from the checkpoint; empty where it can. What flags mean is compared,
    not how they are written: paths, and a curriculum's spelling, may change."""
    where, about = f"the checkpoint of step {index['iteration']}", json.loads(json.dumps(about))
    lines = flag_differences(index["config"], about["config"], FREE)
    for part in MEANING:
        lines += _differences(index[part], about[part], lambda name: f"the {name.replace('_', ' ')}")
    problems = [f"{where}: {line}; {ALONE}" for line in lines]
    if index["data"] != about["data"]:
        problems.append(f"{where} was trained on other data: {index['data']} against {about['data']}; {ALONE}")
    if index["iteration"] > plan.steps:
        problems.append(f"{where} is past the run's {plan.steps} steps; raise its --train-iters, -samples or -tokens")
    elif not problems:
        problems += _other_past(index, plan, where)
    schedule = flag_differences(index["config"], about["config"], SCHEDULE)
    schedule += _differences(index["schedule"], about["schedule"], lambda name: f"the {name}")
    if schedule and not override_schedule:
        problems += [f"{where}: {line}; --override-opt_param-scheduler takes the flags' value" for line in schedule]
    return problems


def _other_past(index: dict[str, Any], plan: Plan, where: str) -> list[str]:
    """A plan whose steps so far differ in spite of equal flags: a pacing function of the user's own has changed."""
    totals = plan.totals(index["iteration"])
    if index["totals"] != totals:
        return [f"{where} had consumed {index['totals']}, and this plan consumes {totals}; {ALONE}"]
    if index["plan"] != plan.digest(index["iteration"]):
        return [f"{where} came of steps that differ from this plan's; {ALONE}"]
    return []


def _differences(saved: dict[str, Any], mine: dict[str, Any], title: Callable[[str], str], free: Iterable[str] = ()) -> list[str]:
    return [
        f"{title(name)} was {saved.get(name)} and is {mine.get(name)}"
        for name in sorted((saved.keys() | mine.keys()) - set(free))
        if saved.get(name) != mine.get(name)
    ]
