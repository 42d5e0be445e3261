"""Attention against softmax worked out pair by pair, for every backend, and dropout against its keys."""

import math

import pytest
import torch
from torch import Tensor

from megatron.model.attention import Attention, explicit_in_training
from megatron.model.context import Sight, make_context
from megatron.model.dropout import drop_attention, salt, token_keys
from megatron.model.stack import draws_in_kernels
from megatron.parallel.mesh import CPU
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config
from tests.support.models import HEADS, HIDDEN, PLAIN, SHAPE, VOCAB, make_moved_model

ROWS, LENGTH, HEAD = 2, 9, HIDDEN // HEADS
GROUPED = "--group-query-attention --num-query-groups 2 "
STARTS = torch.tensor([[0, 0, 0, 3, 3, 5, 5, 5, 5], [0, 0, 0, 0, 0, 0, 6, 6, 8]])


def attention_of(flags: str) -> Attention:
    attention = make_moved_model(flags).layers["1"].attention
    assert isinstance(attention, Attention)
    return attention


def hidden() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(ROWS, LENGTH, HIDDEN, dtype=torch.float64, generator=generator)


def by_hand(attention: Attention, x_BTD: Tensor, starts: Tensor, scale: Tensor | None = None) -> Tensor:
    """Every query's mean of the values of its document so far; `scale` [B, H, T, T] multiplies weights."""
    query, keys, value = (part(x_BTD) for part in (attention.query, attention.key, attention.value))
    shared = HEADS // (keys.shape[-1] // HEAD)
    out = torch.zeros(ROWS, LENGTH, HIDDEN, dtype=torch.float64)
    for row in range(ROWS):
        for head in range(HEADS):
            mine = slice(head * HEAD, head * HEAD + HEAD)
            theirs = slice(head // shared * HEAD, head // shared * HEAD + HEAD)
            for at in range(LENGTH):
                seen = slice(int(starts[row, at]), at + 1)
                powers = (keys[row, seen, theirs] @ query[row, at, mine] / math.sqrt(HEAD)).exp()
                weights = powers / powers.sum()
                if scale is not None:
                    weights = weights * scale[row, head, at, seen]
                out[row, at, mine] = weights @ value[row, seen, theirs]
    return attention.projection(out)


@pytest.mark.parametrize("backend", ["auto", "fused", "unfused", "local"])
@pytest.mark.parametrize("more", ["", GROUPED])
@pytest.mark.parametrize("documents", [False, True])
def test_attention_equals_softmax_by_hand(backend: str, more: str, documents: bool) -> None:
    attention = attention_of(f"--attention-backend {backend} {more}")
    starts = STARTS if documents else torch.zeros_like(STARTS)
    context = make_context(LENGTH, CPU, Sight(starts=starts if documents else None))
    found = attention(hidden(), context)
    torch.testing.assert_close(found, by_hand(attention, hidden(), starts), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", ["auto", "unfused"])
def test_dropped_weights_are_those_of_their_keys(backend: str) -> None:
    """Weights are dropped after the softmax, by the salts of the layer; without keys none is."""
    attention = attention_of(f"--attention-backend {backend} --attention-dropout 0.3 {GROUPED}")
    keys = token_keys(torch.tensor(3), torch.arange(ROWS), LENGTH)
    salts = torch.stack([salt("attention", 1, head) for head in range(HEADS)]), salt("attention key", 1)
    ones = torch.ones(ROWS, HEADS, LENGTH, LENGTH, dtype=torch.float64)
    scale = drop_attention(ones, 0.3, keys, keys, *salts)
    for given, factors in ((keys, scale), (None, ones)):
        found = attention(hidden(), make_context(LENGTH, CPU, Sight(starts=STARTS), None, given))
        wanted = by_hand(attention, hidden(), STARTS, factors)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("flags", "explicit", "in_kernels"),
    [
        ("--attention-dropout 0.1", True, False),
        ("--attention-dropout 0.1 --attention-backend fused", False, True),
        ("--attention-dropout 0.1 --attention-backend unfused", True, False),
        ("--attention-dropout 0.1 --attention-backend local", True, False),
        ("", False, False),
        ("--attention-backend fused", False, False),
        ("--attention-backend unfused", True, False),
    ],
)
def test_who_computes_and_drops_the_weights_in_training(flags: str, explicit: bool, in_kernels: bool) -> None:
    """Written out only where asked, or where keys must drop: kernels cost less."""
    architecture = gpt_architecture(make_config(SHAPE + PLAIN + flags), VOCAB)
    assert (explicit_in_training(architecture), draws_in_kernels(architecture)) == (explicit, in_kernels)
