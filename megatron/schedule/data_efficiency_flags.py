"""The description of curriculum and random-LTD from flags or YAML, and from DeepSpeed's JSON where one is
given."""

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.config.data import DataConfig
from megatron.config.data_efficiency import DataEfficiencyConfig, given_dropping
from megatron.config.literal import LEFT_OUT, is_nothing
from megatron.config.model import ModelConfig
from megatron.config.training import TrainingConfig
from megatron.config.values import number_of, parse_list
from megatron.schedule.data_efficiency import (
    ALIASES,
    CurriculumMetric,
    DataEfficiency,
    RandomLTD,
    same_dropping,
    same_metrics,
)
from megatron.schedule.data_efficiency_rules import LENGTHS, broken_rules
from megatron.schedule.deepspeed_json import DataEfficiencySection, legacy_problems, read_deepspeed_json
from megatron.schedule.deepspeed_training import contradictions, unused_keys
from megatron.schedule.pacing import NEEDED, Pacing, as_deepspeed

USED = {
    "fixed_linear": {"min", "max", "duration", "quantum"},
    "fixed_root": {"min", "max", "duration", "quantum", "root"},
    "fixed_discrete": {"min", "max", "values", "until"},
    "custom": {"max", "function"},
}
"""What a --curriculum may say for each pacing."""
OF_VALUES = {"values", "until"}
"""What is refused with another pacing than theirs, as it says a whole schedule."""
SPEC_KEYS = {"difficulty", "pacing"}.union(*USED.values())
SPEC_EXAMPLE = "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=1000"


def describe(config: Config | SimpleNamespace) -> tuple[DataEfficiency, list[str]]:
    """The description behind a resolved configuration, and lines about keys of a JSON that are not used.
    UserError lists every problem."""
    flags = config.data_efficiency
    problems: list[str] = []
    notes: list[str] = []
    metrics = [metric for spec in flags.curriculum if (metric := metric_from_spec(spec, problems, notes))]
    bare = flags.data_efficiency_config and not given_dropping(flags, config.data.seq_length)
    random_ltd = _from_flags(config, problems) if flags.random_ltd and not bare else None
    exactly = flags.reference_schedules
    paths, seed = flags.difficulty_path, flags.data_efficiency_seed
    if flags.data_efficiency_config:
        content = read_deepspeed_json(flags.data_efficiency_config)
        problems += legacy_problems(flags.data_efficiency_config, content)
        notes += unused_keys(flags.data_efficiency_config, content)
        section = content.get("data_efficiency", {})
        from_json = DataEfficiencySection(flags.data_efficiency_config, section, problems, notes)
        theirs = from_json.metrics()
        if metrics and theirs and same_metrics(metrics, exactly) != same_metrics(theirs, exactly):
            problems.append(_differ("--curriculum", metrics, theirs))
        dropping = from_json.random_ltd(config.model.num_layers)
        if random_ltd and dropping and same_dropping(random_ltd) != same_dropping(dropping):
            problems.append(_differ("--random-ltd", random_ltd, dropping))
        metrics, random_ltd = metrics or theirs, random_ltd or dropping
        if flags.random_ltd and not random_ltd and not problems:
            _from_flags(config, problems)
        paths = paths or tuple(from_json.paths)
        seed = from_json.seed(seed, config.training.seed)
    problems += broken_rules(metrics, random_ltd, config.data.seq_length, config.model.num_layers, exactly)
    if exactly:
        metrics = [_cut_short(metric, notes) for metric in metrics]
    lengths = [metric for metric in metrics if metric.name in LENGTHS]
    if flags.difficulty_path and len(lengths) == len(metrics):
        given = " ".join(flags.difficulty_path)
        notes.append(f"--difficulty-path {given}: not used, as no curriculum orders by difficulty")
    if problems:
        raise UserError(*problems)
    described = DataEfficiency(
        metrics=tuple(
            sorted((metric for metric in metrics if metric not in lengths), key=lambda metric: metric.name)
        ),
        length_metric=lengths[0].name if lengths else "",
        length=lengths[0].pacing if lengths else None,
        random_ltd=random_ltd,
        difficulty_paths=paths,
        seed=seed,
        reference_schedules=exactly,
    )
    return described, notes


def described(
    model: ModelConfig, data: DataConfig, training: TrainingConfig, data_efficiency: DataEfficiencyConfig
) -> list[str]:
    """What is wrong with a curriculum and random-LTD, as a rule over the groups of flags that describe
    them."""
    try:
        describe(SimpleNamespace(model=model, data=data, training=training, data_efficiency=data_efficiency))
    except UserError as error:
        return list(error.problems)
    return []


def switched_off(values: Mapping[str, Any]) -> list[str]:
    """What is wrong where --random-ltd false stands beside a JSON that drops tokens. Only `values`, given by
    flag name, tell it from a flag that is not given, which agrees with everything."""
    path = values.get("data_efficiency_config")
    if not path or values.get("random_ltd") is not False:
        return []
    section = read_deepspeed_json(path).get("data_efficiency", {})
    if not DataEfficiencySection(path, section, [], []).random_ltd(values.get("num_layers") or 1):
        return []
    return [f"--random-ltd false, and {path} enables random_ltd; leave the flag out, or say false there, too"]


RULES = (described, contradictions)
"""Rules over what curriculum and random-LTD are made from, beside those of the flags alone."""


def _numbers(pairs: dict[str, str], key: str) -> tuple[int, ...]:
    """Whole numbers apart by slashes."""
    return tuple(number_of(key, part, int) for part in pairs.get(key, "").split("/") if part)


def metric_from_spec(spec: str, problems: list[str], notes: list[str]) -> CurriculumMetric | None:
    """A metric from METRIC:key=value,...; None, and a problem told, where the text is not understood; a note
    where a key does nothing."""
    name, _, rest = (part.strip() for part in spec.partition(":"))
    parts = [part.partition("=") for part in rest.split(",") if part]
    keys = [key.strip() for key, _, _ in parts]
    pairs = dict(zip(keys, (value.strip() for _, _, value in parts)))
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        problems.append(f"--curriculum {spec}: {', '.join(twice)} stands twice; keep one")
        return None
    curve = pairs.get("pacing", "fixed_linear")
    idle = set(pairs) & SPEC_KEYS - {"difficulty", "pacing"} - USED.get(curve, SPEC_KEYS)
    if idle & OF_VALUES:
        problems.append(f"--curriculum {spec}: {_idle_words(idle, curve)}")
        return None
    notes += [f"--curriculum {spec}: {_idle_words(idle, curve)}"] if idle else []
    if why := _not_understood(name, pairs, curve):
        problems.append(f"--curriculum {spec}: {why}; an example: {SPEC_EXAMPLE}")
        return None
    try:
        pacing = Pacing(
            curve=curve,
            minimum=number_of("min", pairs.get("min", 0), int),
            maximum=number_of("max", pairs.get("max", 0), int),
            duration=number_of("duration", pairs.get("duration", 1), int),
            quantum=number_of("quantum", pairs.get("quantum", 1), int),
            root=number_of("root", pairs.get("root", 2 if curve == "fixed_root" else 1), float),
            values=_numbers(pairs, "values"),
            until=_numbers(pairs, "until"),
            function=pairs.get("function", ""),
        )
    except ValueError as error:
        problems.append(f"--curriculum {spec}: {error}; an example: {SPEC_EXAMPLE}")
        return None
    return CurriculumMetric(ALIASES.get(name, name), pairs.get("difficulty", "value"), pacing)


def _not_understood(name: str, pairs: dict[str, str], curve: str) -> str:
    """What is wrong with the keys of a metric; "" where nothing is."""
    if not pairs:
        return f"is a word for nothing; {LEFT_OUT}" if is_nothing(name) else "nothing follows the name"
    if ":" in (first := next(iter(pairs))):
        return f"in training a metric of your own is named by its function: {first.partition(':')[0]}:..."
    if any(value.startswith("[") for value in pairs.values()):
        return "write several values with / between them, such as values=8/16/64"
    if unknown := sorted(set(pairs) - SPEC_KEYS):
        return f"unknown {', '.join(unknown)}; known are {', '.join(sorted(SPEC_KEYS))}"
    missing = [key for key in NEEDED.get(curve, ()) if key not in pairs]
    return f"{', '.join(missing) or 'the name'} is missing" if missing or not name else ""


def _idle_words(idle: set[str], curve: str) -> str:
    """That these keys do nothing, and the pacing that has them, where one has all."""
    users = [f"pacing={one}" for one, keys in USED.items() if idle <= keys]
    does, it = ("do", "them") if len(idle) > 1 else ("does", "it")
    words = f"{', '.join(sorted(idle))} {does} nothing with pacing={curve}; leave {it} out"
    return words + (f", or write {users[0]}" if users else "")


def _from_flags(config: Config | SimpleNamespace, problems: list[str]) -> RandomLTD | None:
    flags, layers = config.data_efficiency, config.model.num_layers
    if flags.random_ltd_duration is None:
        problems.append("--random-ltd needs --random-ltd-duration, the steps until nothing is dropped")
        return None
    try:
        chosen = (
            parse_list(flags.random_ltd_layers) if flags.random_ltd_layers else list(range(1, layers - 1))
        )
    except ValueError:
        problems.append(
            f"--random-ltd-layers {flags.random_ltd_layers}: write rising numbers and ranges, such as "
            "1-22 or 1,3,5"
        )
        return None
    pacing = Pacing(
        "fixed_linear",
        flags.random_ltd_min,
        flags.random_ltd_max,
        flags.random_ltd_duration,
        flags.random_ltd_quantum,
    )
    return RandomLTD(tuple(chosen), pacing)


def _differ(flag: str, mine: Any, theirs: Any) -> str:
    """That flags and a JSON say different things."""
    words = f"{_words(mine)} against {_words(theirs)}"
    return f"{flag} and --data-efficiency-config differ: {words}; give only one of them"


def _cut_short(metric: CurriculumMetric, notes: list[str]) -> CurriculumMetric:
    """The metric as DeepSpeed goes through its values, and a note where it leaves some out."""
    pacing = as_deepspeed(metric.pacing)
    if pacing.values != metric.pacing.values:
        notes.append(
            f"curriculum {metric.name}: stays at {pacing.values[-1]}, where its maximum "
            f"{pacing.maximum} is reached, as DeepSpeed does; the other values are not used"
        )
    return dataclasses.replace(metric, pacing=pacing)


def _words(described: list[CurriculumMetric] | RandomLTD) -> str:
    """Metrics or random-LTD as people write them; numbers that say nothing are left out."""
    if isinstance(described, RandomLTD):
        return f"layers {' '.join(map(str, described.layers))} by {_pacing_words(described.pacing)}"
    metrics = [f"{one.name} ({one.difficulty}, {_pacing_words(one.pacing)})" for one in described]
    return " and ".join(metrics)


def _pacing_words(pacing: Pacing) -> str:
    parts = dataclasses.asdict(pacing).items()
    return ", ".join(f"{name}={value}" for name, value in parts if value not in ((), "", 0))
