"""Flags that do nothing beside the others are told, and those that do something are not."""

import pytest

from megatron.config.idle import idle_flags
from tests.support.configurations import STOP, make_config

EXPERTS = "--num-experts 4 --moe-aux-loss-coeff 0.01 "
BIASES = "--num-experts 4 --moe-router-enable-expert-bias "
WSD = "--lr-decay-style WSD --lr-wsd-decay-iters 10 "


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--lr-warmup-init 1e-5", "there is no warm-up: --lr-warmup-init"),
        ("--lr-decay-style constant --min-lr 1e-4", "--lr-decay-style constant stays at --lr: --min-lr"),
        (
            "--lr-decay-style constant --lr-decay-iters 50 --lr-warmup-iters 5",
            "--lr-decay-style constant stays at --lr: --lr-decay-iters",
        ),
        (WSD + "--lr-wsd-decay-tokens 9", "the decay is over iters: --lr-wsd-decay-tokens"),
        (
            EXPERTS + "--moe-router-bias-update-rate 0.01 --moe-token-drop-policy position",
            "--moe-router-enable-expert-bias is not given: --moe-router-bias-update-rate\n"
            "--moe-expert-capacity-factor is not given: --moe-token-drop-policy",
        ),
        (
            BIASES + "--moe-router-load-balancing-type seq_aux_loss",
            "--moe-aux-loss-coeff is 0: --moe-router-load-balancing-type",
        ),
        (
            "--attention-dropout 0 --recompute-granularity selective",
            "attention keeps no weights here, and full alone would save memory: "
            "--recompute-granularity selective",
        ),
        (
            "--context-parallel-size 2 --recompute-granularity selective",
            "attention keeps no weights here, and full alone would save memory: "
            "--recompute-granularity selective",
        ),
        ("--sequence-parallel", "--tensor-model-parallel-size is 1: --sequence-parallel"),
        ("--profile --profile-ranks 1 2 3", "the highest rank is 1: --profile-ranks 2 3"),
        ("--profile --profile-ranks 8", "the highest rank is 1: --profile-ranks 8"),
    ],
)
def test_what_does_nothing_is_told(flags: str, told: str) -> None:
    wanted = [f"without effect, as {line}" for line in told.split("\n")]
    assert idle_flags(make_config(STOP + flags), 2) == wanted


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--lr-warmup-iters 5 --lr-warmup-init 1e-5 --min-lr 1e-4",
        "--lr-decay-style constant --lr-decay-iters 50 --lr-warmup-fraction 0.1",
        WSD + "--lr-decay-iters 50",
        EXPERTS + "--moe-expert-capacity-factor 1 --moe-token-drop-policy position",
        BIASES + "--moe-router-bias-update-rate 0.01",
        "--num-experts 4 --moe-router-load-balancing-type none",
        "--recompute-granularity selective",
        "--attention-backend unfused --attention-dropout 0 --recompute-granularity selective",
        "--recompute-granularity selective --context-parallel-size 2 --cp-comm-type allgather",
        "--recompute-granularity full --attention-dropout 0",
        "--sequence-parallel --tensor-model-parallel-size 2",
        "--profile --profile-ranks 0 1",
        "--profile-ranks 7",
    ],
)
def test_what_does_something_is_not(flags: str) -> None:
    assert idle_flags(make_config(STOP + flags), 2) == []


def test_experts_that_nothing_balances_are_told() -> None:
    for more in ("", " --moe-router-load-balancing-type seq_aux_loss"):
        (line,) = idle_flags(make_config(STOP + "--num-experts 4 --moe-z-loss-coeff 1e-3" + more), 1)
    assert line.startswith("nothing balances the experts, as --moe-aux-loss-coeff is 0; 1e-2 is usual")
