"""Prices of a layout: where its groups are, how long its step would take, and which layouts fit."""

import numpy as np
import pytest
import torch

from megatron.base.errors import UserError
from megatron.model.experts import inactive_parameters
from megatron.model.share import model_parameters
from megatron.parallel.layout import AXES, Layout, layout_of
from megatron.report.cost import Machines, step_cost
from megatron.report.groups import group_notes, groups_of
from megatron.report.suggest import flags_of, read_machines, suggestions
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import fullest_step
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.prices import pipeline_of, prices, share_of, step_flops
from scripts.price_table import PAGE, row
from tests.support.configurations import make_config, make_plan, problems_of
from tools import plan_run

MODEL = (
    "--num-layers 8 --hidden-size 256 --num-attention-heads 8 --seq-length 256 --micro-batch-size 2 "
    "--global-batch-size 64 --train-iters 4 --lr 1e-3 --bf16 "
)
SLOW = Machines(peak=1e12, efficiency=0.5, inside=4e9, between=1e9, ranks_a_node=4)


@pytest.mark.parametrize("order", [AXES, ("tensor", "context", "pipeline", "data")])
def test_groups_are_what_every_rank_says(order: tuple[str, ...]) -> None:
    layout = Layout(tensor=2, context=3, data=2, pipeline=2, order=order)
    for axes in (("tensor",), ("data",), ("context", "data"), ("tensor", "pipeline")):
        groups = layout.groups(axes).tolist()
        assert sorted(map(tuple, groups)) == sorted({tuple(layout.members(one, axes)) for one in range(24)})


def test_which_groups_cross_machines() -> None:
    layout = Layout(tensor=4, data=2, pipeline=2)
    assert [groups_of(layout, axis, 8).crossing for axis in ("tensor", "data", "pipeline")] == [0, 0, 8]
    assert not group_notes(layout, 8)
    assert groups_of(Layout(tensor=4, data=3), "tensor", 6).crossing == 1  # ranks 4 to 7
    (note,) = group_notes(layout, 2)
    assert note.startswith("--tensor-model-parallel-size 4: tensor groups cross nodes of 2 ranks")
    assert groups_of(Layout(tensor=8, pipeline=128), "pipeline", 8).ranks.shape == (8, 128)


def test_a_step_by_hand() -> None:
    """Two replicas of a stage on two machines: half the FLOPs each, and all gradients once on the wire."""
    config = make_config(MODEL + "--pipeline-model-parallel-size 2", 4)
    efficiency, _ = describe(config)
    layout = layout_of(config.parallel, 8)
    share, step = (
        share_of(GPT_TASK, config, efficiency, 1000, layout),
        make_plan(config, efficiency, 1000).at(1),
    )
    price = prices(config, share, step, "cuda")[0]
    flops = step_flops(GPT_TASK, config, efficiency, 1000, step)[1]
    cost = step_cost(share, price, flops, 0.2, SLOW)
    assert cost.compute == pytest.approx(flops / 8 / 0.5e12)
    hidden = 2 * 256 * 256 * 2
    assert cost.pipeline == pytest.approx(8 * hidden / 1e9)  # ranks 0 and 4 are on two machines
    gradients, table = 4 * price.parameters, 4 * 1024 * 256
    once = 24 * 2 * 7 / 8
    assert cost.gradients == pytest.approx(gradients * 2 * 3 / 4 / 4e9 + table / 1e9 + once / 1e9)
    assert cost.bubble == pytest.approx((cost.compute + cost.pipeline) / 4)
    assert cost.tensor == cost.context == 0


def test_the_head_makes_the_last_stage_slower() -> None:
    config = make_config(MODEL + "--pipeline-model-parallel-size 2", 4)
    efficiency, _ = describe(config)
    step = make_plan(config, efficiency).at(1)
    layout = layout_of(config.parallel, 8)
    even, head = (
        pipeline_of(config, share_of(GPT_TASK, config, efficiency, size, layout), step)
        for size in (0, 50_000)
    )
    assert even.bubble == pytest.approx(1 / 9) and head.bubble > even.bubble


@pytest.mark.parametrize(
    "uneven",
    [
        "--num-experts 8 --moe-layer-freq [0]*4+[1]*4 --moe-router-topk 4",
        "--random-ltd --random-ltd-min 64 --random-ltd-duration 9",
    ],
)
def test_a_stage_takes_as_long_as_its_layers(uneven: str) -> None:
    """Experts take longer than an MLP, and layers in the middle, which drop tokens, less long."""
    bubbles = []
    for more in ("", uneven):
        config = make_config(f"{MODEL} --pipeline-model-parallel-size 4 {more}", 2)
        efficiency, _ = describe(config)
        share = share_of(GPT_TASK, config, efficiency, 0, layout_of(config.parallel, 8))
        bubbles.append(pipeline_of(config, share, make_plan(config, efficiency).at(1)).bubble)
    assert bubbles[0] == pytest.approx(3 / 19) and bubbles[1] > 0.2


@pytest.mark.parametrize("more", ["", "--num-experts 4 --moe-ffn-hidden-size 90 --moe-aux-loss-coeff 0.01 "])
def test_suggestions_keep_the_rules_and_their_order(more: str) -> None:
    """Experts of this width have two shares, and no four; on more ranks they are whole."""
    config = make_config(MODEL + more)
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency, 1000)
    found = suggestions(GPT_TASK, config, efficiency, 1000, plan, fullest_step(plan), 16, SLOW, "cuda")
    assert len(found) > 50
    assert {one.layout.ranks for one in found} == {16}
    assert max(one.layout.tensor for one in found) == 4  # of a machine
    assert {one.layout.expert_matrices for one in found} == ({1, 2} if more else {1, 2, 4})
    assert {one.layout.expert for one in found} == ({1, 2, 4} if more else {1})
    seconds = [one.cost.seconds for one in found]
    assert np.diff(seconds).min() > -1e-6
    for one in found[::7]:
        flags = MODEL + more + flags_of(one)
        assert not problems_of(flags, one.layout.data)
        layout = layout_of(make_config(flags, one.layout.data).parallel, 16)
        assert layout.expert_matrices == one.layout.expert_matrices
    assert len({flags_of(one) for one in found}) == len(found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("64 80GiB", (64, 80 * 2**30)), ("8 80GB", (8, 80 * 10**9)), ("1 512mib", (1, 2**29))],
)
def test_machines_in_words(text: str, wanted: tuple[int, int]) -> None:
    assert read_machines(tuple(text.split())) == wanted


@pytest.mark.parametrize(
    "text", ["64", "64 80 GiB", "x 80GiB", "0 80GiB", "8 80parsecs", "8 .GB", "8 1.2.3GB"]
)
def test_machines_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="give devices and the memory of each, such as 64 80GiB"):
        read_machines(tuple(text.split()))


def test_the_tool_prices_and_shows_groups(capsys: pytest.CaptureFixture[str]) -> None:
    layout = "--tensor-model-parallel-size 4 --pipeline-model-parallel-size 2 --vocab-size 1000 --ranks"
    plan_run.main(f"torchrun --nnodes 8 --nproc-per-node 2 pretrain_gpt.py {MODEL} {layout}".split())
    told = capsys.readouterr()
    assert "tensor groups cross nodes of 2 ranks" in told.err
    for words in ("Memory of a rank, GiB", "fullest", "16 ranks on 8 nodes of 2", "0-3 | 4-7 | 8-11 | 12-15"):
        assert words in told.out
    assert "Which rank sits where" in told.out and "s on 16 GPUs (compute " in told.out
    assumed = "assumed: 50% of 989 TFLOP/s (an H100's, where --device-peak-tflops is not given), "
    assert assumed in told.out
    words = f"torchrun --nnodes 8 --nproc-per-node 2 pretrain_gpt.py {MODEL} {layout}"
    plan_run.main(words.replace("--bf16", "--fp16").split())
    assert assumed in capsys.readouterr().out
    plan_run.main(f"{MODEL} --vocab-size 1000".split())
    alone = capsys.readouterr().out
    assert "FLOPs of step 1, whose layers compute most: " in alone and " s on 1 GPU (compute 100%)" in alone
    plan_run.main(f"{MODEL} --vocab-size 1000 --device-peak-tflops 2".split())
    assert "; assumed: 50% of 2 TFLOP/s, 450 GB/s inside" in capsys.readouterr().out
    assert "Memory of a rank, GiB" in alone and "who works together" not in alone


def test_the_tool_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    plan_run.main(f"{MODEL} --vocab-size 1000 --suggest-layout 16 2GiB".split())
    told = capsys.readouterr().out
    assert "Layouts that fit into 2.0 GiB a device" in told and " 1  " in told
    plan_run.main(f"{MODEL} --vocab-size 1000 --suggest-layout 2 50MiB".split())
    none = capsys.readouterr().out
    assert "layouts fits into 0.0 GiB: the smallest takes" in none and "what would help: " in none


@pytest.mark.parametrize(
    ("recipe", "devices"), [("1.3B", 1024), ("13B", 64), ("175B", 8), ("175B", 64), ("BERT-large", 64)]
)
def test_the_table_of_recipes(recipe: str, devices: int) -> None:
    assert row(recipe, devices) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "more",
    [
        "",
        "--num-experts 8 --moe-layer-freq 2",
        "--num-experts 4 --moe-router-topk 3 --swiglu --moe-ffn-hidden-size 48",
    ],
)
def test_parameters_of_the_whole_model(more: str) -> None:
    config = make_config(f"{MODEL} {more} --moe-shared-expert-intermediate-size 16")
    efficiency, _ = describe(config)
    with torch.device("meta"):
        model = GPT_TASK.build_model(config, 1000, ())
    total = sum(one.numel() for one in model.parameters())
    share = share_of(GPT_TASK, config, efficiency, 1000, layout_of(config.parallel, 1))
    assert model_parameters(share) == (total, total - inactive_parameters(model))


def test_states_of_175_billion_parameters() -> None:
    """16 bytes of each: weights, gradients and two moments, all fp32."""
    flags = "--num-layers 96 --hidden-size 12288 --num-attention-heads 96 --seq-length 2048 "
    config = make_config(flags + "--micro-batch-size 1 --tensor-model-parallel-size 8 --train-iters 1", 1)
    efficiency, _ = describe(config)
    share = share_of(GPT_TASK, config, efficiency, 50_257, layout_of(config.parallel, 8))
    (price,) = prices(config, share, make_plan(config, efficiency).at(1), "cuda")
    assert 8 * price.parameters == pytest.approx(175e9, rel=0.01)
    assert 8 * sum(price.states) == pytest.approx(16 * 175e9, rel=0.01)
