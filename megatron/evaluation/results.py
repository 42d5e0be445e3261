"""The file of results: what it holds of the same checkpoint stays where other things are asked."""

import itertools
import json
import os
from collections.abc import Mapping
from typing import Any

from megatron.evaluation.paper_tasks import TASKS

OF_A_CHECKPOINT = ("iteration", "fingerprint")
"""What two files have alike that are of the same weights. The folder may be called in several ways, and that
of a run that was done anew has the same name."""


def earlier_results(path: str | None, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of results holds of the checkpoint of `content`; nothing where it is of another one, or no
    such file."""
    try:
        with open(path or "", encoding="utf-8") as file:
            there = dict(json.load(file))
        same = all(there[name] == content[name] for name in OF_A_CHECKPOINT)
        return there if same and isinstance(there.get("lm_eval", {}), dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def set_aside(path: str) -> str:
    """Rename a file of results that tells of no weights by their fingerprint, as older ones do, so that it is
    not lost; a line about it, "" where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            there = json.load(file)
    except (OSError, ValueError):
        return ""
    if not isinstance(there, dict) or OF_A_CHECKPOINT[-1] in there:
        return ""
    name, ending = os.path.splitext(path)
    kept = next(one for i in itertools.count(1) if not os.path.exists(one := f"{name}.earlier{i}{ending}"))
    os.rename(path, kept)
    return f"{path}: tells no fingerprint of its weights, so it is not gone on with; it is kept as {kept}"


def with_earlier(content: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """New results beside earlier ones of the same checkpoint; the new ones count. A comparison goes with the
    questions and domains that it was made of, and the paper's mean with its tasks."""
    kept, tasks = dict(there), {**there.get("lm_eval", {})}
    if "questions" in content or "domains" in content:
        kept = {name: value for name, value in kept.items() if not name.startswith("compared")}
    new = content.get("lm_eval", {})
    if any(tasks.get(name) != one for name, one in new.items() if name in TASKS):
        kept.pop("paper_mean", None)
    found = kept | dict(content)
    if not content.get("results"):
        found["results"] = there.get("results", [])
    return found | ({"lm_eval": tasks | new} if tasks or new else {})
