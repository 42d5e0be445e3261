"""FLOPs of a row in closed form, against the matrix products that PyTorch counts in a forward and a backward
pass."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megatron.model.bert import Bert
from megatron.model.flops import model_flops
from megatron.model.inputs import BertInputs
from megatron.parallel.initialization import initialize
from megatron.tasks.architecture import bert_architecture
from tests.support.configurations import make_config

ROWS, LENGTH, KEPT, VOCABULARY = 3, 64, 16, 90
SHAPE = (
    f"--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length {LENGTH} --mask-prob 0.25 "
    "--hidden-dropout 0 --attention-dropout 0 --attention-backend unfused --make-vocab-size-divisible-by 1 "
)
PAIRED = "--apply-residual-connection-post-layernorm "
MODERN = (
    "--position-embedding-type rope --geglu --disable-bias-linear --embedding-norm --bert-no-binary-head "
    "--group-query-attention --num-query-groups 2 "
)


def added_product(total: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    """That in place is not among those which PyTorch counts."""
    return 2 * left[0] * left[1] * right[1]


def counted(flags: str, dropping: tuple[int, ...]) -> int:
    """FLOPs of all products of matrices of a batch whose rows are full, a quarter of them masked."""
    config = make_config(SHAPE + flags)
    model = Bert(bert_architecture(config, VOCABULARY), dropping).train()
    initialize(model, 1)
    tokens, rows = torch.zeros(ROWS, LENGTH, dtype=torch.int64), torch.arange(ROWS)
    masked = torch.arange(0, ROWS * LENGTH, 4)
    pairs: dict[str, Any] = {
        "types": tokens,
        "firsts": rows * LENGTH,
        "pairs": rows % 2,
        "pair_weights": rows,
    }
    inputs = BertInputs(
        tokens=tokens,
        rows=rows,
        masked=masked,
        labels=masked % VOCABULARY,
        weights=torch.ones(len(masked)),
        kept=torch.arange(KEPT).expand(len(dropping), ROWS, KEPT) if dropping else None,
        **(pairs if config.sentences.pair else {}),
    )
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_product})
    with counter:
        losses = model(inputs, torch.zeros((), dtype=torch.int64))
        torch.autograd.backward(list(losses.values()))
    return counter.get_total_flops()


@pytest.mark.parametrize("dropping", [(), (1, 2)])
@pytest.mark.parametrize("flags", [PAIRED, PAIRED + "--bert-no-binary-head ", MODERN])
def test_an_encoder_against_its_products(flags: str, dropping: tuple[int, ...]) -> None:
    row_flops = model_flops(bert_architecture(make_config(SHAPE + flags), VOCABULARY), dropping)
    kept = KEPT if dropping else LENGTH
    model, hardware = row_flops(np.array([LENGTH]), np.array([kept]))
    assert model.tolist() == hardware.tolist() == [counted(flags, dropping) / ROWS]


@pytest.mark.parametrize(("window", "seen"), [("5,2", 8), ("-1,2", 64), ("64,64", 64), ("0,0", 1)])
def test_layers_with_a_window_see_it_alone(window: str, seen: int) -> None:
    """Two of four layers; at the ends of a row a few less, which are not looked at."""
    flags = f"{SHAPE}{MODERN}--window-size={window} --window-attn-skip-freq [0,1,1,0]"
    rows = np.array([LENGTH])
    local, whole = (
        model_flops(bert_architecture(make_config(one), VOCABULARY), ())(rows, rows)[0]
        for one in (flags, SHAPE + MODERN)
    )
    assert whole - local == 2 * 12 * 32 * LENGTH * (LENGTH - seen)
