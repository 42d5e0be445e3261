"""The checkpoints that a run writes, one at a time: between two steps, or beside them.

With --async-save a step waits for a copy of the tensors alone. A thread writes and hashes the copy, and the
ranks agree in a process group of its own. It is a thread and no process, as writing, hashing, syncing and
gloo all leave the interpreter to the training, and a process would need the copy in shared memory.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from types import TracebackType

import torch
from torch import Tensor

from megatron.base.terminal import print_line
from megatron.checkpoint.manifest import Manifest
from megatron.checkpoint.save import Files
from megatron.parallel.mesh import beside, wait_for_all
from megatron.train.resume import content_of, save_run, write_checkpoint
from megatron.train.setup import Run


class Checkpoints:
    """Writes checkpoints of a run that goes on from step `start`. All ranks call it alike."""

    def __init__(self, run: Run, manifest: Manifest, start: int = 0):
        self.run, self.manifest, self.finished = run, manifest, start
        flags, minutes = run.config.checkpoint, run.config.training.distributed_timeout_minutes
        self.beside = beside(run.mesh, minutes) if flags.async_save else None
        self.copies: dict[str, Tensor] = {}
        self.underway: tuple[int, Future[None]] | None = None

    def save(self, iteration: int) -> None:
        """Save the steps done so far, or begin to once an earlier checkpoint is written. UserError on all
        ranks where that one, or with one thread this one, could not be written."""
        self.wait()
        if self.beside is None:
            save_run(self.run, self.manifest, iteration)
            wait_for_all(self.run.mesh)  # so that no rank takes the time of writing for that of its next step
            self.finished = iteration
            return
        before = time.perf_counter()
        content = content_of(self.run, self.manifest, iteration)
        content = content._replace(files=self._copy(content.files))
        waited = f"{1e3 * (time.perf_counter() - before):.0f} ms"
        how = f" beside the training, which waited {waited} for a copy"
        flags, mesh = self.run.config.checkpoint, self.beside
        if mesh.first:
            line = f"scheduled an async checkpoint save at iteration {iteration:7d} to {flags.save}"
            print_line(f"  {line}")
        self.underway = iteration, _start(lambda: write_checkpoint(flags, content, mesh, how))

    def wait(self) -> None:
        """Until nothing is being written; UserError on all ranks where it could not be written."""
        if self.underway is not None:
            (iteration, future), self.underway = self.underway, None
            future.result()
            self.finished = iteration

    @property
    def saved(self) -> int:
        """The step of the newest whole checkpoint, as far as this rank knows."""
        if self.underway is None or not self.underway[1].done() or self.failed:
            return self.finished
        return self.underway[0]

    @property
    def failed(self) -> bool:
        """Whether this rank knows that what is under way has failed, which `wait` then raises."""
        future = self.underway[1] if self.underway else None
        return future is not None and future.done() and future.exception() is not None

    def _copy(self, files: Files) -> Files:
        """The same tensors in memory of the host that is taken once, as they are now."""
        for tensors in files.values():
            for name, one in tensors.items():
                if name not in self.copies:
                    self.copies[name] = torch.empty(one.shape, dtype=one.dtype, pin_memory=one.is_cuda)
                self.copies[name].copy_(one, non_blocking=True)
        if self.run.mesh.device.type == "cuda":
            torch.cuda.current_stream(self.run.mesh.device).synchronize()
        return {kind: {name: self.copies[name] for name in tensors} for kind, tensors in files.items()}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is under way is written to its end, also where something else has failed, which is told."""
        if error is None:
            self.wait()
            return
        if self.underway is not None and not self.underway[1].done() and self.run.mesh.first:
            print(f"the checkpoint of step {self.underway[0]} is being finished", file=sys.stderr, flush=True)
        with suppress(Exception):
            self.wait()


def _start(work: Callable[[], None]) -> "Future[None]":
    """Do the work in a thread, which does not outlive the process."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="save", daemon=True).start()
    return future
