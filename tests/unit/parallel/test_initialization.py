"""Weights are drawn by name: the same whatever else the model has, and any part of one alone."""

import math

import pytest
import torch
from torch import nn

from megatron.model.gpt import GPT
from megatron.parallel.initialization import initialize
from megatron.parallel.placement import Placement, add_constants, add_parameter, fill_constants, placements
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config
from tests.support.models import PLAIN, SHAPE, VOCAB, loss_of, make_model, random_batch


def test_a_weight_depends_on_its_name_alone():
    few, many = make_model("--num-layers 2"), make_model("--num-layers 3")
    shared = dict(few.named_parameters())
    for name, parameter in many.named_parameters():
        if name in shared and "projection" not in name and "down" not in name:
            assert torch.equal(parameter, shared[name]), name
    assert not torch.equal(many.layers["0"].mlp.up.weight, many.layers["1"].mlp.up.weight)


def test_a_slice_can_be_drawn_alone():
    whole, part = torch.nn.Module(), torch.nn.Module()
    add_parameter(whole, "weight", (12, 10), std=0.3)
    add_parameter(part, "weight", (4, 5), std=0.3)
    part.placements = {"weight": Placement((12, 10), (4, 5), std=0.3)}
    initialize(whole, 9)
    initialize(part, 9)
    assert torch.equal(whole.weight[4:8, 5:10], part.weight)


def test_initial_scales_are_gpt3s():
    model = make_model("--hidden-size 256 --init-method-std 0.02")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert bool((parameter == (1.0 if "norm.weight" in name else 0.0)).all()), name
            continue
        deep = "projection" in name or "down" in name
        wanted = 0.02 / math.sqrt(2 * 3) if deep else 0.02
        # the standard error of a standard deviation over n draws is std / sqrt(2 n)
        assert abs(parameter.std().item() - wanted) < 5 * wanted / math.sqrt(2 * parameter.numel()), name


@pytest.mark.parametrize(
    "flags", ["--hidden-dropout 0.1 --attention-dropout 0.1 ", "--position-embedding-type rope "]
)
def test_a_model_built_on_the_meta_device_is_the_same_model(flags):
    """Nothing that placements, weights or constants need is lost when storage is given to it later."""
    architecture = gpt_architecture(make_config(SHAPE + PLAIN + flags), VOCAB)
    with torch.device("meta"):
        later = GPT(architecture, dropping=(1,))
    later = later.to_empty(device="cpu")
    for tensor in (*later.parameters(), *later.buffers()):
        tensor.data.fill_(7)
    initialize(later, 5)
    at_once = GPT(architecture, dropping=(1,))
    initialize(at_once, 5)
    assert list(placements(later)) == [name for name, _ in later.named_parameters()]
    for mine, theirs in (
        (later.named_parameters(), at_once.parameters()),
        (later.named_buffers(), at_once.buffers()),
    ):
        for (name, one), other in zip(mine, theirs, strict=True):
            assert torch.equal(one, other), name
    assert torch.equal(loss_of(later, random_batch(), 3), loss_of(at_once, random_batch(), 3))


def test_a_parameter_without_a_placement_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no placement for 0\.weight, 0\.bias"):
        placements(model)


def test_a_buffer_that_nothing_fills_is_refused() -> None:
    """Models are built on the meta device, where what a constructor writes is lost."""
    model = nn.Module()
    add_constants(model, lambda: {"angles": torch.ones(2)})
    fill_constants(model)
    model.register_buffer("mask", torch.ones(3))
    with pytest.raises(ValueError, match="nothing fills mask; make buffers by add_constants"):
        fill_constants(model)
