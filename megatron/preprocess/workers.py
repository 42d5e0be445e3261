"""Worker processes whose results come back in order, with a bounded number of tasks in flight."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

from megatron.base.errors import UserError

Result = TypeVar("Result")


def map_in_order(
    function: Callable[..., Result],
    tasks: Iterable[tuple[Any, ...]],
    workers: int,
    window: int,
    preload: list[str],
) -> Iterator[tuple[tuple[Any, ...], Result]]:
    """Yield every task with its `function(*task)`, in order, with at most `window` tasks in flight.
    `preload`: modules that are imported once for all workers. UserError where a worker is ended from
    outside."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    _start_server()
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    waiting: deque[tuple[tuple[Any, ...], Future[Result]]] = deque()
    try:
        for task in tasks:
            with _blocked(signal.SIGINT, signal.SIGTERM):  # a worker half started would outlive the pool
                waiting.append((task, _submit(pool, function, task)))
            if len(waiting) >= window:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was ended from outside, often for want of memory; use fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[..., Result], task: tuple[Any, ...]
) -> Future[Result]:
    """A task for the pool. BrokenProcessPool also where the process that workers come from has ended."""
    try:
        return pool.submit(function, *task)
    except (EOFError, ConnectionError):
        raise BrokenProcessPool from None


def _first(waiting: deque[tuple[tuple[Any, ...], Future[Result]]]) -> tuple[tuple[Any, ...], Result]:
    task, future = waiting.popleft()
    return task, future.result()


def _start_server() -> None:
    """Start the process that all workers come from with Ctrl-C blocked, which they inherit: only their
    parent answers to it. It imports from where its parent does, not from a folder `megatron` that happens to
    lie in the current one."""
    safe_path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        resource_tracker.ensure_running()  # first, for its start unblocks Ctrl-C
        with _blocked(signal.SIGINT):
            forkserver.ensure_running()
    except OSError as error:
        if "AF_UNIX" not in str(error):  # the path of its socket, which lies in TMPDIR
            raise
        raise UserError(
            f"TMPDIR {tempfile.gettempdir()}: is too long for the sockets of worker processes; set a shorter "
            "one, such as TMPDIR=/tmp"
        ) from None
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if safe_path is not None:
            os.environ["PYTHONSAFEPATH"] = safe_path


@contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    """Signals wait until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """One thread a worker, and no worker without its parent."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
