"""Results of tools/evaluate.py in a report."""

import math
from typing import Any

from megatron.report.comparison import other_windows
from megatron.report.conditions import MISSING

MEASURES = {
    "windows": ("windows", ",.0f"),
    "loss": ("loss, nats a token", ".4f"),
    "perplexity": ("perplexity", ",.2f"),
    "bits_per_byte": ("bits per byte", ".4f"),
}
OF_TEXT = {"loss": "loss, nats a token", "bits_per_byte": "bits per byte"}
OF_QUESTIONS = {
    "accuracy": "accuracy",
    "acc": "acc",
    "acc_norm": "acc_norm, per byte",
    "loss": "loss of the word, nats",
}


def evaluation_rows(found: dict[str, dict[str, Any]], names: list[str]) -> tuple[list[list[str]], list[str]]:
    """Rows of a table with a column a run, from the contents of its file, and warnings where runs were scored
    on different numbers of windows."""
    results = {
        name: {(str(one.get("corpus")), str(one.get("split"))): one for one in entry["results"]}
        for name, entry in found.items()
    }
    rows = [
        ["step of the checkpoint", *(number_in(found.get(name, {}), "iteration", ",.0f") for name in names)]
    ]
    warnings = []
    for corpus in dict.fromkeys(corpus for one in results.values() for corpus in one):
        told = {name: results.get(name, {}).get(corpus, {}) for name in names}
        windows = {name: _finite(one.get("windows")) for name, one in told.items() if name in results}
        warnings += other_windows(windows, " ".join(corpus))
        rows += _rows(" ".join(corpus), list(told.values()))
    asked = [_asked(found.get(name, {})) for name in names]
    headings = dict.fromkeys(heading for one in asked for heading in one)
    rows += [[heading, *(number_in(one, heading, ".4f") for one in asked)] for heading in headings]
    return [row for row in rows if set(row[1:]) != {MISSING}], warnings


def _rows(corpus: str, told: list[dict[str, Any]]) -> list[list[str]]:
    """What is told of a corpus; of an encoder, whose first loss has a row already, all others, too."""
    found = [
        [f"{corpus}: {words}", *(number_in(one, measure, form) for one in told)]
        for measure, (words, form) in MEASURES.items()
    ]
    several = [one.get("losses") or {} for one in told]
    others = dict.fromkeys(name for losses in several for name in [*losses][1:])
    return found + [
        [f"{corpus}: {name}", *(number_in(losses, name, ".4f") for losses in several)] for name in others
    ]


def _asked(entry: dict[str, Any]) -> dict[str, Any]:
    """Numbers of domains, of questions and of the harness' tasks, by the headings of their rows. Tasks that
    were asked otherwise have rows of their own."""
    found: dict[str, Any] = {}
    for one in _objects(entry.get("domains")):
        found |= {f"domain {one.get('domain')}: {words}": one.get(name) for name, words in OF_TEXT.items()}
    for kind, one in _named(entry.get("questions")):
        found |= {f"{kind}: {words}": one[name] for name, words in OF_QUESTIONS.items() if name in one}
    for _, one in _named(entry.get("lm_eval")):
        settings, shots = one.get("settings"), one.get("n-shot")
        limit = settings.get("limit") if isinstance(settings, dict) else None
        for task, numbers in _named(one.get("results")):
            count = shots.get(task) if isinstance(shots, dict) else None
            how = "".join([f", {count}-shot" * (count is not None), f", limit {limit}" * (limit is not None)])
            told = {metric: value for metric, value in numbers.items() if "," in metric}
            found |= {
                f"{task}{how}: {metric.removesuffix(',none')}": value
                for metric, value in told.items()
                if "_stderr," not in metric
            }
    return found


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list in a file."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _named(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """The objects of an object in a file, with their names."""
    items = value.items() if isinstance(value, dict) else ()
    return [(name, one) for name, one in items if isinstance(one, dict)]


def number_in(record: dict[str, Any], name: str, form: str) -> str:
    """A number of a file as it is shown."""
    value = _finite(record.get(name))
    return MISSING if math.isnan(value) else format(value, form)


def _finite(value: Any) -> float:
    """A number of a file; NaN where there is none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan
