"""The paper's 19 tasks as the installed harness has them: they are read from its files, without data."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from megatron.evaluation.paper_tasks import TASKS, paper_mean

FOLDERS = ("hellaswag", "lambada", "triviaqa", "webqs", "winogrande", "piqa")
FOLDERS += ("arc", "anli", "openbookqa", "race", "super_glue", "glue")
"""Those that hold the tasks; reading all of them takes many seconds."""


@pytest.fixture(scope="module")
def installed() -> dict[str, dict[str, Any]]:
    """The settings of tasks by name, those that a file includes among them."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or found.origin is None:
        pytest.skip("lm-eval is not installed")
    from lm_eval.tasks._index import TaskIndex

    index = TaskIndex.build(Path(found.origin).parent / "tasks" / folder for folder in FOLDERS)
    return {name: one.cfg for name, one in index.items() if one.kind.name == "TASK" and one.cfg}


@pytest.mark.parametrize("task", TASKS)
def test_the_harness_has_the_task_and_counts_the_metric_that_is_averaged(
    task: str, installed: dict[str, dict[str, Any]]
) -> None:
    """By the plain mean of a task's documents, and behind the filter of answers that its name tells."""
    settings = installed[task]
    metric, answers = TASKS[task].split(",")
    (counted,) = (one for one in settings["metric_list"] if one["metric"] == metric)
    assert counted.get("aggregation", "mean") == "mean" and counted.get("higher_is_better", True) is True
    assert answers in [one["name"] for one in settings.get("filter_list", [{"name": "none"}])]


def test_the_mean_of_the_paper_and_its_standard_error() -> None:
    """Independent means: their variances add up."""
    numbers = {task: (number / 20, 0.01 + number / 1000) for number, task in enumerate(TASKS)}
    results = {
        task: {metric: numbers[task][0], metric.replace(",", "_stderr,"): numbers[task][1], "other,none": 9.0}
        for task, metric in TASKS.items()
    }
    mean = paper_mean(results)
    assert len(TASKS) == 19 and mean is not None and mean.missing == ()
    assert mean.value == pytest.approx(100 * sum(value for value, _ in numbers.values()) / 19)
    assert mean.error == pytest.approx(100 * math.hypot(*(error for _, error in numbers.values())) / 19)
    del results["copa"], results["boolq"]["acc_stderr,none"]
    partly = paper_mean(results)
    assert partly is not None and partly.missing == ("copa",) and partly.error is None
    assert paper_mean({"mine": {"acc,none": 1.0}}) is None
