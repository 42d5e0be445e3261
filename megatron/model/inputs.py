"""What a model is fed: the rows of one micro-batch, as a named tuple of tensors."""

from typing import Any, NamedTuple, TypeVar

import torch

Inputs = TypeVar("Inputs", bound=tuple[Any, ...])


class GPTInputs(NamedTuple):
    """Rows of one forward pass. `tokens`, `labels` [rows, length]; `rows`: their numbers in the global
    batch, which key dropout. `loss_mask`, `positions`, `document_starts` (where in its row each token's
    document begins) [rows, length], or None where they are trivial. `kept` [dropping layers, rows, kept
    length]: ascending positions that random-LTD keeps, or None. `first_row`: the first of `rows`."""

    tokens: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    loss_mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    document_starts: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    first_row: int = 0

    def loss_tokens(self) -> int:
        """Tokens whose loss counts."""
        return self.labels.numel() if self.loss_mask is None else int(self.loss_mask.sum())


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The same rows on a device."""
    return type(inputs)(
        *(part.to(device, non_blocking=True) if torch.is_tensor(part) else part for part in inputs)
    )


def pinned(inputs: Inputs) -> Inputs:
    """The same rows in memory that a GPU reads by itself, so that copies run beside the computation."""
    return type(inputs)(*(part.pin_memory() if torch.is_tensor(part) else part for part in inputs))
