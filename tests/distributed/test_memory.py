"""What ranks hold at their fullest, tensor by tensor, against what their layout is priced at."""

import pytest

from tests.support.memory import compare
from tests.support.parity import LAYOUTS, OF_EXPERTS

TRIED = (
    "tp2+sp",
    "pp2",
    "pp2 zero-bubble",
    "cp2 allgather",
    "cp2 p2p",
    "zero dp2",
    "zero-2 dp2",
    "zero-3 dp2",
    "zero-3 tp2·dp2",
    "tp2·pp2",
)
FIRST = "--apply-residual-connection-post-layernorm "
MODERN = (
    "--position-embedding-type rope --geglu --disable-bias-linear --disable-norm-bias --embedding-norm "
    "--bert-no-binary-head --mask-prob 0.3 --window-size 9,9 --window-attn-skip-freq [0,1,1,0] "
)
TRIED_WITH_ENCODERS = (
    ("tp2+sp", FIRST),
    ("tp2", MODERN),
    ("pp2", FIRST),
    ("pp2 zero-bubble", FIRST),
    ("cp2 allgather", FIRST),
    ("cp2 a2a", MODERN),
    ("zero dp2", FIRST),
    ("zero-3 dp2", MODERN),
    ("zero-3 tp2·dp2", FIRST),
)
EXPERTS = "--num-experts 8 --moe-ffn-hidden-size 256 --moe-router-load-balancing-type sinkhorn "
TRIED_WITH_EXPERTS = ("ep2", "ep2 allgather", "ep2·dp2 zero", "tp2+sp·ep2", "ep2 zero-3", "ep2·dp2 zero-3")


@pytest.mark.parametrize("layout", TRIED)
def test_the_most_that_every_rank_holds(layout: str) -> None:
    """Within 3 %: counted is what layers keep and the largest of what else there is, not small tensors. Where
    weights are gathered, the most of them is added to the most of the rest, which is elsewhere in a step."""
    for one in compare(LAYOUTS[layout], 4):
        assert sum(one.price.states) == pytest.approx(one.between, rel=0.01)
        above = 0.1 if layout.startswith(("zero-2", "zero-3")) else 0.03
        assert 0.97 * one.most < one.price.total < (1 + above) * one.most


@pytest.mark.parametrize(("layout", "model"), TRIED_WITH_ENCODERS)
def test_the_most_that_ranks_of_encoders_hold(layout: str, model: str) -> None:
    for one in compare(model + LAYOUTS[layout], 4, "bert"):
        assert sum(one.price.states) == pytest.approx(one.between, rel=0.01)
        above = 0.1 if layout.startswith("zero-3") else 0.03
        assert 0.97 * one.most < one.price.total < (1 + above) * one.most


@pytest.mark.parametrize("layout", TRIED_WITH_EXPERTS)
def test_the_most_that_ranks_hold_that_share_experts(layout: str) -> None:
    """Experts have nearly equal loads by sinkhorn, as the price takes for granted."""
    for one in compare(EXPERTS + OF_EXPERTS[layout], 4):
        assert sum(one.price.states) == pytest.approx(one.between, rel=0.01)
        above = 0.13 if "zero-3" in layout else 0.06
        assert 0.94 * one.most < one.price.total < (1 + above) * one.most


@pytest.mark.parametrize("strategy", ["--use-distributed-optimizer", "--use-torch-fsdp2"])
def test_experts_alike_on_the_tensor_axis_alone_are_not_shared(strategy: str) -> None:
    tensor = "--tensor-model-parallel-size 2 --sequence-parallel --expert-tensor-parallel-size 1 "
    for one in compare(EXPERTS + tensor + strategy + " --dp 1", 1):
        assert sum(one.price.states) == pytest.approx(one.between, rel=0.01)


def test_the_most_is_in_the_backward_pass_of_wide_experts() -> None:
    """Four of a token's experts, and gradients of the matrices of all, where layers keep nothing."""
    wide = "--num-experts 8 --moe-router-topk 4 --moe-router-load-balancing-type sinkhorn "
    for one in compare(wide + "--recompute-granularity full --dp 1", 2):
        assert 0.98 * one.most < one.price.total < 1.03 * one.most


FEW_TOKENS = "--recompute-granularity full --hidden-dropout 0 --hidden-size 512 --micro-batch-size 1 --bf16 "


@pytest.mark.parametrize("layout", ["--dp 2", "--use-distributed-optimizer --dp 2"])
@pytest.mark.parametrize("sums", ["", "--grad-reduce-in-bf16 "])
def test_the_most_is_where_gradients_are_summed(layout: str, sums: str) -> None:
    """With few tokens and large weights: copies of gradients are there, and no activations."""
    for one in compare(FEW_TOKENS + sums + layout, 2):
        assert 0.98 * one.most < one.price.total < 1.01 * one.most


def test_many_micro_batches_take_no_more_than_few() -> None:
    """As messages that have arrived are not kept."""
    few, many = ([one.most for one in compare(LAYOUTS["pp2"], count)] for count in (6, 9))
    assert many == pytest.approx(few, rel=0.01)
