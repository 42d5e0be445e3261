"""What a layer must know about its tokens besides their hidden states."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from megatron.parallel.slices import WHOLE, Slices
from megatron.parallel.tally import Tally


class Part(NamedTuple):
    """Queries at the places [first, first + size) of a sequence, which see keys at places before `end`.
    `mask` [B or 1, 1, size, end]: allowed pairs; None where each query sees every key up to its own
    place, and the first is at 0."""

    first: int
    size: int
    end: int
    mask: Tensor | None = None


class Beside(NamedTuple):
    """What layers add up beside their hidden states: `scales` of their losses by name, and where the values
    go."""

    scales: Mapping[str, float]
    tally: Tally


class Context(NamedTuple):
    """Of whole sequences of T tokens, of which this rank holds a part. `rotary` [B or 1, T, 2, R]: cosines
    and sines of the tokens' angles, `seen_rotary` those of the tokens whose queries are computed here;
    `document_starts` [B, T]: where in this sequence each token's document begins, None where attention
    crosses documents; `dropout_keys` [B, T]: keys of the tokens, `held_keys` those of the tokens held
    between matrices, None where nothing is dropped; `parts`: which queries are computed here; `beside`: where
    layers have losses of their own."""

    length: int = 0
    rotary: Tensor | None = None
    seen_rotary: Tensor | None = None
    document_starts: Tensor | None = None
    dropout_keys: Tensor | None = None
    held_keys: Tensor | None = None
    parts: tuple[Part, ...] = ()
    beside: Beside | None = None


def make_context(
    length: int,
    rotary: Tensor | None,
    starts: Tensor | None,
    keys: Tensor | None,
    device: torch.device,
    slices: Slices = WHOLE,
) -> Context:
    """A context with its masks, which attention's present kernels need where documents stay apart, or where
    queries begin in the middle of a sequence."""
    held, seen = keys, rotary
    if keys is not None and slices.both.size > 1:
        held = keys[:, slices.held(length, device)]
    if rotary is not None and slices.context.size > 1:
        seen = rotary[:, slices.seen(length, device)]
    parts = tuple(_part(first, size, starts, device) for first, size in slices.queries(length))
    return Context(length, rotary, seen, starts, keys, held, parts)


def context_of_kept(context: Context, kept_BR: Tensor, slices: Slices = WHOLE) -> Context:
    """The context of the kept tokens: each keeps its own angles, document and key. Kept positions ascend,
    so causal stays causal, and a document begins at its first kept token. (Making the mask from offsets costs
    an eighth of gathering it from the mask of all tokens.)"""
    rotary, starts, keys = context.rotary, context.document_starts, context.dropout_keys
    if rotary is not None:
        index = kept_BR[..., None, None].expand(-1, -1, *rotary.shape[2:])
        rotary = rotary.expand(len(kept_BR), -1, -1, -1).gather(1, index)
    if starts is not None:
        starts = torch.searchsorted(kept_BR.contiguous(), starts.gather(1, kept_BR))
    keys = keys.gather(1, kept_BR) if keys is not None else None
    inside = make_context(kept_BR.shape[1], rotary, starts, keys, kept_BR.device, slices)
    return inside._replace(beside=context.beside)


def _part(first: int, size: int, starts_BT: Tensor | None, device: torch.device) -> Part:
    end = first + size
    if starts_BT is None and first == 0:
        return Part(first, size, end)
    queries, keys = torch.arange(first, end, device=device)[:, None], torch.arange(end, device=device)
    mask = keys <= queries
    if starts_BT is not None:
        mask = mask & (keys >= starts_BT[:, first:end, None])
    return Part(first, size, end, mask[None, None] if mask.dim() == 2 else mask[:, None])
