"""Runs side by side, each a process with a log of its own; what has its record is not done again."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import writable_folder
from megatron.base.terminal import print_line
from megatron.base.units import duration
from megatron.report.records import read_run
from megatron.reproduce.corpora import Step, is_done
from megatron.reproduce.runs import Places, Run, command_line, earlier_record, write_record

LOG = "output.txt"


class Workers:
    """Processes that run now, so that all can be stopped: the one thing here that is shared by threads."""

    def __init__(self) -> None:
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        self.lock = threading.Lock()

    def call(self, words: Sequence[str], log: Path) -> str:
        """Run a command in a process group of its own; why it failed, "" where it has not."""
        with open(log, "ab") as output:
            with self.lock:
                if self.stopped:
                    return "stopped"
                environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
                process = subprocess.Popen(
                    list(words), stdout=output, stderr=output, env=environment, start_new_session=True
                )
                self.processes.add(process)
            status = process.wait()
            with self.lock:
                self.processes.discard(process)
        if not status:
            return ""
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"status {status}"]
        return f"{lines[-1].removeprefix('error: ')} (status {status}; the log is {log})"

    def stop(self) -> None:
        """Ask all to stop as Ctrl-C does, and wait until they have. A training run saves a checkpoint first,
        and a tool removes what it has begun. Where Ctrl-C is ignored, they have inherited that."""
        number = signal.SIGTERM if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else signal.SIGINT
        with self.lock:
            self.stopped = True
            running = tuple(self.processes)
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
        for process in running:
            process.wait()


class Progress:
    """A line for every run that has ended, with an estimate of the rest by FLOPs."""

    def __init__(self, todo: Sequence[Run], workers: int, flops_a_second: float) -> None:
        self.count, self.workers, self.speed = len(todo), workers, flops_a_second
        self.left, self.ended = sum(run.flops for run in todo), 0
        self.done, self.seconds = 0.0, 0.0
        self.lock = threading.Lock()

    def tell(self, run: Run, seconds: float, words: str, finished: bool) -> None:
        with self.lock:
            self.ended += 1
            self.left -= run.flops
            if finished:
                self.done, self.seconds = self.done + run.flops, self.seconds + seconds
            speed = self.done / self.seconds if self.seconds else self.speed
            left = duration(max(self.left, 0) / speed / self.workers)
            print_line(
                f"[{self.ended}/{self.count}] {run.row}, seed {run.seed}, lr {run.rate:g}: {words} "
                f"({duration(seconds)}); about {left} left"
            )


def prepare(steps: Iterable[Step], data: Path) -> None:
    """Make the data that is not there yet. UserError where a step fails."""
    for step in steps:
        if is_done(step):
            continue
        writable_folder(data)
        print_line(f"data: {step.name}")
        workers = Workers()
        try:
            why = workers.call(command_line(step.words), data / LOG)
        except BaseException:
            workers.stop()
            raise
        if why:
            raise UserError(f"the data's step {step.name} failed: {why}")


def do_runs(
    todo: Sequence[tuple[Run, str]], data: str, places: Places, workers: int, keep: bool, speed: float
) -> dict[str, str]:
    """Do runs, of which each comes with its recipe; why some have failed, by name. `data`: a few letters
    that tell it from other data. Ctrl-C stops all, each behind its step, and is raised."""
    group = Workers()
    progress = Progress([run for run, _ in todo], workers, speed)

    def work(pair: tuple[Run, str]) -> str:
        run, recipe = pair
        began = time.perf_counter()
        try:
            why = _do(run, recipe, places, group, data, keep)
        except (UserError, OSError, ValueError, KeyError) as error:
            why = f"{error} (the log is {places.runs / run.name / LOG})"
        if why != "stopped" and not group.stopped:
            told = _told(places, run) if not why else f"failed: {why}"
            progress.tell(run, time.perf_counter() - began, told, not why)
        return why

    pool = ThreadPoolExecutor(workers)
    futures = [pool.submit(work, pair) for pair in todo]
    try:
        outcomes = [future.result() for future in futures]
    except BaseException:
        group.stop()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    return {run.name: why for (run, _), why in zip(todo, outcomes) if why}


def _told(places: Places, run: Run) -> str:
    record: dict[str, Any] = earlier_record(places, run) or {"quality": {}}
    return ", ".join(f"{name} {value:.4f}" for name, value in record["quality"].items()) or "done"


def _do(run: Run, recipe: str, places: Places, group: Workers, data: str, keep: bool) -> str:
    """One run with what measures it; why it failed, "" where it has not."""
    folder, began = places.runs / run.name, time.perf_counter()
    if run.begins_anew and folder.exists():
        shutil.rmtree(folder)
    writable_folder(folder)
    for number, words in enumerate(run.commands):
        if why := group.call(command_line(words), folder / LOG):
            return why
        if number == 0 and (reached := read_run(run.name, folder).steps) < run.iterations:
            return f"stopped at iteration {reached} of {run.iterations} (the log is {folder / LOG})"
    write_record(places, run, recipe, time.perf_counter() - began, data)
    if not keep and run.measures:
        shutil.rmtree(folder)
    return ""
