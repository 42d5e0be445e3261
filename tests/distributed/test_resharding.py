"""A run that goes on from a checkpoint on another layout of ranks trains as one that never stopped, in double
precision."""

from functools import cache
from pathlib import Path

import pytest
import torch

from megatron.checkpoint.manifest import read_manifest
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh
from megatron.train.resume import describe_run, resume, save_run
from megatron.train.setup import Run
from tests.support.layouts import BASE, MODELS, layout_and_flags, layout_run, train_steps
from tests.support.ranks import run_layout

HALF, WHOLE = 10, 20
Points = list[tuple[float, float]]

LAYOUTS = {
    "one": "",
    "zero dp2": "--use-distributed-optimizer --dp 2",
    "zero dp3": "--use-distributed-optimizer --dp 3",
    "zero tp2·dp2": "--use-distributed-optimizer --tensor-model-parallel-size 2 --dp 2",
    "zero pp2·dp2": "--use-distributed-optimizer --pipeline-model-parallel-size 2 --dp 2",
    "zero cp2": "--use-distributed-optimizer --context-parallel-size 2 --cp-comm-type allgather",
    "dp2": "--dp 2",
    "tp2": "--tensor-model-parallel-size 2",
    "tp2+sp": "--tensor-model-parallel-size 2 --sequence-parallel",
    "pp2": "--pipeline-model-parallel-size 2",
    "cp2": "--context-parallel-size 2 --cp-comm-type allgather",
}
PAIRS = [
    ("zero dp2", "one", "gpt"),
    ("one", "zero dp2", "gpt"),
    ("zero dp2", "zero dp3", "gpt"),
    ("zero dp3", "zero tp2·dp2", "llama"),
    ("tp2", "zero dp2", "llama"),
    ("zero dp2", "pp2", "gpt"),
    ("zero pp2·dp2", "zero cp2", "gpt"),
    ("pp2", "tp2", "gpt"),
    ("cp2", "tp2+sp", "llama"),
    ("dp2", "zero dp2", "gpt"),
]


def from_start(mesh: Mesh, flags: str, steps: int, save: str = "") -> Points:
    """The first steps of a run, saved behind them where a folder is named."""
    run = layout_run(mesh, flags + (f" --save {save}" if save else ""))
    points = train_steps(run, 1, steps)
    if save:
        save_run(run, describe_run(run), steps)
    return points


def from_checkpoint(mesh: Mesh, flags: str, load: str) -> Points:
    """The steps behind those of a checkpoint."""
    run = layout_run(mesh, f"{flags} --load {load}")
    return train_steps(run, resume(run).iteration + 1, WHOLE)


def flags_of(model: str, layout: str) -> tuple[Layout, str]:
    """A batch of 12 rows, that 2 and 3 replicas can share."""
    return layout_and_flags(f"{BASE} --global-batch-size 12 {MODELS[model]} {LAYOUTS[layout]}")


@cache
def never_stopped(model: str) -> Points:
    (points,) = run_layout(Layout(), from_start, flags_of(model, "one")[1], WHOLE)
    return points


@pytest.mark.parametrize(("first", "then", "model"), PAIRS)
def test_a_checkpoint_goes_on_on_another_layout(first: str, then: str, model: str, tmp_path: Path) -> None:
    layout, flags = flags_of(model, first)
    before = run_layout(layout, from_start, flags, HALF, str(tmp_path))
    layout, flags = flags_of(model, then)
    after = run_layout(layout, from_checkpoint, flags, str(tmp_path))
    wanted = torch.tensor(never_stopped(model), dtype=torch.float64)
    for found, part in [(one, wanted[:HALF]) for one in before] + [(one, wanted[HALF:]) for one in after]:
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), part, rtol=1e-10, atol=0)


def moments(mesh: Mesh, flags: str, save: str) -> int:
    """Elements of all moments of this rank, of a saved run of one step."""
    run: Run = layout_run(mesh, f"{flags} --save {save}")
    train_steps(run, 1, 1)
    save_run(run, describe_run(run), 1)
    return sum(
        state[slot].numel() for state in run.optimizer.state.values() for slot in ("exp_avg", "exp_avg_sq")
    )


def test_every_rank_holds_and_writes_moments_of_its_own_rows(tmp_path: Path) -> None:
    layout, flags = flags_of("gpt", "zero dp3")
    held = run_layout(layout, moments, flags, str(tmp_path))
    tensors = read_manifest(tmp_path / "iter_0000001").tensors
    saved = {name: entry for name, entry in tensors.items() if name.startswith("optimizer.")}
    whole = sum(torch.Size(entry.global_shape).numel() for entry in saved.values())
    parts = [part for entry in saved.values() for part in entry.parts]
    assert sum(held) == whole == sum(torch.Size(part.shape).numel() for part in parts)
    assert all(0.3 * whole < size < 0.37 * whole for size in held)
    files = {f"optimizer-{rank:05d}-of-00003.safetensors" for rank in (1, 2, 3)}
    assert {part.file for part in parts} == files
