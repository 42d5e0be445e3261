"""Whether a checkpoint of ours and a folder of Hugging Face's give the same logits."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.base.errors import UserError
from megatron.conversion.families import Theirs
from megatron.evaluation.restore import restore
from megatron.model.context import Sight
from megatron.model.transformer import Texts
from megatron.train.memory_estimate import free_memory

ROWS, LENGTH, SEED = 2, 64, 1234
TOLERANCE = 1e-4
"""Of the largest logit: both compute in fp32, in different orders, and their rotary angles are fp32."""
CPU = torch.device("cpu")


class Agreement(NamedTuple):
    """The largest difference of two models' logits, and the largest logit."""

    difference: float
    largest: float
    tokens: int


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


def require_room(parameters: int) -> None:
    """UserError where the memory of this machine cannot hold the model in fp32."""
    free, needed = free_memory(CPU), 4 * parameters * 11 // 10
    if free is not None and needed > free:
        raise UserError(
            f"comparing logits holds the model in fp32, {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of "
            "memory are free; give --no-verify to go without, or convert where there is room"
        )


def compare_logits(ours: Path, theirs: Path, model: Theirs) -> Agreement:
    """Compare the logits of both for the same tokens, one model after the other in memory. UserError where
    they differ."""
    generator, family = torch.Generator().manual_seed(SEED), model.family
    length = min(model.flags["max_position_embeddings"], LENGTH)
    tokens = torch.randint(model.content["vocab_size"], (ROWS, length), generator=generator)
    mine = _freed(lambda: LOGITS[family.task](restore(str(ours), None, CPU).model, tokens))
    transformers = require_transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    load = getattr(transformers, family.architecture).from_pretrained
    hers = _freed(lambda: _theirs(load(theirs, dtype=torch.float32).eval(), tokens))
    largest = float(hers.abs().max())
    difference = float((mine - hers).abs().max())
    if not difference <= TOLERANCE * max(largest, 1e-30):
        raise UserError(
            f"the logits of the two models differ by {difference:.3g}, and the largest is {largest:.3g}, so "
            "nothing is written; this is a fault of the conversion, or of a damaged file"
        )
    return Agreement(difference, largest, tokens.numel())


@torch.no_grad()
def _theirs(model: Any, tokens: Tensor) -> Tensor:
    found = model(tokens)
    if hasattr(found, "logits"):
        return found.logits  # type: ignore[no-any-return]
    return torch.cat([found.prediction_logits.flatten(), found.seq_relationship_logits.flatten()])


@torch.no_grad()
def _of_gpt(model: Any, tokens: Tensor) -> Tensor:
    return model.logits(tokens)  # type: ignore[no-any-return]


@torch.no_grad()
def _of_bert(model: Any, tokens: Tensor) -> Tensor:
    types = None if model.type_embeddings is None else torch.zeros_like(tokens)
    logits, pairs = model.logits(Texts(tokens, torch.arange(len(tokens)), types=types, sight=Sight(False)))
    return logits if pairs is None else torch.cat([logits.flatten(), pairs.flatten()])


LOGITS: dict[str, Callable[[Any, Tensor], Tensor]] = {"gpt": _of_gpt, "bert": _of_bert}
"""Logits of our models by their tasks."""


def _freed(work: Callable[[], Tensor]) -> Tensor:
    """The result of work whose model is no longer held."""
    found = work()
    gc.collect()
    return found
