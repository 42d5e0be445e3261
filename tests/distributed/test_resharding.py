"""A run that goes on from a checkpoint on another layout of ranks trains as one that never stopped, in double
precision."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from megatron.checkpoint.manifest import read_manifest
from megatron.optim.optimizer import SLOTS
from megatron.parallel.mesh import Mesh
from megatron.train.resume import describe_run, resume, save_run
from megatron.train.saving import Checkpoints
from tests.support.parity import (
    BASE,
    EVERY,
    LAYOUTS,
    OF_EXPERTS,
    PIPELINE,
    ZERO,
    ZERO2,
    ZERO3,
    make_run,
    place_of,
    task_of,
    train_steps,
)
from tests.support.ranks import run_layout

T = TypeVar("T")
HALF, WHOLE = 10, 20
BATCH = "--global-batch-size 12 "
ASYNC = "--async-save "
FOUR = ("zero-3 dp4 hybrid", "ep4", "ep2·dp2 zero-3")
MORE = {
    "one": "",
    "zero dp3": ZERO + "--dp 3",
    "zero-3 dp3": ZERO3 + "--dp 3",
    "zero-2 pp2·dp2": ZERO2 + PIPELINE.format(2) + "--dp 2",
    "async tp2·pp2": ASYNC + LAYOUTS["tp2·pp2"],
    "async zero dp2": ASYNC + LAYOUTS["zero dp2"],
    **{name: "--micro-batch-size 1 " + (LAYOUTS | OF_EXPERTS)[name] for name in FOUR},
}
"""Layouts beside those that are compared with one rank, two that go on training while they save, and those of
four replicas, that share 12 rows."""
PAIRS = [
    ("zero dp2", "one", "gpt"),
    ("one", "zero dp2", "gpt"),
    ("zero dp2", "zero dp3", "gpt"),
    ("zero dp3", "zero tp2·dp2", "llama"),
    ("tp2", "zero dp2", "llama"),
    ("zero dp2", "pp2", "gpt"),
    ("zero pp2·dp2", "zero cp2", "gpt"),
    ("pp2", "tp2", "gpt"),
    ("cp2 allgather", "tp2+sp", "llama"),
    ("dp2", "zero dp2", "gpt"),
    ("pp2 uneven", "pp2 interleaved", "gpt"),
    ("async tp2·pp2", "one", "gpt"),
    ("async zero dp2", "zero tp2+sp·dp2", "llama"),
    ("zero-3 dp2", "one", "gpt"),
    ("one", "zero-3 dp2", "gpt"),
    ("zero-3 dp2", "tp2", "llama"),
    ("zero-2 pp2·dp2", "zero-3 dp2", "gpt"),
    ("zero-3 dp3", "zero-3 tp2·dp2", "documents"),
    ("zero-3 dp4 hybrid", "zero dp3", "llama"),
    ("zero dp2", "pp2", "experts limited"),
    ("tp2+sp", "zero-3 dp3", "experts global"),
    ("ep2", "one", "experts limited"),
    ("one", "ep2 zero", "experts"),
    ("ep2·dp2 zero-3", "ep2", "experts limited"),
    ("ep2", "ep4", "experts limited"),
    ("ep4", "tp2+sp·ep2 whole experts", "experts limited"),
    ("pp2·ep2", "expert tensor 2", "experts"),
    ("zero dp2", "one", "bert"),
    ("one", "tp2+sp", "encoder packed"),
    ("pp2", "zero-3 dp3", "bert grouped"),
]
"""Saved on, gone on from, model (`gpt` has tied heads)."""


def run_on(layout: str, model: str, function: Callable[..., T], *arguments: Any) -> list[T]:
    """`function(mesh, task, flags, replicas, *arguments)` on a layout, with a batch of 12 rows, which 2 and 3
    replicas can share."""
    more, place, replicas = place_of(BATCH + (LAYOUTS | OF_EXPERTS | MORE)[layout])
    return run_layout(place, function, task_of(model), BASE + EVERY[model] + more, replicas, *arguments)


def from_start(mesh: Mesh, task: str, flags: str, replicas: int, steps: int, save: str = "") -> torch.Tensor:
    """The first steps of a run, saved behind them where a folder is named, and a few more where that is done
    beside them."""
    run = make_run(mesh, flags + (f" --save {save}" if save else ""), torch.float64, replicas, task=task)
    points = train_steps(run, 1, steps)
    if save:
        with Checkpoints(run, describe_run(run)) as checkpoints:
            checkpoints.save(steps)
            if ASYNC in flags:
                points = torch.cat([points, train_steps(run, steps + 1, steps + 2)])
    return points


def from_checkpoint(mesh: Mesh, task: str, flags: str, replicas: int, load: str) -> torch.Tensor:
    """The steps behind those of a checkpoint."""
    run = make_run(mesh, f"{flags} --load {load}", torch.float64, replicas, task=task)
    return train_steps(run, resume(run).iteration + 1, WHOLE)


@cache
def never_stopped(model: str) -> torch.Tensor:
    """What one rank does without a stop."""
    (points,) = run_on("one", model, from_start, WHOLE)
    return points


@pytest.mark.parametrize(("first", "then", "model"), PAIRS)
def test_a_checkpoint_goes_on_on_another_layout(first: str, then: str, model: str, tmp_path: Path) -> None:
    before = run_on(first, model, from_start, HALF, str(tmp_path))
    after = run_on(then, model, from_checkpoint, str(tmp_path))
    wanted = never_stopped(model)
    for found, part in [(one, wanted[: len(one)]) for one in before] + [
        (one, wanted[HALF:]) for one in after
    ]:
        torch.testing.assert_close(found, part, rtol=1e-10, atol=0)


def moments(mesh: Mesh, task: str, flags: str, replicas: int, save: str) -> int:
    """Elements of all moments of this rank, of a saved run of one step."""
    run = make_run(mesh, f"{flags} --save {save}", torch.float64, replicas)
    train_steps(run, 1, 1)
    save_run(run, describe_run(run), 1)
    return sum(state[slot].numel() for state in run.optimizer.state.values() for slot in SLOTS)


def test_every_rank_holds_and_writes_moments_of_its_own_rows(tmp_path: Path) -> None:
    held = run_on("zero dp3", "gpt", moments, str(tmp_path))
    tensors = read_manifest(tmp_path / "iter_0000001").tensors
    saved = {name: entry for name, entry in tensors.items() if name.startswith("optimizer.")}
    whole = sum(torch.Size(entry.global_shape).numel() for entry in saved.values())
    parts = [part for entry in saved.values() for part in entry.parts]
    assert sum(held) == whole == sum(torch.Size(part.shape).numel() for part in parts)
    assert all(0.3 * whole < size < 0.37 * whole for size in held)
    assert {part.file for part in parts} == {
        f"optimizer-{rank:05d}-of-00003.safetensors" for rank in (1, 2, 3)
    }
