"""What a layer must know about its tokens besides their hidden states."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from megatron.model.cache import Recall
from megatron.parallel.slices import WHOLE, Slices
from megatron.parallel.tally import Tally


class Sight(NamedTuple):
    """Which tokens of its row a token sees: where it is `causal` none behind itself, and only those from
    `starts` [B, T] on and before `ends` [B, T], or [B, 1] where that is the same for all of a row. None: the
    whole row. `places` [B or 1, T]: of each token in its own text, by which in some layers it sees a `window`
    alone, so many tokens before it and behind it, -1 for any number. `padded_kept`: whether padding is among
    the tokens that random-LTD keeps."""

    causal: bool = True
    starts: Tensor | None = None
    ends: Tensor | None = None
    places: Tensor | None = None
    window: tuple[int, int] | None = None
    padded_kept: bool = False


CAUSAL = Sight()


class Part(NamedTuple):
    """Queries at the places [first, first + size) of a sequence, which see keys at places before `end`.
    `mask` [B or 1, 1, size or 1, end]: allowed pairs; None where each query sees every key, or where it is
    `causal` every key up to its own place, and the first is at 0."""

    first: int
    size: int
    end: int
    mask: Tensor | None = None
    causal: bool = False


class View(NamedTuple):
    """What attention of a kind of layers has of a sequence: cosines and sines of the tokens' angles [B or 1,
    T, 2, R], `seen_rotary` those of the tokens whose queries are computed here, and which queries these
    are."""

    rotary: Tensor | None = None
    seen_rotary: Tensor | None = None
    parts: tuple[Part, ...] = ()


class Beside(NamedTuple):
    """What layers add up beside their hidden states: `scales` of their losses by name, and where the values
    go."""

    scales: Mapping[str, float]
    tally: Tally


class Context(NamedTuple):
    """Of whole sequences of T tokens, of which this rank holds a part. `wide`: what most layers see, `near`:
    those with a window; `dropout_keys` [B, T]: keys of the tokens, `held_keys` those of the tokens held
    between matrices, None where nothing is dropped; `beside`: where layers have losses of their own;
    `recall`: where these tokens follow others that are not computed again."""

    length: int = 0
    sight: Sight = CAUSAL
    wide: View = View()
    near: View = View()
    dropout_keys: Tensor | None = None
    held_keys: Tensor | None = None
    beside: Beside | None = None
    recall: Recall | None = None


def make_context(
    length: int,
    device: torch.device,
    sight: Sight = CAUSAL,
    rotary: Tensor | None = None,
    keys: Tensor | None = None,
    slices: Slices = WHOLE,
    near_rotary: Tensor | None = None,
) -> Context:
    """A context with its masks, which attention's present kernels need where a token does not see the whole
    row, or where queries of causal attention begin in the middle of it. `near_rotary`: the angles of layers
    with a window."""
    held = keys
    if keys is not None and slices.both.size > 1:
        held = keys[:, slices.held(length, device)]

    def view(rotary: Tensor | None, window: tuple[int, int] | None) -> View:
        seen = rotary
        if rotary is not None and slices.context.size > 1:
            seen = rotary[:, slices.seen(length, device)]
        parts = (_part(first, size, length, sight, window, device) for first, size in slices.queries(length))
        return View(rotary, seen, tuple(parts))

    near = view(near_rotary, sight.window) if sight.window is not None else View()
    return Context(length, sight, view(rotary, None), near, keys, held)


def context_behind(recall: Recall, starts: Tensor | None = None, rotary: Tensor | None = None) -> Context:
    """The context of tokens that follow others of their rows, of a whole model on one rank. `starts`: as in
    Sight, of these tokens."""
    keys, places = torch.arange(recall.end, device=recall.places.device), recall.places[..., None]
    mask = keys <= places
    if starts is not None:
        mask = mask & (keys >= starts[..., None])
    part = Part(0, places.shape[1], recall.end, mask[:, None])
    wide = View(rotary, rotary, (part,))
    return Context(places.shape[1], Sight(starts=starts), wide, recall=recall)


def context_of_kept(context: Context, kept_BR: Tensor, slices: Slices = WHOLE) -> Context:
    """The context of the kept tokens: each keeps its own angles, place, document and key. Kept positions
    ascend, so causal stays causal, and a document begins at its first kept token. (Making the mask from
    offsets costs an eighth of gathering it from the mask of all tokens.)"""

    def angles(rotary: Tensor | None) -> Tensor | None:
        if rotary is None:
            return None
        index = kept_BR[..., None, None].expand(-1, -1, *rotary.shape[2:])
        return rotary.expand(len(kept_BR), -1, -1, -1).gather(1, index)

    def among_kept(bounds: Tensor | None) -> Tensor | None:
        if bounds is None:
            return None
        of_tokens = bounds if bounds.shape[1] == 1 else bounds.gather(1, kept_BR)
        return torch.searchsorted(kept_BR.contiguous(), of_tokens.contiguous())

    sight, keys = context.sight, context.dropout_keys
    padded = sight.starts is not None or sight.padded_kept
    places = sight.places
    inside = sight._replace(
        starts=among_kept(sight.starts),
        ends=among_kept(sight.ends) if padded else None,
        places=places.expand(len(kept_BR), -1).gather(1, kept_BR) if places is not None else None,
    )
    keys = keys.gather(1, kept_BR) if keys is not None else None
    rotary, near = angles(context.wide.rotary), angles(context.near.rotary)
    made = make_context(kept_BR.shape[1], kept_BR.device, inside, rotary, keys, slices, near)
    return made._replace(beside=context.beside)


def _part(
    first: int,
    size: int,
    length: int,
    sight: Sight,
    window: tuple[int, int] | None,
    device: torch.device,
) -> Part:
    """These queries of a row of `length` tokens, in layers with this window."""
    end = first + size if sight.causal else length
    bounds: list[Tensor] = []
    keys = torch.arange(end, device=device)
    if sight.starts is not None:
        bounds.append(keys >= sight.starts[:, first : first + size, None])
    if sight.ends is not None:
        of_row = sight.ends.shape[1] == 1
        bounds.append(keys < (sight.ends if of_row else sight.ends[:, first : first + size])[..., None])
    if window is not None:
        assert sight.places is not None
        bounds += _near(sight.places[:, first : first + size, None], sight.places[:, None, :end], window)
    if sight.causal and (bounds or first > 0):
        bounds.insert(0, (keys <= torch.arange(first, first + size, device=device)[:, None])[None])
    if not bounds:
        return Part(first, size, end, None, sight.causal)
    mask = bounds[0]
    for bound in bounds[1:]:
        mask = mask & bound
    if window is not None and sight.ends is not None:  # padding far behind the text would see nothing
        mask = mask | (keys == torch.arange(first, first + size, device=device)[:, None])
    return Part(first, size, end, mask[:, None])


def _near(queries: Tensor, keys: Tensor, window: tuple[int, int]) -> list[Tensor]:
    """Which keys are at most so many places before and behind the queries."""
    before, behind = window
    found = [keys >= queries - before] if before >= 0 else []
    return found + ([keys <= queries + behind] if behind >= 0 else [])
