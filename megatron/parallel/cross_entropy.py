"""Cross-entropy of a linear head, in chunks of tokens: the logits of all tokens never exist at once, and
the gradients are formed while a chunk's logits are there."""

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}
LEAST_ROWS = 256


def cross_entropy_sum(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    weights_N: Tensor | None = None,
    vocab_size: int | None = None,
    scale: float = 1.0,
) -> Tensor:
    """scale · sum over the tokens of weight · -ln p(label), a scalar. Only the head's first `vocab_size`
    rows are tokens."""
    return _HeadCrossEntropy.apply(hidden_ND, head_VD, labels_N, weights_N, vocab_size or len(head_VD), scale)


@torch.no_grad()
def token_losses(
    hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, vocab_size: int | None = None
) -> Tensor:
    """-ln p(label) of every token, [N]."""
    head = head_VD[:vocab_size].to(hidden_ND.dtype)
    return torch.cat(
        [_losses(_logits(hidden_ND[part], head), labels_N[part])[0] for part in _chunks(len(hidden_ND), head)]
    )


def _chunks(tokens: int, head_VD: Tensor) -> list[slice]:
    """Ranges of tokens whose logits fill CHUNK_BYTES, or of LEAST_ROWS, below which the products are slow."""
    rows = max(CHUNK_BYTES.get(head_VD.device.type, 1 << 25) // (head_VD.shape[0] * 4), LEAST_ROWS)
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
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor | None,
        vocab_size: int,
        scale: float,
    ) -> Tensor:
        head = head_VD[:vocab_size].to(hidden_ND.dtype)
        needs_gradient = any(ctx.needs_input_grad[:2])
        hidden_grad = torch.empty_like(hidden_ND) if needs_gradient else None
        head_grad = torch.zeros_like(head_VD) if needs_gradient else None
        sums = []
        for part in _chunks(len(hidden_ND), head):
            logits = _logits(hidden_ND[part], head)
            losses, normaliser = _losses(logits, labels_N[part])
            weights = weights_N[part] if weights_N is not None else None
            sums.append((losses if weights is None else losses * weights).sum())
            if hidden_grad is not None and head_grad is not None:
                slope = _slope(logits, normaliser, labels_N[part], weights, scale).to(hidden_ND.dtype)
                torch.mm(slope, head, out=hidden_grad[part])
                _add_product(head_grad[:vocab_size], slope.T, hidden_ND[part])
        ctx.save_for_backward(hidden_grad, head_grad)
        return torch.stack(sums).sum() * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden_grad, head_grad = ctx.saved_tensors
        # on a CPU asking for the value saves a pass over the head; a GPU would wait, other tensors have none
        known = grad.device.type == "cpu" and type(grad) is Tensor and not torch.compiler.is_compiling()
        if not known or grad != 1:
            hidden_grad = hidden_grad * grad.to(hidden_grad.dtype)
            head_grad = head_grad * grad.to(head_grad.dtype)
        return hidden_grad, head_grad, None, None, None, None


def _slope(
    logits_CV: Tensor, normaliser_C: Tensor, labels_C: Tensor, weights_C: Tensor | None, scale: float
) -> Tensor:
    """Gradient of the scaled loss by the logits, in their place: scale · weight · (softmax - one-hot)."""
    slope_CV = logits_CV.sub_(normaliser_C[:, None]).exp_()
    slope_CV[torch.arange(len(labels_C), device=labels_C.device), labels_C] -= 1
    if weights_C is not None:
        slope_CV *= weights_C[:, None]
    return slope_CV if scale == 1 else slope_CV.mul_(scale)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
