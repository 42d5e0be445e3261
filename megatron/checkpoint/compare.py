"""Whether a run may go on from a checkpoint: the same model, data and plan, or a message that says what differs."""

from typing import Any

from megatron.plan import Plan

FREE: dict[str, set[str]] = {
    "model": {"attention_backend"},
    "data": {"data_path", "train_data_path", "valid_data_path", "test_data_path", "allow_trailing_bytes"},
    "training": {
        "micro_batch_size",
        "train_iters",
        "train_samples",
        "train_tokens",
        "exit_interval",
        "exit_duration_in_mins",
        "recompute_granularity",
        "distributed_backend",
        "distributed_timeout_minutes",
        "skip_train",
        "dry_run",
    },
    "data_efficiency": {"difficulty_path", "data_efficiency_config"},
}
SCHEDULE: dict[str, set[str]] = {"optimizer": set()}


def differences(saved: dict[str, Any], mine: dict[str, Any], free: dict[str, set[str]]) -> list[str]:
    """Flags of the groups in `free` whose values differ, apart from the names that are free to."""
    lines = []
    for group, names in free.items():
        old, new = saved.get(group, {}), mine.get(group, {})
        for name in sorted((old.keys() | new.keys()) - names):
            if _plain(old.get(name)) != _plain(new.get(name)):
                lines.append(f"--{name.replace('_', '-')} was {old.get(name)} and is {new.get(name)}")
    return lines


def resume_problems(index: dict[str, Any], mine: dict[str, Any], plan: Plan, override_schedule: bool) -> list[str]:
    """Why the run described by `mine` cannot go on exactly from the checkpoint; empty where it can. `mine` holds `config`,
    `data` and `schedule` as `index` does."""
    where = f"the checkpoint of step {index['iteration']}"
    problems = [f"{where}: {line}; --finetune takes its weights alone" for line in differences(index["config"], mine["config"], FREE)]
    if index["data"] != mine["data"]:
        problems.append(f"{where} was trained on other data: {index['data']} against {mine['data']}; --finetune takes its weights alone")
    if index["iteration"] > plan.steps:
        problems.append(f"{where} is past the run's {plan.steps} steps; raise its --train-iters, -samples or -tokens")
    elif not problems and index["totals"] != plan.totals(index["iteration"]):
        problems.append(f"{where} had consumed {index['totals']}, and this plan consumes {plan.totals(index['iteration'])}")
    schedule = differences(index["config"], mine["config"], SCHEDULE)
    schedule += [
        f"the {name} was {index['schedule'].get(name)} and is {value}"
        for name, value in mine["schedule"].items()
        if _plain(index["schedule"].get(name)) != _plain(value)
    ]
    if schedule and not override_schedule:
        problems += [f"{where}: {line}; --override-opt_param-scheduler takes the flags' value" for line in schedule]
    return problems


def _plain(value: Any) -> Any:
    """Tuples as the lists that JSON makes of them."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
