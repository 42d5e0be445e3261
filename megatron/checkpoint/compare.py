"""Whether a run may go on from a checkpoint: the same model, data and plan, or a message that says what
differs."""

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

from megatron.checkpoint.manifest import Manifest
from megatron.checkpoint.meaning import first_change, flags_in_effect, same_draws, same_rates
from megatron.config.config import Config, ask
from megatron.config.flags import RESUME, Flag, flags_of, spelling
from megatron.config.values import Known, Unknown
from megatron.schedule.data_efficiency import saved_meaning
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

FEW = 3
OTHER_TASK = "give this run a --save and --load of its own"


def flag_differences(
    options: type, saved: dict[str, Any], mine: dict[str, Any], resume: str, but: Iterable[str] = ()
) -> list[str]:
    """Flags of this resume policy whose values differ, `but` for some. What a checkpoint says of a flag that
    there is no more counts like the strictest of its group."""
    lines = []
    for group, policies in _policies(options).items():
        old, new = (_values_of(config, group, policies) for config in (saved, mine))
        strictest = min(policies.values(), key=RESUME.index)
        others = {name for name in old.keys() | new.keys() if policies.get(name, strictest) != resume}
        others |= set(but)
        lines += _differences(old, new, spelling, others)
    return lines


def _policies(options: type) -> dict[str, dict[str, str]]:
    """What resuming does about every flag, by group and name."""
    policies: dict[str, dict[str, str]] = {}
    for one in flags_of(options):
        policies.setdefault(one.group, {})[one.name] = one.field.metadata["resume"]
    return policies


def following(options: type, saved: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """Flags that differ because another one does that is compared itself: both follow from others by
    default, such as --kv-channels from --hidden-size."""
    flags = [one for one in flags_of(options) if one.field.metadata["follows"]]
    by_themselves = _policies(options)
    for one in flags:
        del by_themselves[one.group][one.name]
    changed = {
        group: saved.get(group, {})
        | {
            name: value
            for name, value in _values_of(mine, group, policies).items()
            if policies.get(name) == "same"
        }
        for group, policies in by_themselves.items()
        if group
    }
    return [one.name for one in flags if by_default(one, saved, saved) and by_default(one, changed, mine)]


def by_default(one: Flag, config: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether what `told` says of a flag is what follows from the others in `config`."""
    groups = Known(**{group: Known(**values) for group, values in config.items() if isinstance(values, dict)})
    try:
        return bool(ask(one.field.metadata["follows"], groups) == told[one.group][one.name])
    except (Unknown, TypeError, KeyError):
        return False


def _values_of(config: dict[str, Any], group: str, names: Iterable[str]) -> dict[str, Any]:
    """The values of a group; those outside all groups lie beside the groups."""
    return config.get(group, {}) if group else {name: config.get(name) for name in names}


def resume_problems(
    saved: Manifest, mine: Manifest, plan: Plan, override_schedule: bool, ranks: int = 1
) -> list[str]:
    """Why a run on so many ranks cannot go on exactly from a checkpoint; empty where it can. What flags mean
    is compared, not how they are written: paths, units of a schedule, and a curriculum's spelling, may
    change."""
    where = f"the checkpoint of step {saved.iteration}"
    problems = [f"{where}: {line}" for line in _other_run(saved, mine, plan, ranks)]
    if problems:
        problems[-1] += f"; {WAYS if saved.task == mine.task else OTHER_TASK}"
    elif saved.iteration > plan.steps:  # the number of steps may follow from what differs
        problems.append(
            f"{where} is past the run's {plan.steps} steps; raise its --train-iters, -samples or -tokens"
        )
    if not override_schedule:
        problems += [
            f"{where}: {line}; --override-opt_param-scheduler takes the flags' value"
            for line in _other_schedule(saved, mine, plan)
        ]
    return problems


def _other_schedule(saved: Manifest, mine: Manifest, plan: Plan) -> list[str]:
    """How the learning rate and the optimizer differ. Rates that are the same at every step have the same
    schedule, whatever its flags and units."""
    exactly = bool(mine.data_efficiency.get("published"))
    if same_rates(saved.config, mine.config, plan, exactly):
        return flag_differences(Config, _without_rates(saved), _without_rates(mine), "schedule")
    theirs, ours = (
        {name: None if not horizon[1] else horizon for name, horizon in one.schedule.items()}
        for one in (saved, mine)
    )
    flags = flag_differences(Config, saved.config, mine.config, "schedule")
    return flags + _differences(theirs, ours, lambda name: f"the {name}")


def _without_rates(manifest: Manifest) -> dict[str, Any]:
    """A checkpoint's flags but for those of the learning rate."""
    flags = manifest.config["optimizer"].items()
    return manifest.config | {
        "optimizer": {name: value for name, value in flags if "lr" not in name.split("_")}
    }


def _other_run(saved: Manifest, mine: Manifest, plan: Plan, ranks: int) -> list[str]:
    """How a checkpoint's run differs from this one, but for the schedule of its learning rate."""
    if saved.task != mine.task:
        return [f"it is of the task {saved.task}, and this is {mine.task}"]
    followers = following(Config, saved.config, mine.config)
    lines = flag_differences(Config, saved.config, mine.config, "same", followers)
    way = _batch_way(saved, mine, ranks)
    lines = [line + way if line.startswith("--global-batch-size ") else line for line in lines]
    theirs, ours = (flags_in_effect(one.config) for one in (saved, mine))
    lines += _differences(theirs, ours, str, (theirs.keys() ^ ours.keys()) | set(map(spelling, followers)))
    lines += _differences(saved.vocabulary._asdict(), mine.vocabulary._asdict(), _its)
    old, new = (one.data_efficiency and saved_meaning(one.data_efficiency) for one in (saved, mine))
    lines += _differences(old, new, _its, {"seed"} if _follow(saved) and _follow(mine) else ())
    lines += _other_data(saved, mine, plan)
    if not lines:
        lines += _other_difficulties(saved.analyses, mine.analyses)
    if not lines and saved.iteration <= plan.steps:
        lines += _other_past(saved, plan)
    return lines


def _batch_way(saved: Manifest, mine: Manifest, ranks: int) -> str:
    """What to give for the batch of the checkpoint on so many ranks."""
    size, micro = saved.config["training"]["global_batch_size"], mine.config["training"]["micro_batch_size"]
    if not isinstance(size, int) or not isinstance(micro, int):
        return ""
    if size % ranks:
        return f" (give --global-batch-size {size}, on a number of ranks that divides it)"
    share = max(count for count in range(1, micro + 1) if size // ranks % count == 0)
    smaller = f" --micro-batch-size {share}" if share < micro else ""
    return f" (give --global-batch-size {size}{smaller})"


def _its(name: str) -> str:
    return f"its {TITLES.get(name, name)}"


def _follow(manifest: Manifest) -> bool:
    """Whether the seed of the order of samples is --seed, and one line about that is enough."""
    return manifest.data_efficiency.get("seed") == manifest.config["training"]["seed"]


def _other_data(saved: Manifest, mine: Manifest, plan: Plan) -> list[str]:
    """How the corpora differ, or what is drawn from each; of many the first few."""
    longer = saved.config["data"]["seq_length"] != mine.config["data"]["seq_length"]  # which is told already
    but = {"weight", "seq_length", "samples"} if longer else {"weight"}
    theirs, ours = (
        [{name: value for name, value in corpus.items() if name not in but} for corpus in one.data]
        for one in (saved, mine)
    )
    if theirs == ours:
        seed = mine.data_efficiency.get("seed", 0)
        if not ours or same_draws(saved.data, mine.data, plan, saved.iteration, seed):
            return []
        return [f"its data was drawn by the weights {_weights(saved)} and is by {_weights(mine)}"]
    if sorted(map(str, theirs)) == sorted(map(str, ours)):
        return ["it was trained on the same data in another order"]
    old, new = (one.config["data"]["split"] for one in (saved, mine))
    files = [[corpus.get("fingerprint") for corpus in corpora] for corpora in (theirs, ours)]
    by_split = f", as --split was {old} and is {new}" if old != new and files[0] == files[1] else ""
    return [f"it was trained on other data{by_split}: {_other_corpora(theirs, ours)}"]


def _other_corpora(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    """The first few corpora that differ, and how many there are."""
    nothing: dict[str, Any] = {}
    changed = [
        (number, one, other)
        for number, (one, other) in enumerate(zip_longest(theirs, ours, fillvalue=nothing), 1)
        if one != other
    ]
    lines = [
        f"corpus {number} ({'; '.join(_differences(one, other, str))})"
        for number, one, other in changed[:FEW]
    ]
    total = f"{len(theirs)} corpora" + (f" against {len(ours)}" if len(theirs) != len(ours) else "")
    return f"{_few(lines, len(changed))}, of {total}"


def _weights(manifest: Manifest) -> str:
    parts = [corpus["samples"] if corpus["weight"] is None else corpus["weight"] for corpus in manifest.data]
    return _few([f"{part / sum(parts):.4g}" for part in parts[:FEW]], len(parts), " ")


def _other_difficulties(saved: list[dict[str, str]], mine: list[dict[str, str]]) -> list[str]:
    """Which difficulties came of another analysis. A checkpoint that is older than a checksum says nothing
    about what it is of."""
    changed = [
        f"{name} of corpus {number}"
        for number, (one, other) in enumerate(zip(saved, mine), 1)
        for name in sorted(one.keys() & other.keys())
        if one[name] != other[name]
    ]
    if not changed:
        return []
    return [f"the difficulties of its samples came of another analysis: {_few(changed[:FEW], len(changed))}"]


def _few(lines: list[str], total: int, between: str = ", ") -> str:
    """The first few of many, and how many more there are."""
    more = f"{between}and {total - len(lines)} more" if total > len(lines) else ""
    return between.join(lines) + more


def _other_past(saved: Manifest, plan: Plan) -> list[str]:
    """A plan whose steps so far differ in spite of equal flags: a pacing function of the user's own has
    changed."""
    if line := first_change(saved.rises, plan, saved.iteration):
        return [line]
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
            f"{name} {_words(part)}" for name, part in value.items() if part not in (None, "", [], {}, ())
        )
    if isinstance(value, list | tuple):
        return " and ".join(map(_words, value)) or "none"
    return "none" if value in (None, "") else str(value)
