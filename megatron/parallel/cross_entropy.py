"""Cross-entropy of a linear head, in chunks of tokens: the logits of all tokens never exist at once, and the gradients are
formed while a chunk's logits are there."""

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}


def cross_entropy_sum(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Sum over the tokens of weight · -ln p(label), a scalar."""
    return _HeadCrossEntropy.apply(hidden_ND, head_VD, labels_N, weights_N)


@torch.no_grad()
def token_losses(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> Tensor:
    """-ln p(label) of every token, [N]."""
    head = head_VD.to(hidden_ND.dtype)
    return torch.cat([_losses(_logits(hidden_ND[part], head), labels_N[part])[0] for part in _chunks(len(hidden_ND), head)])


def _chunks(tokens: int, head_VD: Tensor) -> list[slice]:
    """Ranges of tokens whose logits fit into CHUNK_BYTES."""
    rows = max(CHUNK_BYTES.get(head_VD.device.type, 1 << 25) // (head_VD.shape[0] * 4), 16)
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]


def _logits(hidden_CD: Tensor, head_VD: Tensor) -> Tensor:
    """At least in single precision: a softmax in half precision loses too much."""
    logits_CV = hidden_CD @ head_VD.T
    return logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))


def _losses(logits_CV: Tensor, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    """-ln p(label) and the logarithm of the softmax's denominator, both [C]."""
    normaliser_C = logits_CV.logsumexp(-1)
    return normaliser_C - logits_CV.gather(1, labels_C[:, None])[:, 0], normaliser_C


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor | None) -> Tensor:
        head = head_VD.to(hidden_ND.dtype)
        needs_gradient = any(ctx.needs_input_grad[:2])
        hidden_grad = torch.empty_like(hidden_ND) if needs_gradient else hidden_ND.new_empty(0)
        head_grad = torch.zeros_like(head_VD) if needs_gradient else head_VD.new_empty(0)
        sums = []
        for part in _chunks(len(hidden_ND), head):
            hidden, labels = hidden_ND[part], labels_N[part]
            logits = _logits(hidden, head)
            losses, normaliser = _losses(logits, labels)
            sums.append((losses if weights_N is None else losses * weights_N[part]).sum())
            if needs_gradient:
                slope = logits.sub_(normaliser[:, None]).exp_()
                slope[torch.arange(len(labels), device=labels.device), labels] -= 1
                if weights_N is not None:
                    slope *= weights_N[part, None]
                slope = slope.to(hidden.dtype)
                torch.mm(slope, head, out=hidden_grad[part])
                head_grad += slope.T @ hidden
        ctx.save_for_backward(hidden_grad, head_grad)
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        hidden_grad, head_grad = ctx.saved_tensors
        return hidden_grad * grad.to(hidden_grad.dtype), head_grad * grad.to(head_grad.dtype), None, None
