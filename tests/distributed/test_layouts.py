"""Every layout of ranks gives the losses, gradient norms, weights and choices of experts of one rank: the
whole training step in double precision, with curriculum, random-LTD, dropout, accumulation and clipping. The
table of docs/parallelism.md is of twenty steps; these go through the same in fewer."""

import pytest
import torch

from megatron.parallel.mesh import Mesh
from tests.support.parity import (
    BASE,
    ENCODED,
    LAYOUTS,
    MIXED,
    MODELS,
    OF_EXPERTS,
    PADDED,
    SEEN,
    TENSOR,
    deviations,
    in_steps,
    make_run,
    pairs,
    train_steps,
)
from tests.support.ranks import run_ranks

STEPS = 6


def lengths_and_norms(mesh: Mesh, flags: str) -> tuple[set[int], set[int], torch.Tensor]:
    run = make_run(mesh, flags, torch.float64, 1)
    rows, kept = run.plan.sequence_length.tolist(), run.plan.kept_length.tolist()
    return set(rows), set(kept), train_steps(run, 1, STEPS)[:, -1]


@pytest.mark.parametrize("model", ["gpt", "llama"])
def test_few_steps_have_all_that_changes_on_the_way(model: str) -> None:
    """Three lengths, three kept lengths and the whole row, and gradients that are clipped."""
    ((rows, kept, norms),) = run_ranks(1, lengths_and_norms, in_steps(BASE + MODELS[model], STEPS))
    assert rows == {32, 48, 64} and kept >= {16, 32, 48}
    assert (norms > 0.5).any()


@pytest.mark.parametrize(("layout", "model"), [*pairs(), *MIXED, *ENCODED, *SEEN])
def test_every_layout_trains_the_same_model(layout: str, model: str) -> None:
    loss, norm, weight = deviations(model, (LAYOUTS | OF_EXPERTS | PADDED)[layout], torch.float64, STEPS)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)


@pytest.mark.parametrize("model", ["gpt", "llama"])
def test_the_tensor_axis_need_not_divide_the_vocabulary(model: str) -> None:
    """50 tokens on four ranks are 13, 13, 12 and 12, and padding changes nothing."""
    layout = TENSOR.format(4) + "--make-vocab-size-divisible-by 1"
    loss, norm, weight = deviations(model, layout, torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)


@pytest.mark.parametrize(("layout", "model"), [("tp2+sp·cp2", "gpt"), ("tp2·pp2·dp2", "llama")])
def test_in_single_precision_layouts_differ_by_rounding(layout: str, model: str) -> None:
    """Six digits of the loss and five of the norm."""
    loss, norm, _ = deviations(model, LAYOUTS[layout], torch.float32, STEPS)
    assert loss < 2e-6 and norm < 2e-5, (loss, norm)


@pytest.mark.parametrize(("model", "size"), [("experts", 2), ("experts limited", 1), ("experts sinkhorn", 2)])
def test_experts_do_not_depend_on_micro_batches(model: str, size: int) -> None:
    """Balance and capacity are over groups of samples, however many of them a forward pass has."""
    flags = f"--micro-batch-size 4 --moe-group-size {size}"
    loss, norm, weight = deviations(model, flags, torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)
