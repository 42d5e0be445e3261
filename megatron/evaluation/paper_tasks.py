"""The 19 tasks of arXiv 2212.03597 by their present names in EleutherAI's lm-evaluation-harness, and their
plain mean, as the paper gives it, with the standard error that it does not give."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

GROUP = "paper"
TASKS = {
    "hellaswag": "acc_norm,none",
    "lambada_openai": "acc,none",
    "triviaqa": "exact_match,remove_whitespace",
    "webqs": "exact_match,none",
    "winogrande": "acc,none",
    "piqa": "acc_norm,none",
    "arc_challenge": "acc_norm,none",
    "arc_easy": "acc_norm,none",
    "anli_r1": "acc,none",
    "anli_r2": "acc,none",
    "anli_r3": "acc,none",
    "openbookqa": "acc_norm,none",
    "race": "acc,none",
    "boolq": "acc,none",
    "copa": "acc,none",
    "rte": "acc,none",
    "wsc": "acc,none",
    "multirc": "acc,none",
    "record": "f1,none",
}
"""The metric of each that counts, as the harness names it: with the filter of its answers."""
NOTE = (
    "WSC (104 questions) and COPA (100) are small, and one answer to all questions gets 36.5 or 63.5 % of "
    "WSC. MultiRC's accuracy is over single answers here; the paper's harness counted questions whose "
    "answers are all right, near 1 % for every model"
)


class Mean(NamedTuple):
    """The mean of the tasks in per cent, its standard error, None where a task has none, and which tasks are
    missing."""

    value: float
    error: float | None
    missing: tuple[str, ...]


def paper_mean(results: Mapping[str, Mapping[str, Any]]) -> Mean | None:
    """Of the harness' numbers by task; None without any. Tasks have samples of their own, so the variances of
    their means add up."""
    there = {task: results[task] for task, metric in TASKS.items() if metric in results.get(task, {})}
    if not there:
        return None
    values = [float(found[TASKS[task]]) for task, found in there.items()]
    errors = [found.get(TASKS[task].replace(",", "_stderr,")) for task, found in there.items()]
    count, error = len(values), None
    if all(isinstance(one, int | float) for one in errors):
        error = 100 * math.sqrt(sum(one**2 for one in errors if one is not None)) / count
    missing = tuple(task for task in TASKS if task not in there)
    return Mean(100 * sum(values) / count, error, missing)
