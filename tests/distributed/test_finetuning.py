"""Finetuning on several ranks is that on one: losses, gradient norms and logits, with dropout on."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from megatron.finetuning.job import Job, read_job
from megatron.finetuning.predictions import all_logits
from megatron.finetuning.run import load_encoder, prepare
from megatron.parallel.layout import Layout, layout_of
from megatron.parallel.mesh import Mesh
from megatron.train.setup import build
from tests.support.labelled import modern_config, write_huggingface, write_own
from tests.support.parity import train_steps
from tests.support.ranks import run_layout, run_ranks

LAYOUTS = {
    "dp2": (2, ""),
    "tp2": (1, "--tensor-model-parallel-size 2"),
    "tp2+sp·dp2": (2, "--tensor-model-parallel-size 2 --sequence-parallel"),
    "zero-3 dp2": (2, "--data-parallel-sharding-strategy optim_grads_params"),
}
MODERN = {"kind": transformers.ModernBertForMaskedLM, "config": modern_config, "classifier_pooling": "mean"}
SIZES = "--global-batch-size 12 --micro-batch-size 3 --train-iters 5 --lr 1e-3"


def outcome(mesh: Mesh, job: Job) -> tuple[torch.Tensor, np.ndarray]:
    torch.set_default_dtype(torch.float64)
    run = build(prepare(job), mesh)
    assert [name.rpartition(".")[0] for name in load_encoder(run, job)] == ["pair_head.output"] * 2
    for stage in run.stages:
        stage.train()
    points = train_steps(run, 1, run.plan.steps)
    run.gradients.gather_weights()
    return points, all_logits(run.model, job.corpora["dev"], job.outputs, 3, mesh)


@pytest.fixture(scope="module", params=[{}, MODERN], ids=["bert", "modern"])
def words(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[str]:
    folder = tmp_path_factory.mktemp("labelled")
    load = write_huggingface(folder / "theirs", **request.param)
    return [*write_own(folder), "--load", str(load), "--save", str(folder / "run"), *SIZES.split()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_finetunes_the_same_model(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ((points, logits),) = run_ranks(1, outcome, read_job(words, "", ""))
    replicas, flags = LAYOUTS[name]
    tensor = 2 if "tensor" in flags else 1
    monkeypatch.setenv("WORLD_SIZE", str(replicas * tensor))
    job = read_job([*words, *flags.split()], "", "")
    place: Layout = layout_of(job.config.parallel, replicas * tensor)
    assert np.abs(logits).max() > 0.1 and points[0, 0] != points[1, 0]
    for found, told in run_layout(place, outcome, job):
        torch.testing.assert_close(found, points, rtol=1e-10, atol=0)
        np.testing.assert_allclose(told, logits, rtol=0, atol=1e-9)


def test_nothing_is_left_in_the_folder(words: list[str]) -> None:
    assert not Path(words[words.index("--save") + 1]).exists()
