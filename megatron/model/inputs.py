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
