"""Flags of experts: patterns of layers, and what does not go together."""

import pytest

from megatron.config.experts import expert_layers
from tests.support.configurations import STOP, make_config, problems_of


@pytest.mark.parametrize(
    ("flags", "layers"),
    [
        ("", (0, 1, 2, 3)),
        ("--moe-layer-freq 2", (0, 2)),
        ("--moe-layer-freq 3", (0, 3)),
        ("--moe-layer-freq ([0]+[1])*2", (1, 3)),
        ("--moe-layer-freq [0]*1+[1]*3", (1, 2, 3)),
        ("--moe-layer-freq [0,1,1,0]", (1, 2)),
        ("--expert-interval 2", (1, 3)),
        ("--expert-interval 3", (2,)),
        ("--expert-interval 1", (0, 1, 2, 3)),
        ("--moe-layer-freq \"'([0]+[1])*2'\"", (1, 3)),
    ],
)
def test_layers_with_experts(flags, layers):
    config = make_config(STOP + "--num-experts 4 " + flags)
    assert expert_layers(config.experts, 4) == layers
    assert expert_layers(make_config(STOP + flags).experts, 4) == ()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--moe-layer-freq 0", "--moe-layer-freq '0': write a number of at least 1, or a pattern"),
        ("--moe-layer-freq [0,2]*2", "write a number of at least 1, or a pattern"),
        ("--moe-layer-freq __import__('os')", "write a number of at least 1, or a pattern"),
        ("--moe-layer-freq [1]*1000000000", "write a number of at least 1, or a pattern"),
        ("--moe-layer-freq [1]*3", "is a pattern of 3 layers, and --num-layers is 4"),
        ("--moe-layer-freq [0]*4", "--moe-layer-freq '[0]*4' gives no layer experts; name some"),
        ("--moe-router-topk 9", "--moe-router-topk 9 is more than --num-experts 8; lower it"),
        ("--moe-router-topk 1", "--moe-router-topk 1 needs --moe-router-pre-softmax"),
        ("--moe-router-num-groups 2", "need each other; give both"),
        ("--moe-router-num-groups 3 --moe-router-group-topk 1", "3 does not divide --num-experts 8"),
        ("--moe-router-num-groups 4 --moe-router-group-topk 3", "--moe-router-group-topk 3 must be at most"),
        ("--moe-router-load-balancing-type none --moe-aux-loss-coeff 1", "does nothing with"),
        (
            "--moe-router-load-balancing-type sinkhorn --moe-router-enable-expert-bias",
            "leave one of them out",
        ),
        (
            "--moe-group-size 4",
            "--moe-group-size 4 does not divide --micro-batch-size 2; take micro-",
        ),
        ("--moe-ffn-hidden-size 33 --tensor-model-parallel-size 2", "33 is no multiple of"),
        (
            "--expert-model-parallel-size 3",
            "--num-experts 8 is no multiple of --expert-model-parallel-size 3; give 1, 2, 4 or 8, or other "
            "experts",
        ),
        (
            "--moe-ffn-hidden-size 33 --expert-tensor-parallel-size 2",
            "--moe-ffn-hidden-size 33 is no multiple of --expert-tensor-parallel-size 2; give "
            "--expert-tensor-parallel-size 1, or 34 for a new model",
        ),
        (
            "--tensor-model-parallel-size 2 --expert-tensor-parallel-size 1",
            "whose ranks then must have different tokens; give --sequence-parallel, or leave it out",
        ),
        (
            "--moe-pad-expert-input-to-capacity",
            "needs --moe-expert-capacity-factor; give it, or leave it out",
        ),
        (
            "--num-experts 1 --expert-model-parallel-size 2",
            "there are no experts; leave it out, or give --num-experts to pretrain_gpt.py",
        ),
        ("--compile", "--compile does not go with --num-experts"),
        ("--disable-moe-token-dropping --moe-train-capacity-factor 1", "leave one of the two out"),
        ("--moe-router-pre-softmax --moe-router-score-function sigmoid", "does nothing with"),
        (
            "--moe-router-pre-softmax --moe-router-topk 1 --moe-router-load-balancing-type sinkhorn",
            "does nothing with --moe-router-topk 1 and balancing by sinkhorn",
        ),
    ],
)
def test_what_does_not_go_together(flags, words):
    (problem,) = problems_of(STOP + "--num-experts 8 --apex false " + flags)
    assert words in problem


def test_groups_are_the_micro_batch_unless_said_otherwise():
    assert make_config(STOP + "--num-experts 8").experts.moe_group_size == 2
    assert make_config(STOP + "--num-experts 8 --moe-group-size 1").experts.moe_group_size == 1
    assert make_config(STOP).experts.moe_group_size == 1, "so that other micro-batches go on with dense runs"
