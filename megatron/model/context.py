"""What a layer must know about its tokens besides their hidden states."""

from typing import NamedTuple

import torch
from torch import Tensor


class Context(NamedTuple):
    """`rotary` [B or 1, T, 2, R]: cosines and sines of the tokens' angles; `document_starts` [B, T]: where
    in this sequence each token's document begins, None where attention crosses documents; `dropout_keys`
    [B, T]: keys of the tokens, None where nothing is dropped; `mask` [B, 1, T, T]: allowed pairs of query and
    key, for kernels that need them written out."""

    rotary: Tensor | None = None
    document_starts: Tensor | None = None
    dropout_keys: Tensor | None = None
    mask: Tensor | None = None


def make_context(rotary: Tensor | None, starts: Tensor | None, keys: Tensor | None) -> Context:
    """A context with its mask, which attention's present kernels need where documents stay apart."""
    return Context(rotary, starts, keys, document_mask(starts) if starts is not None else None)


def context_of_kept(context: Context, kept_BR: Tensor) -> Context:
    """The context of the kept tokens: each keeps its own angles, document and key. Kept positions ascend,
    so causal stays causal, and a document begins at its first kept token. (Making the mask from offsets costs
    an eighth of gathering it from the mask of all tokens.)"""
    rotary, starts, keys, _ = context
    if rotary is not None:
        index = kept_BR[..., None, None].expand(-1, -1, *rotary.shape[2:])
        rotary = rotary.expand(len(kept_BR), -1, -1, -1).gather(1, index)
    if starts is not None:
        starts = torch.searchsorted(kept_BR.contiguous(), starts.gather(1, kept_BR))
    return make_context(rotary, starts, keys.gather(1, kept_BR) if keys is not None else None)


def document_mask(starts_BT: Tensor) -> Tensor:
    """Allowed pairs [B, 1, T, T] of query and key: the key not after the query, and not before its
    document."""
    places_T = torch.arange(starts_BT.shape[1], device=starts_BT.device)
    return ((places_T >= starts_BT[:, :, None]) & (places_T <= places_T[:, None]))[:, None]
