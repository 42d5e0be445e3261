"""How runs were made: on what machine, with what versions, commands and flags, and in what these differ."""

import shlex
from typing import Any

from megatron.base.units import exact
from megatron.report.records import RecordedRun, flags

OUTPUT_PATHS = ("--save", "--metrics-file", "--tensorboard-dir")
SHAPE = {"--num-layers": "layers", "--hidden-size": "wide", "--num-attention-heads": "heads"}
DETAILS = {"--ffn-hidden-size": "MLP", "--seq-length": "sequences of"}
MISSING = "–"


def conditions(run: RecordedRun) -> dict[str, str]:
    """Model, cost, machine and versions of a run as run.json tells them, one row of a table each, a line
    break before details."""
    about = run.description
    resumed = f"\nresumed after step {exact(about['resumed_after'])}" if about.get("resumed_after") else ""
    return {
        "model": _model(flags(run)),
        "parameters": _parameters(run),
        "vocabulary": _count(about.get("vocab_size")),
        "FLOPs": _flops(run),
        "machine": str(about.get("machine") or MISSING),
        "ranks": _count(about.get("world_size")),
        "device": str(about.get("device") or MISSING),
        "versions": _pairs(about.get("versions", {}), " "),
        "commit": str(about.get("commit") or MISSING),
        "environment": _pairs(about.get("environment", {}), "="),
        "started": str(about.get("started") or MISSING) + resumed,
    }


def command(run: RecordedRun) -> str:
    """The command of a run as it was typed, without its launcher; "" where it is not known."""
    words = run.description.get("command")
    return shlex.join(map(str, words)) if isinstance(words, list) else ""


def _model(settings: dict[str, Any]) -> str:
    """The shape of a model in words."""
    shape = [f"{settings[name]} {words}" for name, words in SHAPE.items() if name in settings]
    details = [f"{words} {settings[name]}" for name, words in DETAILS.items() if name in settings]
    experts = experts_in_words(settings)
    details += [experts] if experts else []
    return "\n".join(filter(None, (", ".join(shape), ", ".join(details)))) or MISSING


def experts_in_words(settings: dict[str, Any]) -> str:
    """The experts of a layer; "" for a dense model, or where it is not known."""
    number, few = settings.get("--num-experts", 1), settings.get("--moe-router-topk")
    width = settings.get("--moe-ffn-hidden-size") or settings.get("--ffn-hidden-size")
    wide = f" of width {width}" if width else ""
    return f"{number} experts{wide}, {few} for a token" if number > 1 else ""


def active_parameters(run: RecordedRun) -> int | None:
    """Parameters that compute a token, of a model that has others; None for any other."""
    whole, active = (run.description.get(name) for name in ("parameters", "active_parameters"))
    return active if isinstance(active, int) and active != whole else None


def _pairs(values: dict[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items()) or MISSING


def _parameters(run: RecordedRun) -> str:
    active = active_parameters(run)
    detail = "" if active is None else f"\n{exact(active)} of them active for a token"
    return _count(run.description.get("parameters")) + detail


def _count(number: Any) -> str:
    return exact(number) if isinstance(number, int | float) else MISSING


def _flops(run: RecordedRun) -> str:
    flops, planned = run.description.get("flops"), run.description.get("steps", 0)
    if not isinstance(flops, int | float):
        return MISSING
    whole = [f"of all {exact(planned)} planned steps"] if run.steps < planned else []
    active = ["by the experts that compute a token"] if active_parameters(run) is not None else []
    return "\n".join(filter(None, (f"{flops:.3E}", ", ".join(whole + active))))


def data_in_words(data: Any) -> str:
    """The corpora of a run in words; a text stays as it is."""
    if not isinstance(data, list):
        return str(data)
    parts = []
    for corpus in data:
        weight = f", weight {corpus['weight']:g}" if corpus.get("weight") is not None else ""
        parts.append(f"{corpus['name']} ({exact(corpus['samples'])} samples{weight})")
    return ", ".join(parts)


def differences(runs: list[RecordedRun]) -> list[list[str]]:
    """Rows of a setting and its value in every run, for the settings that differ between the runs that
    left a run.json. Where output goes is no difference."""
    settings = [_settings(run) for run in runs]
    known = [i for i, run in enumerate(runs) if run.description]
    names = [
        name for name in dict.fromkeys(name for one in settings for name in one) if name not in OUTPUT_PATHS
    ]
    rows = [[name, *(_value(one, name) for one in settings)] for name in names]
    return [row for row in rows if len({row[i + 1] for i in known}) > 1]


def _settings(run: RecordedRun) -> dict[str, Any]:
    """Flags, and what else run.json tells that may change numbers or speed."""
    settings = flags(run)
    if settings.get("--load") == settings.get("--save"):
        settings.pop("--load", None)
    settings |= {
        name: run.description[name]
        for name in ("parameters", "vocab_size", "world_size", "device", "machine", "commit")
        if name in run.description
    }
    if run.description.get("data"):
        settings["data"] = data_in_words(run.description["data"])
    for group in ("versions", "environment"):
        settings |= {f"{group}: {name}": value for name, value in run.description.get(group, {}).items()}
    return settings


def _value(settings: dict[str, Any], name: str) -> str:
    """A setting as it would be typed."""
    value = settings.get(name)
    if value is None or value == []:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
