"""Losses of many windows on layouts of ranks: those of one rank, and no message between stages is lost."""

import numpy as np
import pytest
import torch

from megatron.evaluation.losses import mean_losses
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


@pytest.mark.parametrize("layout", ["pp2", "pp4", "pp2 interleaved", "tp2·pp2", "zero-3 pp2·dp2"])
def test_many_windows_give_the_loss_of_one_rank(layout: str) -> None:
    (wanted,) = run_layout(place_of("")[1], scored, BASE + MODELS["gpt"], 1)
    more, place, replicas = place_of(LAYOUTS[layout])
    for found in run_layout(place, scored, BASE + MODELS["gpt"] + more, replicas):
        assert found == pytest.approx(wanted, rel=1e-12)
