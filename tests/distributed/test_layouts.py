"""Every layout of ranks gives the losses, gradient norms, weights and choices of experts of one rank: the
whole training step in double precision, with curriculum, random-LTD, dropout, accumulation and clipping."""

import pytest
import torch

from tests.support.parity import LAYOUTS, MIXED, TENSOR, deviations, pairs


@pytest.mark.parametrize(("layout", "model"), [*pairs(), *MIXED])
def test_every_layout_trains_the_same_model(layout: str, model: str) -> None:
    loss, norm, weight = deviations(model, LAYOUTS[layout], torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)


@pytest.mark.parametrize("model", ["gpt", "llama"])
def test_the_tensor_axis_need_not_divide_the_vocabulary(model: str) -> None:
    """50 tokens on four ranks are 13, 13, 12 and 12, and padding changes nothing."""
    layout = TENSOR.format(4) + "--make-vocab-size-divisible-by 1"
    loss, norm, weight = deviations(model, layout, torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)


@pytest.mark.parametrize(("layout", "model"), [("tp2+sp·cp2", "gpt"), ("tp2·pp2·dp2", "llama")])
def test_in_single_precision_layouts_differ_by_rounding(layout: str, model: str) -> None:
    """Six digits of the loss and five of the norm after twenty steps."""
    loss, norm, _ = deviations(model, LAYOUTS[layout], torch.float32)
    assert loss < 2e-6 and norm < 2e-5, (loss, norm)


@pytest.mark.parametrize(("model", "size"), [("experts", 2), ("experts limited", 1), ("experts sinkhorn", 2)])
def test_experts_do_not_depend_on_micro_batches(model: str, size: int) -> None:
    """Balance and capacity are over groups of samples, however many of them a forward pass has."""
    flags = f"--micro-batch-size 4 --moe-group-size {size}"
    loss, norm, weight = deviations(model, flags, torch.float64)
    assert loss < 1e-10 and norm < 1e-10 and weight < 1e-9, (loss, norm, weight)
