"""Cross-entropy of a linear head, in chunks of tokens: the logits of all tokens never exist at once, and
the gradients are formed while a chunk's logits are there. Where the head is split over the tensor axis, one
gather a chunk tells every rank the others' sums and the label's logit."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron.parallel.collectives import all_gather
from megatron.parallel.mesh import ALONE, Axis
from megatron.parallel.placement import share

CHUNK_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}
LEAST_ROWS = 256


def cross_entropy_sum(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    weights_N: Tensor | None = None,
    vocab_size: int | None = None,
    scale: float = 1.0,
    axis: Axis = ALONE,
    table_size: int | None = None,
    bias_V: Tensor | None = None,
) -> Tensor:
    """scale · sum over the tokens of weight · -ln p(label), a scalar. Only the head's first `vocab_size` rows
    are tokens. `axis`: over it the head's `table_size` rows, and its bias, are shared; every rank has all
    tokens, the whole loss, and the part of the tokens' gradients that comes of its rows."""
    rows = _Rows.of(head_VD, vocab_size, axis, table_size)
    return _HeadCrossEntropy.apply(hidden_ND, head_VD, bias_V, labels_N, weights_N, rows, scale)


@torch.no_grad()
def token_losses(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    vocab_size: int | None = None,
    axis: Axis = ALONE,
    table_size: int | None = None,
) -> Tensor:
    """-ln p(label) of every token, [N]."""
    rows = _Rows.of(head_VD, vocab_size, axis, table_size)
    head = head_VD[: rows.entries].to(hidden_ND.dtype)
    parts = _chunks(len(hidden_ND), rows.largest, head.device)
    return torch.cat([_losses(_logits(hidden_ND[part], head), labels_N[part], rows)[0] for part in parts])


@torch.no_grad()
def token_scores(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    vocab_size: int | None = None,
    axis: Axis = ALONE,
    table_size: int | None = None,
    bias_V: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """-ln p(label) of every token, and whether no token is likelier than its label, both [N]."""
    rows = _Rows.of(head_VD, vocab_size, axis, table_size)
    head, bias = _here(head_VD, bias_V, rows, hidden_ND.dtype)
    losses, right = [], []
    for part in _chunks(len(hidden_ND), rows.largest, head.device):
        logits = _logits(hidden_ND[part], head, bias)
        best = logits.amax(-1) if rows.entries else logits.new_full((len(logits),), -torch.inf)
        best = all_gather(best[None], rows.axis).amax(0) if axis.size > 1 else best
        loss, _, logit = _losses(logits, labels_N[part], rows)
        losses.append(loss)
        right.append(logit >= best)
    return torch.cat(losses), torch.cat(right)


class _Rows(NamedTuple):
    """The tokens that this rank's part of a head stands for: the first of them and how many, the most that a
    rank has (so that all cut alike), and the axis over which the head is split."""

    first: int
    entries: int
    largest: int
    axis: Axis

    @staticmethod
    def of(head_VD: Tensor, vocab_size: int | None, axis: Axis, table_size: int | None) -> "_Rows":
        table = table_size or axis.size * len(head_VD)
        first, _ = share(table, axis)
        entries = min(max((vocab_size or table) - first, 0), len(head_VD))
        return _Rows(first, entries, entries if axis.size == 1 else -(-table // axis.size), axis)

    def place(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where labels stand among these rows, kept inside, and whether they do."""
        place = labels - self.first
        return place.clamp(0, max(self.entries - 1, 0)), (place >= 0) & (place < self.entries)


def _chunks(tokens: int, entries: int, device: torch.device) -> list[slice]:
    """Ranges of tokens whose logits fill CHUNK_BYTES, or of LEAST_ROWS, below which the products are slow."""
    rows = max(CHUNK_BYTES.get(device.type, 1 << 25) // (entries * 4), LEAST_ROWS)
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]


def _here(
    head_VD: Tensor, bias_V: Tensor | None, rows: _Rows, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """The rows that are tokens, in the precision of the hidden states, and their bias in its own."""
    return head_VD[: rows.entries].to(dtype), None if bias_V is None else bias_V[: rows.entries]


def _logits(hidden_CD: Tensor, head_VD: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """At least in single precision: a softmax in half precision loses too much."""
    logits_CV = hidden_CD @ head_VD.T
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    return logits_CV if bias_V is None else logits_CV.add_(bias_V)


def _losses(logits_CV: Tensor, labels_C: Tensor, rows: _Rows) -> tuple[Tensor, Tensor, Tensor]:
    """-ln p(label), the logarithm of the softmax's denominator, and the label's logit, all [C]."""
    normaliser_C = logits_CV.logsumexp(-1)
    if rows.axis.size == 1:
        logit_C = logits_CV.gather(1, labels_C[:, None])[:, 0]
        return normaliser_C - logit_C, normaliser_C, logit_C
    place_C, inside_C = rows.place(labels_C)
    found_C = logits_CV.gather(1, place_C[:, None])[:, 0] if rows.entries else torch.zeros_like(normaliser_C)
    mine = torch.stack([normaliser_C, torch.where(inside_C, found_C, 0)])
    normalisers, logits = all_gather(mine[None], rows.axis).unbind(1)
    normaliser_C, logit_C = normalisers.logsumexp(0), logits.sum(0)
    return normaliser_C - logit_C, normaliser_C, logit_C


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        bias_V: Tensor | None,
        labels_N: Tensor,
        weights_N: Tensor | None,
        rows: _Rows,
        scale: float,
    ) -> Tensor:
        head, bias = _here(head_VD, bias_V, rows, hidden_ND.dtype)
        needs_gradient = any(ctx.needs_input_grad[:3])
        hidden_grad = torch.empty_like(hidden_ND) if needs_gradient else None
        head_grad = torch.zeros_like(head_VD) if needs_gradient else None
        bias_grad = torch.zeros_like(bias_V) if needs_gradient and bias_V is not None else None
        sums = []
        for part in _chunks(len(hidden_ND), rows.largest, head.device):
            logits = _logits(hidden_ND[part], head, bias)
            losses, normaliser, _ = _losses(logits, labels_N[part], rows)
            weights = weights_N[part] if weights_N is not None else None
            sums.append((losses if weights is None else losses * weights).sum())
            if hidden_grad is not None and head_grad is not None:
                slope = _slope(logits, normaliser, labels_N[part], weights, scale, rows)
                if bias_grad is not None:
                    bias_grad[: rows.entries] += slope.sum(0).to(bias_grad.dtype)
                slope = slope.to(hidden_ND.dtype)
                torch.mm(slope, head, out=hidden_grad[part])
                _add_product(head_grad[: rows.entries], slope.T, hidden_ND[part])
                del slope
            del logits  # before those of the next chunk are there
        ctx.save_for_backward(hidden_grad, head_grad, bias_grad)
        return torch.stack(sums).sum() * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden_grad, head_grad, bias_grad = ctx.saved_tensors
        # on a CPU asking for the value saves a pass over the head; a GPU would wait, other tensors have none
        known = grad.device.type == "cpu" and type(grad) is Tensor and not torch.compiler.is_compiling()
        if not known or grad != 1:
            hidden_grad = hidden_grad * grad.to(hidden_grad.dtype)
            head_grad = head_grad * grad.to(head_grad.dtype)
            bias_grad = None if bias_grad is None else bias_grad * grad.to(bias_grad.dtype)
        return hidden_grad, head_grad, bias_grad, None, None, None, None


def _slope(
    logits_CV: Tensor,
    normaliser_C: Tensor,
    labels_C: Tensor,
    weights_C: Tensor | None,
    scale: float,
    rows: _Rows,
) -> Tensor:
    """Gradient of the scaled loss by the logits, in their place: scale · weight · (softmax - one-hot)."""
    slope_CV = logits_CV.sub_(normaliser_C[:, None]).exp_()
    tokens = torch.arange(len(labels_C), device=labels_C.device)
    if rows.axis.size == 1:
        slope_CV[tokens, labels_C] -= 1
    elif rows.entries:
        place_C, inside_C = rows.place(labels_C)
        slope_CV[tokens, place_C] -= inside_C.to(slope_CV.dtype)
    if weights_C is not None:
        slope_CV *= weights_C[:, None]
    return slope_CV if scale == 1 else slope_CV.mul_(scale)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
