"""Whether a run may go on from a checkpoint: the same model, data and plan, or a message that says what
differs."""

from collections.abc import Callable, Iterable
from typing import Any

from megatron.checkpoint.manifest import Manifest
from megatron.config.arguments import RESUME, flags_of, spelling
from megatron.config.config import Config
from megatron.schedule.plan import Plan

TITLES = {
    "size": "vocabulary",
    "eod": "end-of-document token",
    "metrics": "curriculum of difficulties",
    "length": "curriculum of lengths",
    "shape": "way of shortening samples",
    "random_ltd": "random-LTD",
    "seed": "seed of the order of samples",
    "published": "--reference-schedules",
}
WAYS = (
    "use the flags that it was made with, give another run a --save and --load of its own, or take "
    "its weights alone by --finetune"
)


OTHER_TASK = "give this run a --save and --load of its own"


def flag_differences(options: type, saved: dict[str, Any], mine: dict[str, Any], resume: str) -> list[str]:
    """Flags of this resume policy whose values differ. What a checkpoint says of a flag that there is no
    more counts like the strictest of its group."""
    lines = []
    for group, policies in _policies(options).items():
        old, new = (_values_of(config, group, policies) for config in (saved, mine))
        strictest = min(policies.values(), key=RESUME.index)
        others = {name for name in old.keys() | new.keys() if policies.get(name, strictest) != resume}
        lines += _differences(old, new, spelling, others)
    return lines


def _policies(options: type) -> dict[str, dict[str, str]]:
    """What resuming does about every flag, by group and name."""
    policies: dict[str, dict[str, str]] = {}
    for one in flags_of(options):
        policies.setdefault(one.group, {})[one.name] = one.field.metadata["resume"]
    return policies


def _values_of(config: dict[str, Any], group: str, names: Iterable[str]) -> dict[str, Any]:
    """The values of a group; those outside all groups lie beside the groups."""
    return config.get(group, {}) if group else {name: config.get(name) for name in names}


def resume_problems(saved: Manifest, mine: Manifest, plan: Plan, override_schedule: bool) -> list[str]:
    """Why a run cannot go on exactly from a checkpoint; empty where it can. What flags mean is compared,
    not how they are written: paths, and a curriculum's spelling, may change."""
    where = f"the checkpoint of step {saved.iteration}"
    problems = [f"{where}: {line}" for line in _other_run(saved, mine, plan)]
    if problems:
        problems[-1] += f"; {WAYS if saved.task == mine.task else OTHER_TASK}"
    if saved.iteration > plan.steps:
        problems.append(
            f"{where} is past the run's {plan.steps} steps; raise its --train-iters, -samples or -tokens"
        )
    schedule = flag_differences(Config, saved.config, mine.config, "schedule")
    schedule += _differences(saved.schedule, mine.schedule, lambda name: f"the {name}")
    if schedule and not override_schedule:
        problems += [
            f"{where}: {line}; --override-opt_param-scheduler takes the flags' value" for line in schedule
        ]
    return problems


def _other_run(saved: Manifest, mine: Manifest, plan: Plan) -> list[str]:
    """How a checkpoint's run differs from this one, but for the schedule of its learning rate."""
    if saved.task != mine.task:
        return [f"it is of the task {saved.task}, and this is {mine.task}"]
    lines = flag_differences(Config, saved.config, mine.config, "same")
    meanings = (
        (saved.vocabulary._asdict(), mine.vocabulary._asdict()),
        (saved.data_efficiency, mine.data_efficiency),
    )
    for theirs, ours in meanings:
        lines += _differences(theirs, ours, lambda name: f"its {TITLES.get(name, name)}")
    if saved.data != mine.data:
        lines.append(f"it was trained on other data: {_words(saved.data)} against {_words(mine.data)}")
    if not lines and saved.analyses != mine.analyses:
        lines.append("the difficulties of its samples came of another analysis")
    if not lines and saved.iteration <= plan.steps:
        lines += _other_past(saved, plan)
    return lines


def _other_past(saved: Manifest, plan: Plan) -> list[str]:
    """A plan whose steps so far differ in spite of equal flags: a pacing function of the user's own has
    changed."""
    totals = plan.totals(saved.iteration)
    if saved.totals != totals:
        return [f"it had consumed {_words(saved.totals)}, and this plan consumes {_words(totals)}"]
    if saved.plan != plan.digest(saved.iteration):
        return ["it came of steps that differ from this plan's"]
    return []


def _differences(
    saved: dict[str, Any], mine: dict[str, Any], title: Callable[[str], str], free: Iterable[str] = ()
) -> list[str]:
    return [
        f"{title(name)} was {_words(saved.get(name))} and is {_words(mine.get(name))}"
        for name in sorted((saved.keys() | mine.keys()) - set(free))
        if saved.get(name) != mine.get(name)
    ]


def _words(value: Any) -> str:
    """A value as people write it; parts that say nothing are left out."""
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {_words(part)}" for name, part in value.items() if part not in (None, "", [], {})
        )
    if isinstance(value, list):
        return " and ".join(map(_words, value)) or "none"
    return "none" if value in (None, "") else str(value)
