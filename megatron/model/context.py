"""What a layer must know about its tokens besides their hidden states."""

from typing import NamedTuple

import torch
from torch import Tensor


class Context(NamedTuple):
    """`turns` [B or 1, T, 2, R]: cosines and sines of rotary angles; `documents` [B, T]: attention stays
    inside a document; `dropout_keys` [B, T]: keys of the tokens, None where nothing is dropped;
    `batch_key`: key of the whole micro-batch, for kernels that draw themselves; `mask_BTT`: allowed pairs,
    None where merely causal."""

    turns: Tensor | None = None
    documents: Tensor | None = None
    dropout_keys: Tensor | None = None
    batch_key: int = 0
    mask_BTT: Tensor | None = None


def make_context(
    turns: Tensor | None, documents: Tensor | None, dropout_keys: Tensor | None, batch_key: int = 0
) -> Context:
    """A context with its mask."""
    mask = None
    if documents is not None:
        length = documents.shape[1]
        causal_TT = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
        mask = (documents[:, :, None] == documents[:, None, :]) & causal_TT
    return Context(turns, documents, dropout_keys, batch_key, mask)


def context_of_kept(context: Context, kept_BR: Tensor) -> Context:
    """The context of the kept tokens: each keeps its own turns, document and key. Kept positions ascend,
    so causal stays causal."""
    turns = context.turns
    if turns is not None:
        turns = turns.expand(len(kept_BR), -1, -1, -1).gather(
            1, kept_BR[..., None, None].expand(-1, -1, *turns.shape[2:])
        )
    documents, keys = (
        part.gather(1, kept_BR) if part is not None else None
        for part in (context.documents, context.dropout_keys)
    )
    return make_context(turns, documents, keys, context.batch_key)
