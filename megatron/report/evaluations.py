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


def number_in(record: dict[str, Any], name: str, form: str) -> str:
    """A number of a file as it is shown."""
    value = _finite(record.get(name))
    return MISSING if math.isnan(value) else format(value, form)


def _finite(value: Any) -> float:
    """A number of a file; NaN where there is none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan
