"""Whether a checkpoint of ours and a folder of Hugging Face's give the same logits."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.conversion.families import Theirs
from megatron.evaluation.restore import Restored, restore
from megatron.model.bert import Bert
from megatron.model.context import Sight
from megatron.model.gpt import GPT
from megatron.model.inputs import ViTInputs
from megatron.model.transformer import Texts
from megatron.model.vit import ViT

ROWS, LENGTH, SEED = 2, 64, 1234
TOLERANCE = 1e-4
"""Of the largest logit: both compute in fp32, in different orders, and their rotary angles are fp32."""
CPU = torch.device("cpu")


class Agreement(NamedTuple):
    """The largest difference of two models' logits, the largest logit, and how many were compared."""

    difference: float
    largest: float
    logits: int


def require_transformers() -> Any:
    """The library. UserError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            "comparing logits needs transformers: pip install 'megatron-data-efficient[hf]', or give "
            "--no-verify to go without"
        ) from None
    return transformers


def require_room(parameters: int, free: int | None) -> None:
    """UserError where so many free bytes of memory, None for an unknown number, cannot hold the model in
    fp32."""
    needed = 4 * parameters * 11 // 10
    if free is not None and needed > free:
        raise UserError(
            f"comparing logits holds the model in fp32, {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of "
            "memory are free; give --no-verify to go without, or convert where there is room"
        )


def compare_logits(ours: Path, theirs: Path, model: Theirs, rounded: torch.dtype | None = None) -> Agreement:
    """Compare the logits of both for the same inputs, one model after the other in memory. `rounded`: the
    type that weights of ours had on their way. UserError where they differ."""
    mine, inputs = _ours(ours, model, rounded)
    gc.collect()
    transformers = require_transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    hers = _theirs(getattr(transformers, model.family.architecture), theirs, inputs)
    if bool(mine.isnan().any() and hers.isnan().any()):
        raise UserError(
            "the logits of both models are no numbers (NaN), so nothing is written; bring weights that are "
            "whole, or name an older step"
        )
    largest = float(hers.abs().max())
    difference = float((mine - hers).abs().max())
    if not difference <= TOLERANCE * max(largest, 1e-30):
        raise UserError(
            f"the logits of the two models differ by {difference:.3g}, and the largest is {largest:.3g}, so "
            "nothing is written; this is a fault of the conversion, or of a damaged file"
        )
    return Agreement(difference, largest, len(mine))


@torch.no_grad()
def _ours(folder: Path, theirs: Theirs, rounded: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Our logits, and what their model has to be given for the same. A run in bf16 or fp16 has weights in
    fp32, of which these are the logits, as theirs are: they tell a fault from rounding."""
    restored = restore(str(folder), None, CPU, as_trained=False)
    for weight in restored.model.parameters() if rounded else ():
        weight.copy_(weight.to(rounded))
    found, inputs = LOGITS[theirs.family.task](restored, theirs)
    return found.flatten(), inputs


@torch.no_grad()
def _theirs(kind: Any, folder: Path, inputs: Tensor) -> Tensor:
    """Logits of their model. It attends as every machine can, whatever its config.json asks for. UserError
    where the library cannot make it."""
    try:
        model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        found = model.eval()(inputs)
    except Exception as error:  # of whatever kind the library raises for a config.json that it does not take
        why = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder}: transformers cannot load or run the model to compare logits ({why}); mend its "
            "config.json, or give --no-verify to go without"
        ) from None
    if hasattr(found, "logits"):
        return found.logits.flatten()  # type: ignore[no-any-return]
    return torch.cat([found.prediction_logits.flatten(), found.seq_relationship_logits.flatten()])


def _tokens(theirs: Theirs) -> Tensor:
    """Made-up tokens [rows, length]."""
    generator = torch.Generator().manual_seed(SEED)
    length = min(theirs.flags["max_position_embeddings"], LENGTH)
    return torch.randint(theirs.vocab_size, (ROWS, length), generator=generator)


def _of_gpt(restored: Restored, theirs: Theirs) -> tuple[Tensor, Tensor]:
    assert isinstance(restored.model, GPT)
    tokens = _tokens(theirs)
    return restored.model.logits(tokens), tokens


def _of_bert(restored: Restored, theirs: Theirs) -> tuple[Tensor, Tensor]:
    model, tokens = restored.model, _tokens(theirs)
    assert isinstance(model, Bert)
    types = None if model.type_embeddings is None else torch.zeros_like(tokens)
    texts = Texts(tokens, torch.arange(len(tokens)), types=types, sight=Sight(False))
    logits, pairs = model.logits(texts)
    return logits if pairs is None else torch.cat([logits.flatten(), pairs.flatten()]), tokens


def _of_vit(restored: Restored, theirs: Theirs) -> tuple[Tensor, Tensor]:
    """Made-up pixels, which their model is given as ours has normalised them."""
    vision, generator = restored.config.vision, torch.Generator().manual_seed(SEED)
    size = (ROWS, vision.num_channels, vision.img_h, vision.img_w)
    pixels = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    mean, std = (torch.tensor(one)[:, None, None] for one in (vision.img_mean, vision.img_std))
    rows = torch.arange(ROWS)
    tokens = torch.zeros(ROWS, restored.config.data.seq_length, dtype=torch.int64)
    assert isinstance(restored.model, ViT)
    logits = restored.model.logits(ViTInputs(pixels=pixels, tokens=tokens, labels=rows, rows=rows))
    return logits, (pixels / 255 - mean) / std


LOGITS: dict[str, Callable[[Restored, Theirs], tuple[Tensor, Tensor]]] = {
    "gpt": _of_gpt,
    "bert": _of_bert,
    "vit": _of_vit,
}
"""Logits of our models by their tasks, with the inputs."""
