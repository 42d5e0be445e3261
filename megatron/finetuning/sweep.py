"""Runs over learning rates and seeds, each a process with a folder of its own."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from megatron.base.cores import usable_cores
from megatron.base.errors import UserError, collect_problems
from megatron.base.files import hold, whole_file, writable_folder
from megatron.base.terminal import print_line, progress, show, stop_by_signals
from megatron.base.units import count_of
from megatron.config.finetuning import FinetuningConfig, rates_of, seeds_of
from megatron.config.flags import spelling
from megatron.config.language_model import LanguageModelConfig
from megatron.finetuning.job import Job
from megatron.finetuning.results import RESULTS, Results, earlier_results, in_words
from megatron.finetuning.run import prepare
from megatron.finetuning.summary import AnyJob, Part, summarise, table_of
from megatron.parallel.ranks import world_size
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import build_plan
from megatron.tasks.gpt import GPT_TASK

SWEEP, OUTPUT = "sweep.json", "output.txt"
OF_SWEEPS = ("sweep_lr", "seeds", "parallel")
SECONDS_BETWEEN_LOOKS = 2.0
STOPPED = (130, *(-one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))
"""Statuses of a run that is stopped before it trains."""
AnyFlags = FinetuningConfig | LanguageModelConfig


class Work(NamedTuple):
    """What all runs of a sweep share: their command, the processes that are begun, whether it is stopping,
    and the steps of each."""

    words: list[str]
    processes: list[Any]
    stopping: threading.Event
    steps: int


def is_sweep(flags: AnyFlags) -> bool:
    return bool(flags.sweep_lr or flags.seeds)


def sweep(job: AnyJob, argv: list[str]) -> None:
    """Do the runs that have no results yet, then tell of all. A run that fails is told, and the others go on;
    UserError at the end. `argv`: the command itself."""
    if world_size() > 1:
        raise UserError("--sweep-lr and --seeds start their runs themselves; leave torchrun out")
    words = [*own_words(argv, job.flags), *job.shared_words]
    if problems := _shared_places(job):
        raise UserError(*problems)
    with hold(writable_folder(job.save) / ".lock"):
        parts = parts_of(job)
        found = _done(job, parts)
        todo = [part for part in parts if part not in found]
        print(f"{count_of(len(parts), 'run')}, of which {len(found)} are done", flush=True)
        try:
            failed = _do(job, words, todo)
        except KeyboardInterrupt:
            done = len(_done(job, parts))
            print(f"{done} of {count_of(len(parts), 'run')} are done; the same command goes on", flush=True)
            raise
        found = _earlier(job, parts) | _done(job, parts)
        told = summarise(job, dict(sorted(found.items())))
        if told["rates"]:
            with whole_file(Path(job.save) / SWEEP, "w") as file:
                file.write(json.dumps(told, indent=1) + "\n")
            show(table_of(told))
            print(f"best rate by the median of {told['score']}: {told['best_lr']:g}")
    if failed:
        lines = [f"{part}: {why}" for part, why in failed.items()]
        raise UserError(*lines, f"{len(failed)} of {len(parts)} runs failed; the same command goes on")


def parts_of(job: AnyJob) -> list[Part]:
    """All runs, rate by rate."""
    rates = rates_of(job.flags.sweep_lr) if job.flags.sweep_lr else (job.config.optimizer.lr,)
    seeds = seeds_of(job.flags.seeds) if job.flags.seeds else (job.config.training.seed,)
    root = Path(job.save)
    return [Part(rate, seed, root / f"lr{rate}_seed{seed}") for rate in rates for seed in seeds]


def own_words(argv: list[str], flags: AnyFlags) -> list[str]:
    """The command without the flags of a sweep. UserError where a YAML file gives one, as every run of the
    sweep would begin it anew."""
    names, words, skipping, met = {spelling(name): name for name in OF_SWEEPS}, [], False, set()
    for word in argv:
        name = word.split("=", 1)[0].replace("_", "-")
        if word.startswith("--"):
            skipping = name in names
            met.add(names.get(name, ""))
        if not skipping:
            words.append(word)
    if hidden := [spelling(name) for name in OF_SWEEPS if getattr(flags, name) and name not in met]:
        raise UserError(f"{' and '.join(hidden)}: give it on the command line, not in a --config file")
    return words


def _shared_places(job: AnyJob) -> list[str]:
    """Places of a log that all runs would write to."""
    logging, own = job.config.logging, str(Path(job.save) / "metrics.jsonl")
    given = {"metrics_file": logging.metrics_file != own, "tensorboard_dir": bool(logging.tensorboard_dir)}
    return [
        f"{spelling(name)}: the runs of a sweep would write to one place; leave it out, each has a "
        "metrics.jsonl of its own"
        for name in given
        if given[name]
    ]


def _done(job: AnyJob, parts: list[Part]) -> dict[Part, Results]:
    """The results that are there. UserError where some are of other runs."""
    problems: list[str] = []
    found = {}
    for part in parts:
        with collect_problems(problems):
            if results := earlier_results(part.folder, job.with_rate(part.rate, part.seed)):
                found[part] = results
    if problems:
        raise UserError(*problems)
    return found


def _earlier(job: AnyJob, parts: list[Part]) -> dict[Part, Results]:
    """Results of earlier sweeps in the same place that differ from these runs in rate and seed alone."""
    found = {}
    for path in Path(job.save).glob(f"lr*_seed*/{RESULTS}"):
        name = re.fullmatch(r"lr(.+)_seed(\d+)", path.parent.name, re.ASCII)
        with suppress(UserError, ValueError):  # of another sweep, or no results
            part = Part(float(name[1]), int(name[2]), path.parent) if name else None
            if part and part not in parts:
                found[part] = dict(earlier_results(part.folder, job.with_rate(part.rate, part.seed)) or {})
    return found


def _do(job: AnyJob, words: list[str], todo: list[Part]) -> dict[Part, str]:
    """Do these runs, several at a time; why some have failed."""
    places: queue.Queue[int] = queue.Queue()
    for number in range(at_a_time(job.flags.parallel)):
        places.put(number)
    work = Work(words, [], threading.Event(), _steps_of(job) if todo else 0)
    stop_by_signals()
    with progress("finetuning", work.steps * len(todo), "steps") as advance:
        lock = threading.Lock()

        def tell(steps: int) -> None:
            with lock:
                advance(steps)

        def do(part: Part) -> str:
            place = places.get()
            try:
                return _start_and_wait(part, work, place, tell)
            except (UserError, OSError) as error:
                return str(error)
            finally:
                places.put(place)

        with ThreadPoolExecutor(max(places.qsize(), 1)) as pool:
            try:
                outcomes = list(pool.map(do, todo))
            except BaseException:
                work.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in work.processes:
                    process.terminate()  # each stops behind its step
                raise
    return {part: why for part, why in zip(todo, outcomes) if why}


def _steps_of(job: AnyJob) -> int:
    """Steps of a run."""
    if isinstance(job, Job):
        return prepare(job).plan.steps
    efficiency, _ = describe(job.config)
    flops = GPT_TASK.row_flops(job.config, efficiency, job.base.vocabulary.size)
    return build_plan(job.config, efficiency, flops).steps


def _start_and_wait(part: Part, work: Work, place: int, tell: Callable[[int], None]) -> str:
    """Do a run in a process of its own; why it failed, "" where it has not. `tell`: of its steps."""
    began, folder = time.perf_counter(), writable_folder(part.folder)
    command = [sys.executable, *work.words, f"--lr={part.rate!r}", f"--seed={part.seed}", f"--save={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads())}
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        here = visible if visible != [""] else list(map(str, range(torch.cuda.device_count())))
        environment["CUDA_VISIBLE_DEVICES"] = here[place % len(here)]
    with open(folder / OUTPUT, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        work.processes.append(process)
        status = _wait(process, folder / "metrics.jsonl", work.steps, tell)
    seconds = time.perf_counter() - began
    lines = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").strip().split("\n")
    there = not status and (folder / RESULTS).is_file()
    if not there and (work.stopping.is_set() or status in STOPPED):
        print_line(f"{part}: stopped after {seconds:.0f} s")
        return "stopped"
    if not there:
        print_line(f"{part}: failed after {seconds:.0f} s")
        return f"{lines[-1].removeprefix('error: ') or f'status {status}'} ({folder / OUTPUT})"
    print_line(f"{part}: {in_words(json.loads((folder / RESULTS).read_text()))} ({seconds:.0f} s)")
    return ""


def _wait(process: Any, records: Path, steps: int, tell: Callable[[int], None]) -> int:
    """The exit status of a run, whose records tell its steps meanwhile."""
    told, began, status = 0, time.time(), None
    while status is None:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(SECONDS_BETWEEN_LOOKS)
        done = told
        if records.is_file() and records.stat().st_mtime >= began - 1:  # else it is of an earlier attempt
            done = min(records.read_bytes().count(b'"kind": "train"'), steps)
        tell(max(done - told, 0))
        told = max(done, told)
    tell(steps - told)
    return int(status)


def threads() -> int:
    """Threads of a run."""
    text = os.environ.get("OMP_NUM_THREADS", "1")
    return int(text) if text.isdecimal() and int(text) else 1


def at_a_time(wanted: int | None) -> int:
    """Runs at a time."""
    if wanted:
        return wanted
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return max(usable_cores() // threads(), 1)
