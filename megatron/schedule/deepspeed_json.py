"""DeepSpeed's `data_efficiency` JSON, read unchanged. Every switch must agree with the ones inside it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import no_utf8
from megatron.config.values import number_of
from megatron.schedule.data_efficiency import ALIASES, RESHAPE, TRUNCATE, CurriculumMetric, RandomLTD
from megatron.schedule.pacing import Pacing

METRIC_KEYS = (
    "min_difficulty",
    "max_difficulty",
    "schedule_type",
    "schedule_config",
    "difficulty_type",
    "clustering_type",
    "index_to_sample_path",
)

TOTAL = "total_curriculum_step"
SCHEDULE_KEYS = {
    "fixed_linear": (TOTAL, "difficulty_step"),
    "fixed_root": (TOTAL, "difficulty_step", "root_degree"),
    "fixed_discrete": ("difficulty", "max_step"),
    "custom": ("function",),
}
"""What DeepSpeed wants of the schedule_config of each schedule_type."""

RANDOM_LTD_KEYS = {
    "random_ltd": ("random_ltd_layer_id", "random_ltd_schedule"),
    "random_ltd_schedule": ("min_value", "max_value", "schedule_config"),
    "schedule_config": ("require_steps", "seq_per_step"),
}
RANDOM_LTD_OPTIONAL = ("total_layer_num", "random_ltd_layer_num", "layer_token_lr_schedule", "schedule_type")

KNOWN = {
    "data_efficiency",
    "curriculum_learning",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
}
"""Every DeepSpeed configuration has one of these; one without a data_efficiency section only says nothing
about it."""


def read_deepspeed_json(path: str) -> dict[str, Any]:
    """A DeepSpeed configuration. UserError where the file holds none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_without_doubles)
    except UnicodeDecodeError as error:
        raise UserError(
            f"--data-efficiency-config {path}: cannot be read as JSON: {no_utf8(error)}"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error}{_more_than_json(error)}"
        raise UserError(f"--data-efficiency-config {path}: cannot be read as JSON: {why}") from None
    known = content.keys() & KNOWN if isinstance(content, dict) else ()
    if not known or not isinstance(content.get("data_efficiency", {}), dict):
        raise UserError(
            f"--data-efficiency-config {path}: has no data_efficiency section; add one or leave the flag out"
        )
    return content


def _more_than_json(error: ValueError) -> str:
    """The way out where a file has what only relatives of JSON know: comments, and a comma behind the last
    of several."""
    if not isinstance(error, json.JSONDecodeError):
        return ""
    before, rest = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if rest.startswith(("#", "//", "/*")):
        return "; JSON has no comments, take them out"
    last = rest.startswith(("}", "]")) and before.endswith(",")
    if last or re.match(r",\s*[}\]]", rest):
        return "; JSON has no comma behind the last of several, take it out"
    return ""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice: which one counts would be a guess."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the key {', '.join(twice)} stands twice")
    return dict(pairs)


def legacy_problems(path: str, content: dict[str, Any]) -> list[str]:
    """That the older top-level curriculum_learning is switched on, with the flag that says the same."""
    legacy = content.get("curriculum_learning")
    if not isinstance(legacy, dict) or not legacy.get("enabled"):
        return []
    return [
        f"--data-efficiency-config {path}: the older top-level curriculum_learning is enabled, which "
        f"DeepSpeed has taken out; write --curriculum {_legacy_spec(legacy)}"
    ]


def _legacy_spec(legacy: dict[str, Any]) -> str:
    """The curriculum of an older section as the flag has it; with dots for what it does not say."""
    schedule = legacy.get("schedule_config")
    schedule = schedule if isinstance(schedule, dict) else {}
    if legacy.get("schedule_type") == "fixed_discrete":
        lists = (schedule.get("difficulty"), schedule.get("max_step"))
        values, until = ("/".join(map(str, one)) if isinstance(one, list) else "..." for one in lists)
        return f"{TRUNCATE}:pacing=fixed_discrete,values={values},until={until}"
    words = {
        "min": legacy.get("min_difficulty", "..."),
        "max": legacy.get("max_difficulty", "..."),
        "duration": schedule.get("total_curriculum_step", "..."),
        "quantum": schedule.get("difficulty_step", "..."),
    }
    if legacy.get("schedule_type") == "fixed_root":
        words |= {"pacing": "fixed_root", "root": schedule.get("root_degree", "...")}
    return f"{TRUNCATE}:{','.join(f'{name}={value}' for name, value in words.items())}"


def _numbers(name: str, value: Any) -> tuple[int, ...]:
    """A list of whole numbers; TypeError or ValueError where it is none, as in "123", whose every letter is
    one."""
    if not isinstance(value, list):
        raise TypeError(f"{name} takes a list of whole numbers, not {json.dumps(value)}")
    return tuple(number_of(name, one, int) for one in value)


class DataEfficiencySection:
    """A `data_efficiency` section. What is wrong goes to `problems`, what is not used to `notes`, folders
    of analyses to `paths`."""

    def __init__(self, path: str, section: dict[str, Any], problems: list[str], notes: list[str]):
        self.where, self.section, self.problems, self.notes = (
            f"--data-efficiency-config {path}",
            section,
            problems,
            notes,
        )
        self.paths: list[str] = []

    def _enabled(self, *names: str) -> dict[str, Any] | None:
        """The inner section `names`, or None where it is off; an outer "off" around an inner "on" is a
        problem."""
        off = "data_efficiency" if not self._switch(self.section, "data_efficiency") else ""
        inner: Any = self.section
        for depth, name in enumerate(names):
            inner = inner.get(name, {}) if isinstance(inner, Mapping) else {}
            if not isinstance(inner, Mapping):
                self.problems.append(f"{self.where}: {'.'.join(names[: depth + 1])} must be a section")
                return None
            if not self._switch(inner, ".".join(names[: depth + 1])):
                off = off or ".".join(names[: depth + 1])
            elif off and depth == len(names) - 1:
                self.problems.append(
                    f"{self.where}: {'.'.join(names)} is enabled inside {off}, which is not; set both alike"
                )
        return None if off else dict(inner)

    def _switch(self, section: Mapping[str, Any], name: str) -> bool:
        """Whether a section is enabled. A text such as "false" would count as true in DeepSpeed."""
        value = section.get("enabled", False)
        problem = f"{self.where}: {name}.enabled takes true or false, not {json.dumps(value)}"
        if value not in (None, False, True) and problem not in self.problems:
            self.problems.append(problem)
        return bool(value)

    def _unused(self, section: Any, name: str, *used: str) -> None:
        if isinstance(section, Mapping):
            self.notes += [
                f"{self.where}: {name}{key} is not used"
                for key in sorted(section.keys() - {"enabled", *used})
            ]

    def _need(self, section: Any, name: str, *needed: str) -> None:
        """That a section is one, and has what it needs; what it has instead shows a misspelt key."""
        missing = [key for key in needed if key not in section] if isinstance(section, Mapping) else []
        if not isinstance(section, Mapping | None):
            self.problems.append(f"{self.where}: {name} must be a section")
        if missing:
            has = ", ".join(sorted(section)) or "nothing"
            self.problems.append(f"{self.where}: {name} needs {', '.join(missing)}; it has {has}")

    def seed(self, flag: int, default: int) -> int:
        self._unused(self.section, "", "seed", "data_sampling", "data_routing")
        given = self.section.get("seed", flag)
        if not isinstance(given, int):
            self.problems.append(f"{self.where}: seed {given!r} must be a whole number")
            return flag
        if flag not in (default, given):
            self.problems.append(
                f"--data-efficiency-seed {flag} and --data-efficiency-config differ: {given}; give only "
                "one of them"
            )
        return given

    def metrics(self) -> list[CurriculumMetric]:
        section = self._enabled("data_sampling", "curriculum_learning")
        sampling = self.section.get("data_sampling", {})
        self._unused(sampling, "data_sampling.", "curriculum_learning")
        if (
            isinstance(sampling, Mapping)
            and isinstance(inner := sampling.get("dynamic_batching"), Mapping)
            and inner.get("enabled")
        ):
            self.problems.append(
                f"{self.where}: data_sampling.dynamic_batching is not part of this version; disable it"
            )
        if section is None:
            return []
        self._unused(section, "curriculum_learning.", "curriculum_metrics")
        inner = section.get("curriculum_metrics")
        if not isinstance(inner, Mapping) or not inner:
            self.problems.append(f"{self.where}: curriculum_learning needs curriculum_metrics; add it")
            return []
        return [metric for name, entry in inner.items() if (metric := self._metric(name, entry))]

    def _metric(self, name: str, entry: Mapping[str, Any]) -> CurriculumMetric | None:
        if self._metric_lacks(name, entry):
            return None
        try:
            schedule, curve = entry["schedule_config"], str(entry["schedule_type"])
            grows, rooted = curve in ("fixed_linear", "fixed_root"), curve == "fixed_root"
            pacing = Pacing(
                curve=curve,
                minimum=number_of("min_difficulty", entry.get("min_difficulty", 0), int),
                maximum=number_of("max_difficulty", entry.get("max_difficulty", 0), int),
                duration=number_of(TOTAL, schedule[TOTAL], int) if grows else 1,
                quantum=number_of("difficulty_step", schedule.get("difficulty_step", 1), int),
                root=number_of("root_degree", schedule["root_degree"], float) if rooted else 1.0,
                values=_numbers("difficulty", schedule.get("difficulty", [])),
                until=_numbers("max_step", schedule.get("max_step", [])),
                function=str(schedule.get("function", "")),
            )
            metric = CurriculumMetric(
                ALIASES.get(name, name), str(entry.get("difficulty_type", "value")), pacing
            )
            self._unused(entry, f"{name}.", *METRIC_KEYS)
            self._unused(schedule, f"{name}.schedule_config.", *SCHEDULE_KEYS.get(pacing.curve, ()))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            self.problems.append(
                f"{self.where}: the metric {name} is not understood: {type(error).__name__} {error}"
            )
            return None
        if metric.name not in (TRUNCATE, RESHAPE):
            if entry.get("clustering_type") == "single_cluster":
                self.problems.append(
                    f"{self.where}: {name} with clustering_type single_cluster orders nothing; write "
                    "schedule_based"
                )
            folder = Path(str(entry.get("index_to_sample_path", "dummy")))
            if not (folder / "manifest.json").is_file():
                self.notes.append(
                    f"{self.where}: {name}.index_to_sample_path {folder} is no analysis by "
                    "tools/analyze_data.py and not used"
                )
            elif str(folder) not in self.paths:
                self.paths.append(str(folder))
        return metric

    def _metric_lacks(self, name: str, entry: Any) -> bool:
        """Whether a metric or its schedule_config lacks a key, without which another value would count."""
        told, inner = len(self.problems), entry if isinstance(entry, Mapping) else {}
        curve = str(inner.get("schedule_type"))
        bounds = () if curve == "fixed_discrete" else ("min_difficulty", "max_difficulty")
        self._need(entry, name, "schedule_type", "schedule_config", *bounds)
        self._need(inner.get("schedule_config"), f"{name}.schedule_config", *SCHEDULE_KEYS.get(curve, ()))
        return len(self.problems) > told

    def random_ltd(self, num_layers: int) -> RandomLTD | None:
        section = self._enabled("data_routing", "random_ltd")
        self._unused(self.section.get("data_routing"), "data_routing.", "random_ltd")
        if section is None or self._random_ltd_lacks(section):
            return None
        try:
            schedule = section["random_ltd_schedule"]
            layers = _numbers("random_ltd_layer_id", section["random_ltd_layer_id"])
            inner = schedule["schedule_config"]
            total = int(section.get("total_layer_num", num_layers))
            counted = int(section.get("random_ltd_layer_num", len(layers)))
            curve = str(schedule.get("schedule_type", "fixed_linear"))
            scheduled = section.get("layer_token_lr_schedule", {}).get("enabled")
            pacing = Pacing(
                "fixed_linear",
                *(number_of(key, schedule[key], int) for key in ("min_value", "max_value")),
                *(number_of(key, inner[key], int) for key in ("require_steps", "seq_per_step")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            self.problems.append(
                f"{self.where}: random_ltd is not understood: {type(error).__name__} {error}"
            )
            return None
        if curve != "fixed_linear":
            self.problems.append(
                f"{self.where}: random_ltd has the schedule_type fixed_linear alone, not {curve}; write that"
            )
        if scheduled:
            self.problems.append(
                f"{self.where}: layer_token_lr_schedule is not supported; --lr-decay-tokens decays by "
                "effective tokens"
            )
        if total != num_layers:
            self.problems.append(
                f"{self.where}: total_layer_num {section['total_layer_num']} differs from --num-layers "
                f"{num_layers}; make them agree"
            )
        if counted != len(layers):
            self.problems.append(
                f"{self.where}: random_ltd_layer_num {section['random_ltd_layer_num']} but {len(layers)} "
                "layer ids; make them agree"
            )
        return RandomLTD(layers, pacing)

    def _random_ltd_lacks(self, section: Mapping[str, Any]) -> bool:
        """Whether random_ltd or a section in it lacks a key. What else stands there is told."""
        told = len(self.problems)
        schedule = section.get("random_ltd_schedule")
        inner = schedule.get("schedule_config") if isinstance(schedule, Mapping) else None
        for name, part in zip(RANDOM_LTD_KEYS, (section, schedule, inner)):
            self._unused(part, f"{name}.", *RANDOM_LTD_KEYS[name], *RANDOM_LTD_OPTIONAL)
            self._need(part, name, *RANDOM_LTD_KEYS[name])
        return len(self.problems) > told
