"""One description of curriculum and random-LTD, from flags, YAML, or DeepSpeed's `data_efficiency` JSON taken unchanged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron import pacing
from megatron.arguments import parse_list
from megatron.config import Config
from megatron.errors import UserError
from megatron.pacing import Pacing

TRUNCATE, RESHAPE = "seqlen_truncate", "seqlen_reshape"
ALIASES = {"voc": "vocab_rarity", "seqlenvocabrarity": "seqlen_vocab_rarity"}
SPEC_KEYS = {"difficulty", "min", "max", "pacing", "root", "duration", "quantum", "values", "until", "function"}
SPEC_EXAMPLE = "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=1000"


@dataclass(frozen=True)
class Metric:
    """A difficulty metric under a pacing. `difficulty`: the cap is a `value` of the metric, or a `percentile` of the samples."""

    name: str
    difficulty: str
    pacing: Pacing


@dataclass(frozen=True)
class RandomLTD:
    """Random layerwise token dropping (arXiv 2211.11586): which layers (from 0), and how many tokens they keep."""

    layers: tuple[int, ...]
    pacing: Pacing


@dataclass(frozen=True)
class DataEfficiency:
    """What shortens, orders and drops. `metrics` order samples by difficulty; `length` cuts them; `shape` says how:
    "" (not at all), seqlen_truncate or seqlen_reshape. `published`: schedules exactly as DeepSpeed 0.19.8."""

    metrics: tuple[Metric, ...] = ()
    shape: str = ""
    length: Pacing | None = None
    random_ltd: RandomLTD | None = None
    difficulty_paths: tuple[str, ...] = ()
    seed: int = 1234
    published: bool = False


def describe(config: Config) -> tuple[DataEfficiency, list[str]]:
    """The description behind a resolved configuration, and lines about keys of a JSON that are not used. UserError lists
    every problem."""
    flags = config.data_efficiency
    problems: list[str] = []
    notes: list[str] = []
    metrics = [metric for spec in flags.curriculum if (metric := _from_spec(spec, problems))]
    random_ltd = _from_flags(config, problems) if flags.random_ltd else None
    paths, seed = flags.difficulty_path, flags.data_efficiency_seed or 0
    if flags.data_efficiency_config:
        section, top = _read_json(flags.data_efficiency_config)
        notes += [f"{flags.data_efficiency_config}: {key} is not used" for key in top]
        from_json = _Section(flags.data_efficiency_config, section, problems, notes)
        metrics = _agree("--curriculum", metrics, from_json.metrics(), problems)
        random_ltd = _agree("--random-ltd", random_ltd, from_json.random_ltd(config.model.num_layers), problems)
        paths = paths or tuple(from_json.paths)
        seed = int(section.get("seed", seed))
    lengths = [metric for metric in metrics if metric.name in (TRUNCATE, RESHAPE)]
    problems += _checks(config, metrics, lengths, random_ltd)
    if problems:
        raise UserError(*problems)
    described = DataEfficiency(
        metrics=tuple(metric for metric in metrics if metric not in lengths),
        shape=lengths[0].name if lengths else "",
        length=lengths[0].pacing if lengths else None,
        random_ltd=random_ltd,
        difficulty_paths=paths,
        seed=seed,
        published=flags.reference_schedules,
    )
    return described, notes


def _from_spec(spec: str, problems: list[str]) -> Metric | None:
    """A metric from METRIC:key=value,...; None, and a problem told, where the text is not understood."""
    name, _, rest = spec.partition(":")
    pairs = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    unknown = set(pairs) - SPEC_KEYS
    if not rest or unknown:
        why = f"unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(SPEC_KEYS))}" if unknown else "nothing follows the name"
        problems.append(f"--curriculum {spec}: {why}; an example: {SPEC_EXAMPLE}")
        return None
    try:
        shape = Pacing(
            curve=pairs.get("pacing", "fixed_linear"),
            minimum=int(pairs.get("min", 0)),
            maximum=int(pairs.get("max", 0)),
            duration=int(float(pairs.get("duration", 1))),
            quantum=int(pairs.get("quantum", 1)),
            root=float(pairs.get("root", 2 if pairs.get("pacing") == "fixed_root" else 1)),
            values=tuple(int(part) for part in pairs.get("values", "").split("/") if part),
            until=tuple(int(part) for part in pairs.get("until", "").split("/") if part),
            function=pairs.get("function", ""),
        )
    except ValueError as error:
        problems.append(f"--curriculum {spec}: {error}; an example: {SPEC_EXAMPLE}")
        return None
    return Metric(ALIASES.get(name, name), pairs.get("difficulty", "value"), shape)


def _from_flags(config: Config, problems: list[str]) -> RandomLTD | None:
    flags, layers = config.data_efficiency, config.model.num_layers
    if flags.random_ltd_duration is None:
        problems.append("--random-ltd needs --random-ltd-duration, the steps until nothing is dropped")
        return None
    try:
        chosen = parse_list(flags.random_ltd_layers) if flags.random_ltd_layers else list(range(1, layers - 1))
    except ValueError:
        problems.append(f"--random-ltd-layers {flags.random_ltd_layers}: write numbers and ranges, such as 1-22 or 1,3,5")
        return None
    shape = Pacing("fixed_linear", flags.random_ltd_min, flags.random_ltd_max or 0, flags.random_ltd_duration, flags.random_ltd_quantum)
    return RandomLTD(tuple(chosen), shape)


def _agree(flag: str, mine: Any, theirs: Any, problems: list[str]) -> Any:
    """What flags and a JSON say together: either alone, or both when they are the same."""
    if mine and theirs and mine != theirs:
        problems.append(f"{flag} and --data-efficiency-config differ: {mine} against {theirs}; give only one of them")
    return mine or theirs


def _read_json(path: str) -> tuple[dict[str, Any], list[str]]:
    """The data_efficiency section of a JSON file, and the other top-level keys."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"--data-efficiency-config {path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("data_efficiency"), dict):
        hint = ""
        if isinstance(content, dict) and "curriculum_learning" in content:
            hint = "; the older top-level curriculum_learning is written today as the metric seqlen_truncate"
        raise UserError(f"--data-efficiency-config {path}: has no data_efficiency section{hint}")
    return content["data_efficiency"], sorted(content.keys() - {"data_efficiency"})


class _Section:
    """Reads a `data_efficiency` section. Every switch must agree with the ones inside it."""

    def __init__(self, path: str, section: dict[str, Any], problems: list[str], notes: list[str]):
        self.where, self.section, self.problems, self.notes = f"--data-efficiency-config {path}", section, problems, notes
        self.paths: list[str] = []

    def _enabled(self, *names: str) -> dict[str, Any] | None:
        """The inner section `names`, or None where it is off; an outer "off" around an inner "on" is a problem."""
        off = "data_efficiency" if not self.section.get("enabled", False) else ""
        inner: Any = self.section
        for depth, name in enumerate(names):
            inner = inner.get(name, {}) if isinstance(inner, Mapping) else {}
            if not isinstance(inner, Mapping):
                self.problems.append(f"{self.where}: {'.'.join(names[: depth + 1])} must be a section")
                return None
            if not inner.get("enabled", False):
                off = off or ".".join(names[: depth + 1])
            elif off and depth == len(names) - 1:
                self.problems.append(f"{self.where}: {'.'.join(names)} is enabled inside {off}, which is not; set both alike")
        return None if off else dict(inner)

    def metrics(self) -> list[Metric]:
        section = self._enabled("data_sampling", "curriculum_learning")
        sampling = self.section.get("data_sampling", {})
        if isinstance(sampling, Mapping):
            unused = set(sampling) - {"enabled", "curriculum_learning"}
            self.notes += [f"{self.where}: data_sampling.{key} is not used" for key in sorted(unused)]
        if section is None:
            return []
        if "data_cluster_path" in section:
            self.notes.append(f"{self.where}: data_cluster_path is not used; nothing is written at training time")
        inner = section.get("curriculum_metrics")
        if not isinstance(inner, Mapping) or not inner:
            self.problems.append(f"{self.where}: curriculum_learning needs curriculum_metrics")
            return []
        return [metric for name, about in inner.items() if (metric := self._metric(name, about))]

    def _metric(self, name: str, about: Mapping[str, Any]) -> Metric | None:
        try:
            schedule = about.get("schedule_config", {})
            shape = Pacing(
                curve=about["schedule_type"],
                minimum=int(about.get("min_difficulty", 0)),
                maximum=int(about.get("max_difficulty", 0)),
                duration=int(schedule.get("total_curriculum_step", 1)),
                quantum=int(schedule.get("difficulty_step", 1)),
                root=float(schedule.get("root_degree", 1)),
                values=tuple(map(int, schedule.get("difficulty", ()))),
                until=tuple(map(int, schedule.get("max_step", ()))),
                function=str(schedule.get("function", "")),
            )
            metric = Metric(ALIASES.get(name, name), str(about.get("difficulty_type", "value")), shape)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.problems.append(f"{self.where}: the metric {name} is not understood: {type(error).__name__} {error}")
            return None
        if metric.name not in (TRUNCATE, RESHAPE):
            if about.get("clustering_type") == "single_cluster":
                self.problems.append(f"{self.where}: {name} with clustering_type single_cluster orders nothing; write schedule_based")
            folder = Path(str(about.get("index_to_sample_path", "dummy")))
            if (folder / "manifest.json").is_file() and str(folder) not in self.paths:
                self.paths.append(str(folder))
        return metric

    def random_ltd(self, num_layers: int) -> RandomLTD | None:
        section = self._enabled("data_routing", "random_ltd")
        if section is None:
            return None
        try:
            schedule, layers = section["random_ltd_schedule"], tuple(map(int, section["random_ltd_layer_id"]))
            inner = schedule["schedule_config"]
            shape = Pacing(
                schedule.get("schedule_type", "fixed_linear"),
                int(schedule["min_value"]),
                int(schedule["max_value"]),
                int(inner["require_steps"]),
                int(inner["seq_per_step"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.problems.append(f"{self.where}: random_ltd is not understood: {type(error).__name__} {error}")
            return None
        if section.get("layer_token_lr_schedule", {}).get("enabled"):
            self.problems.append(f"{self.where}: layer_token_lr_schedule is not supported; --lr-decay-tokens decays by effective tokens")
        if int(section.get("total_layer_num", num_layers)) != num_layers:
            self.problems.append(f"{self.where}: total_layer_num {section['total_layer_num']} differs from --num-layers {num_layers}")
        if int(section.get("random_ltd_layer_num", len(layers))) != len(layers):
            self.problems.append(f"{self.where}: random_ltd_layer_num {section['random_ltd_layer_num']} but {len(layers)} layer ids")
        return RandomLTD(layers, shape)


def _checks(config: Config, metrics: list[Metric], lengths: list[Metric], random_ltd: RandomLTD | None) -> list[str]:
    """Rules over the whole description."""
    seq_length, layers = config.data.seq_length, config.model.num_layers
    problems = []
    for metric in metrics:
        name = f"curriculum {metric.name}"
        problems += pacing.problems(metric.pacing, name)
        if metric.difficulty not in ("value", "percentile"):
            problems.append(f"{name}: difficulty {metric.difficulty!r} is unknown; choose value or percentile")
        if metric in lengths:
            largest = max(metric.pacing.maximum, *metric.pacing.values, 0)
            if largest > seq_length:
                problems.append(f"{name}: maximum {largest} is above --seq-length {seq_length}")
            if min([metric.pacing.minimum, *metric.pacing.values][metric.pacing.curve == "fixed_discrete" :]) < 1:
                problems.append(f"{name}: a sequence has at least one token; raise the minimum")
            if metric.difficulty != "value":
                problems.append(f"{name}: a length is a value; write difficulty=value")
        elif metric.difficulty == "percentile" and max(metric.pacing.maximum, *metric.pacing.values, 0) > 100:
            problems.append(f"{name}: a percentile is at most 100")
    if len(lengths) > 1:
        problems.append("curriculum: a sequence is either truncated or reshaped; give only one of seqlen_truncate and seqlen_reshape")
    if len({metric.name for metric in metrics}) < len(metrics):
        problems.append("curriculum: a metric is given twice")
    if random_ltd:
        problems += pacing.problems(random_ltd.pacing, "random-LTD")
        if random_ltd.pacing.maximum > seq_length:
            problems.append(f"random-LTD: kept length {random_ltd.pacing.maximum} is above --seq-length {seq_length}")
        if random_ltd.pacing.minimum < 1:
            problems.append(f"random-LTD: kept length {random_ltd.pacing.minimum} must be at least 1")
        outside = [layer for layer in random_ltd.layers if not 0 <= layer < layers]
        if outside:
            problems.append(f"random-LTD: layers {outside} are outside 0-{layers - 1}")
        if not random_ltd.layers:
            problems.append(f"random-LTD: {layers} layers leave none in the middle; give --random-ltd-layers or more layers")
    return problems
