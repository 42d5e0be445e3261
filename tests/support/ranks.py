"""Run a function on several gloo ranks, forked from this process so that they start in a fraction of a
second."""

import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp  # it takes seconds, and forked ranks then have it

from megatron.parallel.layout import Layout
from megatron.parallel.mesh import CPU, make_mesh

TIMEOUT = 360.0


def run_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(mesh, *arguments)` on so many data-parallel ranks; their results by rank. A rank that fails
    or hangs fails the test."""
    return run_layout(Layout(data=count), function, *arguments)


def run_layout(
    layout: Layout,
    function: Callable[..., Any],
    *arguments: Any,
    lost: int | None = None,
    timeout: float = TIMEOUT,
) -> list[Any]:
    """The same on the ranks of a layout. `lost`: a rank that does not come to its end, and gives no result;
    `timeout`: seconds that the ranks wait for each other."""
    count = layout.ranks
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        loses = lost is not None
        children = [_fork(rank, layout, store, timeout, loses, function, arguments) for rank in range(count)]
        try:
            return _collect([child for rank, child in enumerate(children) if rank != lost])
        finally:
            for child, _ in children:
                _kill(child)


def handed_in(*arguments: Any, **named: Any) -> torch.Tensor:
    """What a function of torch.distributed sends, which takes what it fills before that."""
    return arguments[1] if len(arguments) > 1 else named["input"]


def _fork(
    rank: int,
    layout: Layout,
    store: str,
    timeout: float,
    loses: bool,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> tuple[int, Connection]:
    count = layout.ranks
    receive, send = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child:
        send.close()
        return child, receive
    status = 1
    try:
        torch.set_num_threads(1)
        if count > 1:
            dist.init_process_group(
                "gloo",
                store=dist.FileStore(store, count),
                rank=rank,
                world_size=count,
                timeout=timedelta(seconds=timeout),
            )
        result = function(make_mesh(CPU, layout, rank, timedelta(seconds=timeout)), *arguments)
        send.send_bytes(pickle.dumps((True, result)))
        if count > 1 and not loses:
            dist.barrier()
        status = 0
    except BaseException:
        send.send_bytes(pickle.dumps((False, traceback.format_exc())))
    finally:
        send.close()
        os._exit(status)


def _collect(children: list[tuple[int, Connection]]) -> list[Any]:
    results, end = [], time.monotonic() + TIMEOUT
    for rank, (_, receive) in enumerate(children):
        if not receive.poll(max(end - time.monotonic(), 0)):
            raise TimeoutError(f"rank {rank} gave no result in {TIMEOUT} s")
        good, value = pickle.loads(receive.recv_bytes())
        if not good:
            raise AssertionError(f"rank {rank} failed:\n{value}")
        results.append(value)
    return results


def _kill(child: int) -> None:
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
