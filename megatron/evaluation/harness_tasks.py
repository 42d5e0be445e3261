"""The tasks of EleutherAI's lm-evaluation-harness and those of folders, found and loaded. Importing this
needs the package lm-eval."""

import difflib
import fnmatch
import glob
import hashlib
import itertools
import logging
import math
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.base.terminal import print_line
from megatron.evaluation.paper_tasks import GROUP, TASKS
from megatron.evaluation.score import Scorer
from megatron.parallel.mesh import together

LARGE = 16 << 20
"""Bytes of a file above which its size and time of change stand for its content."""


class Tasks(TaskManager):
    """The harness' tasks and those of folders, or with `local` the latter alone, as reading all of the former
    takes many seconds. The first rank gets their data before the others."""

    def __init__(self, scorer: Scorer, folders: Sequence[str], local: bool):
        super().__init__(include_path=list(folders) or None, include_defaults=not local)
        self.scorer = scorer
        self.folders = tuple(folders)

    def holds(self, name: str) -> bool:
        """Whether a task is one of the folders."""
        path = getattr(self.task_index.get(name), "yaml_path", None)
        places = [Path(folder).resolve() for folder in self.folders]
        return path is not None and any(Path(path).resolve().is_relative_to(place) for place in places)

    def load(self, names: Any) -> Any:
        """UserError where the data cannot be had."""
        loaded = []

        def first() -> bytes:
            if self.scorer.mesh.first:
                loaded.append(self._load(names))
            return b""

        together(first, self.scorer.mesh)
        return loaded[0] if loaded else self._load(names)

    def _load(self, names: Any) -> Any:
        try:
            return super().load(names)
        except UserError:
            raise
        except Exception as error:  # of the harness, of datasets, of the hub, or of a task's own code
            what = " ".join(map(str, names if isinstance(names, list) else [names]))
            if parts := _parts_there(error):
                raise UserError(
                    f"--lm-eval {what}: its data has no part {error.args[0]}, but {', '.join(parts)}; mend "
                    "test_split and its fellows in its YAML file, or name the parts in data_files"
                ) from error
            if why := _of_its_data(error):
                raise UserError(f"--lm-eval {what}: {why}") from error
            raise UserError(
                f"--lm-eval {what}: the harness cannot load it: {one_line(error)}; it downloads data once, "
                "into --lm-eval-cache or HF_HOME, which another machine may fill; mend a YAML file "
                "of your own, or the data that it names"
            ) from error


def _of_its_data(error: Exception) -> str:
    """Why a task cannot be loaded where the harness has read its data and says no more than a kind of error;
    "" for any other one."""
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "its data has no question; mend the file or the part that its YAML file names"
    if isinstance(error, IndexError):
        return (
            "of its first question the right answer is none of the choices, which count from 0, or a choice "
            "is empty; mend its data, or doc_to_target"
        )
    if isinstance(error, KeyError) and error.args == (None,):
        return "a metric of its YAML file is none that the harness knows; name another, such as acc"
    return ""


def _parts_there(error: Exception) -> list[str]:
    """The parts of a task's data where another one was asked for; none for any other error."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        data = getattr(frame.f_locals.get("self"), "dataset", None)
        if isinstance(error, KeyError) and isinstance(data, dict) and error.args[0] not in data:
            return [*map(str, data)]
    return []


def wrong_answers(task: Any, limit: float | None = None) -> str:
    """Questions of a multiple-choice task whose right answer is none of their choices, in words; "" where
    there are none, or a function of the task judges them. The harness would count them as wrong, and tells it
    to its own log alone. `limit`: how many of the first questions are asked, or below 1 which share."""
    judged = callable(task.config.process_results)
    if task.OUTPUT_TYPE != "multiple_choice" or task.multiple_input or judged:
        return ""
    wrong, asked = [], len(task.eval_docs)
    if limit is not None:
        asked = int(limit) if limit >= 1 else math.ceil(asked * limit)
    for number, question in enumerate(itertools.islice(task.eval_docs, asked), 1):
        choices = task.doc_to_choice(question)
        answer = task.doc_to_target(question)
        answers = answer if isinstance(answer, list) else [answer]
        if not all(one in choices if isinstance(one, str) else 0 <= one < len(choices) for one in answers):
            wrong.append(f"question {number} has {answer!r} of {len(choices)} choices, counted from 0")
    more = f", and {len(wrong) - 1:,} more are such" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}" if wrong else ""


def require_answers(name: str, tasks: Tasks, task: Any, limit: float | None = None) -> None:
    """UserError where a question of a task of the user has a right answer that is none of its choices; a
    warning where it is one of the harness' tasks."""
    try:
        problem = wrong_answers(task, limit)
    except Exception as error:  # of a template of the task, or of an answer that is none
        problem = f"an answer cannot be read: {one_line(error)}"
    if problem and (name.endswith(".yaml") or tasks.holds(task.config.task)):
        raise UserError(
            f"--lm-eval {name}: {problem}; mend the task's data, or doc_to_target in its YAML file"
        )
    if problem and tasks.scorer.mesh.first:
        print_line(f"warning: {name}: {problem}; no answer to it counts as right")


def tell_shown_answers(name: str, tasks: Tasks, task: Any) -> None:
    """A note where the harness takes examples from the part that is asked, which nobody has named for them:
    it leaves out the asked question of a named part alone."""
    config, chosen = task.config, getattr(task, "fewshot_cfg", None)  # a task in Python may have none
    if not config.num_fewshot or (chosen and (chosen.split, chosen.samples) != (None, None)):
        return
    examples = config.training_split or config.validation_split or config.test_split
    if tasks.scorer.mesh.first and config.test_split and examples == config.test_split:
        print_line(
            f"note: {name}: examples are of the questions themselves, and the one that is asked may be among "
            "them; fewshot_split in its YAML file names another part, or leaves that one out"
        )


def one_line(error: BaseException) -> str:
    """An error of the harness in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:400]}"


def digest_of_own(names: Sequence[str], folders: Sequence[str]) -> str:
    """A few letters that change with the YAML and Python files of the user's own tasks, and with the local
    data that these name, whose names may stay; "" where there are none."""
    files = [(Path(name).name, Path(name)) for name in names if name.endswith(".yaml")]
    for folder in folders:
        files += [(str(path.relative_to(folder)), path) for path in _task_files(Path(folder))]
    files = [(name, path) for name, path in files if path.is_file()]
    named = sorted({one for _, path in files if path.suffix != ".py" for one in _named_files(path)})
    words = [f"{name} {_state(path)}" for name, path in [*files, *((one.name, one) for one in named)]]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16] if words else ""


def _state(path: Path) -> str:
    """What changes with a file: its content's checksum, or of a large one its size and time of change."""
    there = path.stat()
    return checksum(path) if there.st_size <= LARGE else f"{there.st_size} {there.st_mtime_ns}"


def _named_files(task: Path) -> set[Path]:
    """Files of this machine that a YAML file names: data, those that it includes, and Python's. Its prompts
    are read for names, too, and those may hold any signs."""
    text = task.read_text(encoding="utf-8", errors="replace")
    words = {*re.findall(r"[^\s'\",\[\]{}]+", text)}
    words |= {f"{module}.py" for module in re.findall(r"!function\s+(\w+)\.", text)}
    folders = re.findall(r"(?:dataset_path|data_dir):\s*['\"]?([^\s'\",}]+)", text)
    places = (Path(), task.parent)
    found = [place / word for word in words for place in places if len(word) < 256]
    patterns = [word for word in words if "*" in word and word.strip("*") and _is_bounded(word)]
    found += [path for word in patterns for path in map(Path, glob.glob(word, recursive=True))]
    below = [Path(folder) for folder in folders if _holds_less_than_all(Path(folder))]
    found += [path for folder in below for path in folder.rglob("*")]
    readable = {path.resolve() for path in found if path.is_file() and os.access(path, os.R_OK)}
    return readable - {task.resolve()}


def _is_bounded(pattern: str) -> bool:
    """Whether a pattern is of one folder here, or of what is below a folder that it names."""
    fixed = Path(*itertools.takewhile(lambda part: "*" not in part, Path(pattern).parts))
    return _holds_less_than_all(fixed) or not (pattern.startswith("/") or "**" in pattern)


def _holds_less_than_all(folder: Path) -> bool:
    """Whether it is a folder, and neither this one nor one around it, which hold runs and whatever else."""
    return folder.is_dir() and not Path().resolve().is_relative_to(folder.resolve())


def _task_files(folder: Path) -> list[Path]:
    """YAML and Python files below a folder, sorted; hidden folders and virtual environments hold no tasks."""
    found: list[Path] = []
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = [one for one in below if not one.startswith(".")]
        if "pyvenv.cfg" in names:
            below.clear()
            continue
        found += [Path(place, name) for name in names if name.endswith((".yaml", ".yml", ".py"))]
    return sorted(found)


def _broken_files(folders: Sequence[str]) -> str:
    """YAML files of folders that hold no YAML, which the harness passes over, and why; "" where all do."""
    found = []
    for path in (one for folder in folders for one in _task_files(Path(folder)) if one.suffix != ".py"):
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:  # of the parser, or of a file that it includes
            found.append(f"{path} ({one_line(error)})")
    return " and ".join(found)


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not Path(name).exists()


def _fitting(name: str, tasks: TaskManager) -> list[str]:
    """The names that a pattern fits, less what groups among them hold, which is asked with these; a name
    itself, and a pattern that fits none."""
    found = {*fnmatch.filter(tasks.all_tasks, name)} if _is_pattern(name) else set[str]()
    held = {member for one in found for member in _members(tasks, one) - {one}}
    return sorted(found - held) or [name]


def _members(tasks: TaskManager, name: str) -> set[str]:
    """What a group or tag holds, at any depth; nothing of a task."""
    entry = tasks.task_index.get(name)
    if entry is None or entry.kind.name not in ("GROUP", "TAG"):
        return set()
    listed = (entry.cfg or {}).get("task") or ()
    named = (one if isinstance(one, str) else one.get("task") or one.get("group") for one in listed)
    direct = {one for one in named if isinstance(one, str)} | entry.tags
    return direct.union(*(_members(tasks, one) for one in direct - {name}))


def open_tasks(scorer: Scorer, names: Sequence[str], folders: Sequence[str]) -> tuple[Tasks, list[str]]:
    """All tasks there are, and the names to run, the paper's group as its tasks, and patterns as all names
    that they fit; UserError where one is unknown, with the names that are near."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if missing := [folder for folder in folders if not Path(folder).is_dir()]:
        raise UserError(f"--include-path {missing[0]}: is no folder; name one that holds tasks as YAML files")
    wanted = list(dict.fromkeys(one for name in names for one in (TASKS if name == GROUP else [name])))
    if folders and set(wanted) <= set((local := Tasks(scorer, folders, local=True)).all_subtasks):
        return local, wanted
    tasks = Tasks(scorer, folders, local=False)
    wanted = list(dict.fromkeys(one for name in wanted for one in _fitting(name, tasks)))
    known = [*tasks.all_tasks, GROUP]
    if problems := [line for name in wanted if (line := _problem(name, known, folders))]:
        raise UserError(*problems)
    return tasks, wanted


def _problem(name: str, known: Sequence[str], folders: Sequence[str]) -> str:
    """Why a name is no task, and the ways out; "" where it is one."""
    if name in known or (name.endswith(".yaml") and Path(name).is_file()):
        return ""
    listed = "lm-eval ls tasks lists all"
    if _is_pattern(name):
        return f"--lm-eval {name}: fits no task of the harness or of --include-path; {listed}"
    if Path(name).is_dir():
        return f"--lm-eval {name}: is a folder; give --include-path {name}, and its tasks"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(near)}?" if near else ""
    if broken := _broken_files(folders):
        other = meant and f"; or {meant}"
        return f"--lm-eval {name}: is no task that can be read; mend {broken}{other}"
    hint = meant or listed
    return f"--lm-eval {name}: is no task of the harness or of --include-path; {hint}"
