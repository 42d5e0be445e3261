"""Weights are drawn by name: the same whatever else the model has, and any part of one alone."""

import math

import torch

from megatron.parallel.initialization import draw_parameters
from megatron.parallel.placement import Box, new_parameter
from tests.support.models import make_model


def test_a_weight_depends_on_its_name_alone():
    few, many = make_model("--num-layers 2"), make_model("--num-layers 3")
    shared = dict(few.named_parameters())
    for name, parameter in many.named_parameters():
        if name in shared and "projection" not in name and "down" not in name:
            assert torch.equal(parameter, shared[name]), name
    assert not torch.equal(many.layers["0"].mlp.up.weight, many.layers["1"].mlp.up.weight)


def test_a_slice_can_be_drawn_alone():
    whole, part = torch.nn.Module(), torch.nn.Module()
    whole.weight, part.weight = new_parameter((12, 10), std=0.3), new_parameter((4, 5), std=0.3)
    part.weight.box = Box((12, 10), (4, 5))
    draw_parameters(whole, 9)
    draw_parameters(part, 9)
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
