"""Float16 with loss scaling on several ranks, a resumed run of it, and sums that are sent in bfloat16."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from megatron.model.inputs import GPTInputs
from megatron.parallel.data_parallel import GradientBuckets
from megatron.parallel.mesh import Mesh, gather_over
from megatron.parallel.placement import placements
from megatron.parallel.zero import ShardedBuckets
from megatron.train.resume import describe_run, resume, save_run
from tests.support.models import loss_of, make_model, random_batch
from tests.support.parity import BASE, LAYOUTS, MODELS, make_run, place_of, train_steps
from tests.support.ranks import run_layout, run_ranks

STEPS = 8
HALF = f"--fp16 --initial-loss-scale {2.0**22} --loss-scale-window 2 --hysteresis 1 "


class Half(NamedTuple):
    """What a rank makes of a run in float16: losses and norms, the state of loss scaling behind the steps,
    AdamW's steps, and weights."""

    points: torch.Tensor
    scaling: tuple[float, ...]
    updates: set[float]
    weights: dict[str, torch.Tensor]


def in_float16(mesh: Mesh, flags: str, replicas: int, first: int, folder: str) -> Half:
    """Steps behind `first` to the last but one save; `folder`: where the run is saved, or goes on from."""
    run = make_run(mesh, f"{flags} --save {folder} --load {folder}", torch.float32, replicas)
    assert resume(run).iteration == first
    points = train_steps(run, first + 1, first + STEPS // 2)
    save_run(run, describe_run(run), first + STEPS // 2)
    updates = {float(state["step"]) for state in run.optimizer.state.values()}
    weights = {name: one.detach() for name, one in run.parameters.items()}
    return Half(points, run.scaler.state, updates, weights)


def on(layout: str, folder: Path, first: int = 0) -> list[Half]:
    flags, place, replicas = place_of(LAYOUTS.get(layout, ""))
    return run_layout(place, in_float16, BASE + MODELS["gpt"] + HALF + flags, replicas, first, str(folder))


def unbroken(mesh: Mesh, flags: str) -> Half:
    run = make_run(mesh, flags, torch.float32, 1)
    points = train_steps(run, 1, STEPS)
    updates = {float(state["step"]) for state in run.optimizer.state.values()}
    return Half(
        points, run.scaler.state, updates, {name: one.detach() for name, one in run.parameters.items()}
    )


def test_a_resumed_run_scales_and_counts_as_if_never_left(tmp_path: Path) -> None:
    """Steps are skipped before the save and the loss scale grows behind it; all bits are the same."""
    (wanted,) = run_layout(place_of("")[1], unbroken, BASE + MODELS["gpt"] + HALF)
    (first,), (second,) = on("one", tmp_path), on("one", tmp_path, STEPS // 2)
    assert torch.equal(torch.cat([first.points, second.points]).nan_to_num(), wanted.points.nan_to_num())
    assert first.scaling[3] > 0 and second.scaling == wanted.scaling
    assert second.updates == wanted.updates == {STEPS - wanted.scaling[3]}
    assert all(torch.equal(one, wanted.weights[name]) for name, one in second.weights.items())


def test_a_run_that_has_skipped_all_its_steps_goes_on(tmp_path: Path) -> None:
    """There are no moments then, and the first update is AdamW's first."""
    flags = BASE + MODELS["gpt"] + HALF + f"--initial-loss-scale {2.0**26} "
    place, folder = place_of("")[1], str(tmp_path)
    (first,) = run_layout(place, in_float16, flags, 1, 0, folder)
    (second,) = run_layout(place, in_float16, flags, 1, STEPS // 2, folder)
    assert first.scaling[3] == STEPS // 2 and not first.updates
    assert second.updates == {STEPS - second.scaling[3]} != {0}


@pytest.mark.parametrize("layout", ["tp2", "pp2", "zero dp2", "zero-3 dp2"])
def test_all_ranks_skip_the_same_steps(layout: str, tmp_path: Path) -> None:
    (wanted,) = on("one", tmp_path / "one")
    found = on(layout, tmp_path / "ranks")
    assert wanted.scaling[3] > 0
    for one in found:
        assert (one.scaling, one.updates) == (wanted.scaling, wanted.updates)
        assert torch.equal(one.points[:, 1].isfinite(), wanted.points[:, 1].isfinite())
        # float16 has 11 bits; sums of other parts differ by a rounding of them
        torch.testing.assert_close(one.points[:, 0], wanted.points[:, 0], rtol=2**-9, atol=0)


def local_gradients(
    mesh: Mesh, kind: type[GradientBuckets], sent_as: torch.dtype | None
) -> list[torch.Tensor]:
    """Of every parameter: this rank's own gradient, flat, and the sum that it is told of the part it
    updates, with where that begins."""
    model = make_model("").float()
    parameters = dict(model.named_parameters())
    buckets = kind(parameters, placements(model), mesh, 3000, sent_as)
    batch, rows = random_batch(6), torch.arange(6).view(mesh.data.size, -1)[mesh.data.rank]
    own = []
    for reduced in (False, True):
        buckets.zero()
        if reduced:
            buckets.begin(1)
        loss_of(model, GPTInputs(batch.tokens[rows], batch.labels[rows], rows)).backward()
        if not reduced:
            own = [one.grad.clone() for one in parameters.values()]
    buckets.wait()
    others = [gather_over(one, mesh.world) for one in own]
    found = []
    for (name, updated), parts in zip(buckets.parameters.items(), others):
        offset = buckets.placements[name].offset[0]
        box = slice(offset, offset + len(updated))
        halves = [part[box].bfloat16() for part in parts]
        found += [updated.grad, sum(halves[1:], halves[0]).float() if sent_as else sum(parts)[box]]
    return found


@pytest.mark.parametrize("kind", [GradientBuckets, ShardedBuckets])
@pytest.mark.parametrize("sent_as", [torch.bfloat16, None])
def test_sums_are_those_of_the_precision_in_which_they_are_sent(
    kind: type[GradientBuckets], sent_as: torch.dtype | None
) -> None:
    for tensors in run_ranks(2, local_gradients, kind, sent_as):
        assert len(tensors) > 20
        assert all(torch.equal(one, other) for one, other in zip(tensors[::2], tensors[1::2]))


def first_steps(mesh: Mesh, flags: str) -> torch.Tensor:
    return train_steps(make_run(mesh, flags, torch.float32, 1), 1, 2)


def test_gradients_that_are_sent_nowhere_are_not_rounded() -> None:
    """Tensor ranks alone have their own parts of matrices, and the same gradients of the rest."""
    more, place, _ = place_of(LAYOUTS["tp2"])
    flags = BASE + MODELS["gpt"] + "--bf16 " + more
    wanted, found = (run_layout(place, first_steps, flags + one) for one in ("", "--grad-reduce-in-bf16 "))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted))
