"""What a model is fed: the rows of one micro-batch, as a named tuple of tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

from megatron.parallel.slices import Moves

Inputs = TypeVar("Inputs", bound=tuple[Any, ...])


class GPTInputs(NamedTuple):
    """Rows of one forward pass. `tokens`, `labels` [rows, length]; `rows`: their numbers in the global
    batch, which key dropout. `loss_mask`, `positions`, `document_starts` (where in its row each token's
    document begins) [rows, length], or None where they are trivial. `kept` [dropping layers, rows, kept
    length]: ascending positions that random-LTD keeps, or None; `moves`: of every dropping layer, how they
    come to the ranks that compute them, where a sequence is shared. `first_row`: the first of `rows`."""

    tokens: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    loss_mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    document_starts: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    moves: tuple[Moves, ...] | None = None
    first_row: int = 0

    def loss_tokens(self) -> int:
        """Tokens whose loss counts."""
        return self.labels.numel() if self.loss_mask is None else int(self.loss_mask.sum())


class BertInputs(NamedTuple):
    """Rows of one forward pass of an encoder. `tokens`, `types` [rows, length], types None where nothing
    tells texts apart; `rows`: numbers of the samples in the global batch, [rows], or of every token where a
    row holds several. `masked` [M]: where among the tokens that this rank computes those stand that are to be
    told, as row · tokens + place; `labels`, `weights` [M]: what they were, and 0 for one that only stands for
    none. `firsts`, `pairs`, `pair_weights` [S]: the same of the first token of every pair, and whether its
    second text does not follow; None without pairs. `starts`, `ends`, `positions` [rows, length]: as in
    Sight, None where they are trivial. `kept`, `moves`: as in GPTInputs; `padded_kept`: whether padding is
    among these. `masked_count`, `pair_count`: over whole rows, whatever this rank computes of them."""

    tokens: torch.Tensor
    rows: torch.Tensor
    masked: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    types: torch.Tensor | None = None
    firsts: torch.Tensor | None = None
    pairs: torch.Tensor | None = None
    pair_weights: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    starts: torch.Tensor | None = None
    ends: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    moves: tuple[Moves, ...] | None = None
    padded_kept: bool = False
    masked_count: int = 0
    pair_count: int = 0
    first_row: int = 0


class ClassifierInputs(NamedTuple):
    """Rows of one forward pass of a classifier. `tokens`, `types` [rows, length], types None where nothing
    tells texts apart; `rows`, `first_row`: as in GPTInputs; `ends` [rows, 1]: where the texts end, None where
    all fill their rows; `labels` [rows]: numbers of classes, or values; None where none is known."""

    tokens: torch.Tensor
    rows: torch.Tensor
    types: torch.Tensor | None = None
    ends: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    first_row: int = 0


class ViTInputs(NamedTuple):
    """Images of one forward pass. `tokens` [rows, length]: places of the tokens, [CLS] before the patches;
    `rows`, `first_row`, `kept`: as in GPTInputs; `pixels` [rows, channels, height, width]: uint8; `labels`
    [rows]: numbers of classes."""

    tokens: torch.Tensor
    rows: torch.Tensor
    pixels: torch.Tensor
    labels: torch.Tensor
    kept: torch.Tensor | None = None
    first_row: int = 0


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The same rows on a device."""
    return _each(inputs, lambda part: part.to(device, non_blocking=True))


def pinned(inputs: Inputs) -> Inputs:
    """The same rows in memory that a GPU reads by itself, so that copies run beside the computation."""
    return _each(inputs, torch.Tensor.pin_memory)


def _each(part: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same tuples with every tensor in them changed."""
    if torch.is_tensor(part):
        return change(part)
    if not isinstance(part, tuple):
        return part
    parts = [_each(one, change) for one in part]
    return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)
