"""ZeRO-1's updated weights arrive while the next forward pass runs: nothing reads one that is not there, and
layers compute before the last of them is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron.data.corpora import Corpus
from megatron.evaluation.losses import mean_losses
from megatron.model.stack import compile_layers
from megatron.parallel import fully_sharded
from megatron.parallel.mesh import Mesh
from megatron.parallel.placement import placements
from megatron.parallel.zero import UNDERWAY, ShardedBuckets
from megatron.train.resume import content_of, describe_run
from megatron.train.setup import Run
from tests.support.corpora import make_corpus
from tests.support.models import loss_of, make_model, random_batch
from tests.support.parity import BASE, MODELS, PIPELINE, ZERO, make_run, place_of, train_steps
from tests.support.ranks import run_layout, run_ranks

STEPS = 3
FEW = f"--train-iters {STEPS} "


def spoil(buckets: ShardedBuckets) -> None:
    """Fill all rows that other ranks update with NaN, as soon as they are on their way."""
    share = buckets.share_weights

    def spoiled() -> None:
        share()
        mine = {name: one.detach().clone() for name, one in buckets.parameters.items()}
        with torch.no_grad():
            for group in buckets.groups:
                for name, whole in group.items():
                    whole.fill_(torch.nan)
                    buckets.parameters[name].copy_(mine[name])

    buckets.share_weights = spoiled  # type: ignore[method-assign]


def score(run: Run) -> float:
    corpora: list[tuple[float | None, Corpus]] = [(None, make_corpus(4, 64))]
    windows = torch.stack([torch.zeros(4, dtype=torch.int64), torch.arange(4)], 1).numpy()
    loss = mean_losses(run.task, run.config, run.stages, run.rows, corpora, windows, 2, run.mesh)[""][
        "lm loss"
    ]
    assert loss is not None
    return loss


def steps(mesh: Mesh, flags: str, replicas: int, compiled: bool) -> tuple[list[float], bool]:
    """Losses and norms, of which a validation stands between two, and whether all that a checkpoint of the
    last step holds is finite. Buckets hold a part of a layer."""
    fully_sharded.ShardedBuckets = partial(ShardedBuckets, bucket_elements=1000)  # type: ignore
    run = make_run(mesh, flags, torch.float64, replicas)
    if compiled:
        for stage in run.stages:
            compile_layers(stage.layers, backend="eager")
    if isinstance(run.gradients, ShardedBuckets):
        assert len(run.gradients.groups) > UNDERWAY
        spoil(run.gradients)
    points = train_steps(run, 1, STEPS - 1).flatten().tolist()
    points += [score(run), *train_steps(run, STEPS, STEPS).flatten().tolist()]
    files = content_of(run, describe_run(run), STEPS).files
    return points, all(one.isfinite().all() for kind in files.values() for one in kind.values())


@pytest.mark.parametrize(
    ("layout", "model", "compiled"),
    [
        ("--dp 2", "gpt", False),
        ("--dp 2", "documents", False),
        ("--dp 2", "llama", True),
        (PIPELINE.format(2) + "--dp 2", "gpt", False),
        (PIPELINE.format(2) + "--num-virtual-stages-per-pipeline-rank 2 --dp 2", "llama", False),
        (PIPELINE.format(2) + "--pipeline-schedule zero-bubble --dp 2", "gpt", False),
    ],
)
def test_nothing_reads_a_weight_before_it_is_there(layout: str, model: str, compiled: bool) -> None:
    flags = BASE + MODELS[model] + FEW
    ((wanted, _),) = run_ranks(1, steps, flags, 1, False)
    more, place, replicas = place_of(ZERO + layout)
    for points, whole in run_layout(place, steps, flags + more, replicas, compiled):
        assert points == pytest.approx(wanted, rel=1e-10) and whole


class Noted:
    """A gather that is waited for, and says so."""

    def __init__(self, work: dist.Work, number: int, tell: Callable[[str, int], None]):
        self.work, self.number, self.tell = work, number, tell

    def wait(self) -> None:
        self.tell("wait", self.number)
        self.work.wait()


def events(mesh: Mesh) -> tuple[list[tuple[str, int]], list[int]]:
    """What happens in a forward pass behind an update, and the bucket of which each layer waits last."""
    model = make_model("")
    buckets = ShardedBuckets(dict(model.named_parameters()), placements(model), mesh, 2000)
    buckets.wait_in(model)
    found: list[tuple[str, int]] = []
    gather = dist.all_gather_single
    started = iter(range(100))

    def noted(*arguments: Any, **named: Any) -> Noted:
        number = next(started)
        found.append(("start", number))
        return Noted(gather(*arguments, **named), number, lambda *event: found.append(event))

    dist.all_gather_single = noted
    needed = []
    for number, layer in enumerate(model.layers.values()):
        needed.append(buckets._turns_until(layer.parameters()) - 1)
        layer.register_forward_pre_hook(lambda *_, number=number: found.append(("layer", number)))
    buckets.share_weights()
    loss_of(model, random_batch(2))
    return found, needed


def test_layers_compute_while_the_weights_of_later_ones_arrive() -> None:
    for found, needed in run_ranks(2, events):
        assert found[:UNDERWAY] == [("start", 0), ("start", 1)]
        assert needed == sorted(set(needed))  # each layer has buckets of its own
        for layer, last in enumerate(needed):
            behind = found[: found.index(("layer", layer))]
            assert [number for kind, number in behind if kind == "wait"] == list(range(last + 1))
        for place, (kind, number) in enumerate(found):
            waited = sum(kind == "wait" for kind, _ in found[:place])
            assert kind != "start" or number < waited + UNDERWAY  # so many of them have memory
