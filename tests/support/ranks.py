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

from megatron.parallel.mesh import Axis, Mesh

TIMEOUT = 120.0


def run_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(mesh, *arguments)` on every rank; their results by rank. A rank that fails or hangs fails
    the test."""
    with tempfile.TemporaryDirectory() as folder:
        children = [_fork(rank, count, f"{folder}/store", function, arguments) for rank in range(count)]
        try:
            return _collect(children)
        finally:
            for child, _ in children:
                _kill(child)


def _fork(
    rank: int, count: int, store: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[int, Connection]:
    receive, send = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child:
        send.close()
        return child, receive
    status = 1
    try:
        torch.set_num_threads(1)
        group = None
        if count > 1:
            dist.init_process_group(
                "gloo",
                store=dist.FileStore(store, count),
                rank=rank,
                world_size=count,
                timeout=timedelta(seconds=TIMEOUT),
            )
            group = dist.group.WORLD
        everyone = Axis(rank, count, group)
        result = function(Mesh(world=everyone, data=everyone), *arguments)
        send.send_bytes(pickle.dumps((True, result)))
        if group:
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
