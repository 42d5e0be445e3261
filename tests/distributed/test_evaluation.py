"""Losses of many windows on layouts of ranks: those of one rank, and no message between stages is lost."""

from typing import Any

import numpy as np
import pytest
import torch

from megatron.evaluation.losses import CutOff, mean_losses
from megatron.model.gpt import LM_LOSS
from megatron.parallel.mesh import Mesh
from tests.support.corpora import make_corpus
from tests.support.parity import BASE, LAYOUTS, MODELS, make_run, place_of
from tests.support.ranks import run_layout

WINDOWS = 60


def scored(mesh: Mesh, flags: str, replicas: int) -> float | None:
    """The mean loss over windows enough for thirty micro-batches, told twice."""
    run = make_run(mesh, flags, torch.float64, replicas)
    corpora, windows = [(None, make_corpus(160, 64))], np.array([(0, one) for one in range(WINDOWS)])
    found = [
        mean_losses(run.task, run.config, run.stages, run.rows, corpora, windows, 2, mesh)[""][LM_LOSS]
        for _ in range(2)
    ]
    assert found[0] == found[1]
    return found[0]


def cut_off(mesh: Mesh, flags: str, replicas: int, rank: int) -> tuple[int, float | None]:
    """Micro-batches that were scored where one rank wishes to stop after eight, and a loss behind that."""
    run = make_run(mesh, flags, torch.float64, replicas)
    corpora, windows = [(None, make_corpus(160, 64))], np.array([(0, one) for one in range(WINDOWS)])
    made = []

    def plain(*given: Any) -> Any:
        made.append(given)
        return run.rows.plain(*given)

    def wishes() -> bool:
        return mesh.world.rank == rank and len(made) >= 8

    before = [stage.training for stage in run.stages]
    with pytest.raises(CutOff):
        mean_losses(
            run.task,
            run.config,
            run.stages,
            run.rows._replace(plain=plain),
            corpora,
            windows,
            2,
            mesh,
            wishes,
        )
    assert [stage.training for stage in run.stages] == before
    after = mean_losses(run.task, run.config, run.stages, run.rows, corpora, windows, 2, mesh)
    return len(made), after[""][LM_LOSS]


@pytest.mark.parametrize("layout", ["pp2", "pp4", "tp2·pp2", "zero-3 pp2·dp2"])
def test_a_wish_of_one_rank_cuts_all_off_at_the_same_micro_batch(layout: str) -> None:
    """Nothing that was sent on the way is left for what comes behind it."""
    (wanted,) = run_layout(place_of("")[1], scored, BASE + MODELS["gpt"], 1)
    more, place, replicas = place_of(LAYOUTS[layout])
    found = run_layout(place, cut_off, BASE + MODELS["gpt"] + more, replicas, place.ranks - 1)
    assert len({count for count, _ in found}) == 1 and 8 <= found[0][0] < 30
    assert [loss for _, loss in found] == [pytest.approx(wanted, rel=1e-12)] * place.ranks


@pytest.mark.parametrize("layout", ["pp2", "pp4", "pp2 interleaved", "tp2·pp2", "zero-3 pp2·dp2"])
def test_many_windows_give_the_loss_of_one_rank(layout: str) -> None:
    (wanted,) = run_layout(place_of("")[1], scored, BASE + MODELS["gpt"], 1)
    more, place, replicas = place_of(LAYOUTS[layout])
    for found in run_layout(place, scored, BASE + MODELS["gpt"] + more, replicas):
        assert found == pytest.approx(wanted, rel=1e-12)
