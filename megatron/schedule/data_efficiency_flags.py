"""The description of curriculum and random-LTD from flags or YAML, and from DeepSpeed's JSON where one is
given."""

from typing import Any

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.config.values import parse_list
from megatron.schedule.data_efficiency import (
    ALIASES,
    RESHAPE,
    TRUNCATE,
    CurriculumMetric,
    DataEfficiency,
    RandomLTD,
)
from megatron.schedule.deepspeed_json import DataEfficiencySection, read_deepspeed_json
from megatron.schedule.pacing import Pacing, pacing_problems

SPEC_KEYS = {
    "difficulty",
    "min",
    "max",
    "pacing",
    "root",
    "duration",
    "quantum",
    "values",
    "until",
    "function",
}
NEEDED = {
    "fixed_linear": ("max", "duration"),
    "fixed_root": ("max", "duration"),
    "fixed_discrete": ("values",),
    "custom": ("max", "function"),
}
SPEC_EXAMPLE = "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=1000"


def describe(config: Config) -> tuple[DataEfficiency, list[str]]:
    """The description behind a resolved configuration, and lines about keys of a JSON that are not used.
    UserError lists every problem."""
    flags = config.data_efficiency
    problems: list[str] = []
    notes: list[str] = []
    metrics = [metric for spec in flags.curriculum if (metric := _from_spec(spec, problems))]
    bare = flags.data_efficiency_config and flags.random_ltd_duration is None
    random_ltd = _from_flags(config, problems) if flags.random_ltd and not bare else None
    paths, seed = flags.difficulty_path, flags.data_efficiency_seed
    if flags.data_efficiency_config:
        section, top = read_deepspeed_json(flags.data_efficiency_config)
        notes += [f"{flags.data_efficiency_config}: {key} is not used" for key in top]
        from_json = DataEfficiencySection(flags.data_efficiency_config, section, problems, notes)
        metrics = _agree("--curriculum", metrics, from_json.metrics(), problems)
        random_ltd = _agree(
            "--random-ltd", random_ltd, from_json.random_ltd(config.model.num_layers), problems
        )
        if flags.random_ltd and not random_ltd and not problems:
            _from_flags(config, problems)
        paths = paths or tuple(from_json.paths)
        seed = from_json.seed(seed, config.training.seed)
    lengths = [metric for metric in metrics if metric.name in (TRUNCATE, RESHAPE)]
    problems += _checks(config, metrics, lengths, random_ltd)
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
        reference_schedules=flags.reference_schedules,
    )
    return described, notes


def _from_spec(spec: str, problems: list[str]) -> CurriculumMetric | None:
    """A metric from METRIC:key=value,...; None, and a problem told, where the text is not understood."""
    name, _, rest = spec.partition(":")
    pairs = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    unknown = set(pairs) - SPEC_KEYS
    if not rest or unknown:
        why = (
            f"unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(SPEC_KEYS))}"
            if unknown
            else "nothing follows the name"
        )
        problems.append(f"--curriculum {spec}: {why}; an example: {SPEC_EXAMPLE}")
        return None
    curve = pairs.get("pacing", "fixed_linear")
    missing = [key for key in NEEDED.get(curve, ()) if key not in pairs]
    if curve != "fixed_discrete" and ("values" in pairs or "until" in pairs):
        problems.append(f"--curriculum {spec}: values and until go with pacing=fixed_discrete")
        return None
    if missing or not name:
        problems.append(
            f"--curriculum {spec}: {', '.join(missing) or 'the name'} is missing; an example: {SPEC_EXAMPLE}"
        )
        return None
    try:
        pacing = Pacing(
            curve=curve,
            minimum=int(pairs.get("min", 0)),
            maximum=int(pairs.get("max", 0)),
            duration=int(float(pairs.get("duration", 1))),
            quantum=int(pairs.get("quantum", 1)),
            root=float(pairs.get("root", 2 if pairs.get("pacing") == "fixed_root" else 1)),
            values=tuple(int(part) for part in pairs.get("values", "").split("/") if part),
            until=tuple(int(part) for part in pairs.get("until", "").split("/") if part),
            function=pairs.get("function", ""),
        )
    except (ValueError, OverflowError) as error:
        problems.append(f"--curriculum {spec}: {error}; an example: {SPEC_EXAMPLE}")
        return None
    return CurriculumMetric(ALIASES.get(name, name), pairs.get("difficulty", "value"), pacing)


def _from_flags(config: Config, problems: list[str]) -> RandomLTD | None:
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


def _agree(flag: str, mine: Any, theirs: Any, problems: list[str]) -> Any:
    """What flags and a JSON say together: either alone, or both when they are the same."""
    if isinstance(mine, list):
        mine, theirs = (sorted(some, key=lambda metric: metric.name) for some in (mine, theirs))
    if mine and theirs and mine != theirs:
        problems.append(
            f"{flag} and --data-efficiency-config differ: {mine} against {theirs}; give only one of them"
        )
    return mine or theirs


def _checks(
    config: Config,
    metrics: list[CurriculumMetric],
    lengths: list[CurriculumMetric],
    random_ltd: RandomLTD | None,
) -> list[str]:
    """Rules over the whole description."""
    seq_length, layers = config.data.seq_length, config.model.num_layers
    problems = []
    for metric in metrics:
        name = f"curriculum {metric.name}"
        problems += pacing_problems(metric.pacing, name)
        if metric.difficulty not in ("value", "percentile"):
            problems.append(
                f"{name}: difficulty {metric.difficulty!r} is unknown; choose value or percentile"
            )
        if metric in lengths:
            largest = max(metric.pacing.maximum, *metric.pacing.values, 0)
            if largest > seq_length:
                problems.append(f"{name}: maximum {largest} is above --seq-length {seq_length}")
            smallest = {"fixed_discrete": min(metric.pacing.values, default=1), "custom": 1}.get(
                metric.pacing.curve, metric.pacing.minimum
            )
            if smallest < 1:
                problems.append(f"{name}: a sequence has at least one token; raise the minimum")
            if metric.difficulty != "value":
                problems.append(f"{name}: a length is a value; write difficulty=value")
        elif (
            metric.difficulty == "percentile"
            and (largest := max(metric.pacing.maximum, *metric.pacing.values, 0)) > 100
        ):
            problems.append(f"{name}: maximum {largest} is above 100, and a percentile is at most that")
    if len(lengths) > 1:
        problems.append(
            "curriculum: a sequence is either truncated or reshaped; give only one of seqlen_truncate "
            "and seqlen_reshape"
        )
    names = [metric.name for metric in metrics]
    problems += [
        f"curriculum {name}: the metric is given twice"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if random_ltd:
        problems += pacing_problems(random_ltd.pacing, "random-LTD")
        if random_ltd.pacing.maximum > seq_length:
            problems.append(
                f"random-LTD: kept length {random_ltd.pacing.maximum} is above --seq-length {seq_length}"
            )
        if random_ltd.pacing.minimum < 1:
            problems.append(f"random-LTD: kept length {random_ltd.pacing.minimum} must be at least 1")
        outside = [layer for layer in random_ltd.layers if not 0 <= layer < layers]
        twice = sorted({layer for layer in random_ltd.layers if random_ltd.layers.count(layer) > 1})
        if twice:
            problems.append(f"random-LTD: layers {twice} are given twice")
        if outside:
            problems.append(f"random-LTD: layers {outside} are outside 0-{layers - 1}")
        if not random_ltd.layers:
            problems.append(
                f"random-LTD: {layers} layers leave none in the middle; give --random-ltd-layers or more "
                "layers"
            )
    return problems
