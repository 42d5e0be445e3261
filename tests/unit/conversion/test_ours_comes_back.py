"""Checkpoints of ours to Hugging Face's files and back: every weight to the bit."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron.base.errors import UserError
from megatron.checkpoint.contents import flag_changes
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.manifest import Manifest, as_read, read_manifest
from megatron.checkpoint.save import save_checkpoint
from megatron.conversion.families import state_content
from megatron.conversion.to_ours import PADDED
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.placement import placements
from megatron.tasks.tasks import TASKS
from tests.support.configurations import make_config
from tests.unit.conversion.conftest import Tool

TOKENS = 90
FLAGS = "--num-layers 3 --hidden-size 32 --seq-length 16 --train-iters 1 --make-vocab-size-divisible-by 8 "
LLAMA = "--position-embedding-type rope --rotary-base 5e5 --normalization RMSNorm --swiglu "
LLAMA += "--disable-bias-linear --untie-embeddings-and-output-weights --ffn-hidden-size 48 "
LLAMA += "--group-query-attention --num-query-groups 2 "
MODELS = {
    "gpt2": ("gpt", ""),
    "llama": ("gpt", LLAMA),
    "mixtral": ("gpt", LLAMA + "--num-experts 4 --moe-router-topk 2 "),
    "bert": ("bert", "--apply-residual-connection-post-layernorm "),
}
OF_A_RUN = {
    f"--{name}" for name in ("micro-batch-size", "global-batch-size", "train-iters", "lr", "mock-data")
}
OF_A_RUN |= {f"--{name}" for name in ("hidden-dropout", "make-vocab-size-divisible-by", "vocab-size")}
OF_A_RUN |= {f"--moe-{name}" for name in ("router-load-balancing-type", "group-size", "ffn-hidden-size")}
"""What their files do not say, or in other words: the last is --ffn-hidden-size where it is not given."""


def write_ours(root: Path, task: str, flags: str) -> dict[str, torch.Tensor]:
    """A checkpoint whose weights all differ, those of rows that are no tokens, too; these weights."""
    config = make_config(FLAGS + flags)
    model = TASKS[task].build_model(config, TOKENS, ())
    torch.manual_seed(3)
    weights = {name: torch.randn(one.shape) for name, one in model.named_parameters()}
    vocabulary = Vocabulary(TOKENS, 7, None)
    manifest = as_read(Manifest(task, dataclasses.asdict(config), vocabulary, [], [], {}, {}, {}))
    save_checkpoint(root, {"model": weights}, placements(model), dataclasses.replace(manifest, iteration=3))
    return weights


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_ours_come_back_to_the_bit(name: str, tool: Tool, tmp_path: Path) -> None:
    """And the flags of the model, so that it is the same function. Rows that are no tokens stay behind, and
    are zero then."""
    ours, theirs, again = (tmp_path / one for one in ("ours", "theirs", "again"))
    before = write_ours(ours, *MODELS[name])
    tool("megatron", "hf", ours, theirs, "--no-verify")
    assert json.loads((theirs / "config.json").read_text())["model_type"] == name
    tool("hf", "megatron", theirs, again, "--no-verify")
    old, new = (find_checkpoint(one) for one in (ours, again))
    assert old is not None and new is not None
    after = load_file(new / "model.safetensors")
    assert before.keys() == after.keys()
    for mine, weight in before.items():
        count = TOKENS if mine in PADDED else len(weight)
        assert torch.equal(after[mine][:count], weight[:count]), mine
        assert not after[mine][count:].any(), mine
    assert flag_changes(read_manifest(old), read_manifest(new), (old, new)).keys() <= OF_A_RUN


@pytest.mark.parametrize(
    ("flags", "nearest"),
    [
        ("--num-experts 4", "mixtral"),
        (LLAMA + "--num-experts 4 --moe-layer-freq 3 --moe-router-pre-softmax", "mixtral"),
        ("--normalization RMSNorm", "gpt2"),
        (LLAMA + "--rotary-percent 0.5", "llama"),
    ],
)
def test_the_nearest_has_experts_where_the_model_has(flags: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"the nearest, {nearest}, has no like for"):
        state_content("gpt", make_config(FLAGS + flags), TOKENS)
