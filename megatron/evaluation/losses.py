"""Loss on held-out windows: full length, nothing dropped, the same windows every time."""

import numpy as np
import torch
from torch import Tensor

from megatron.base.terminal import Advance
from megatron.batches.gpt import RowFormat, plain_batch
from megatron.curriculum.draws import counts, weighted_chain
from megatron.data.corpora import Corpus
from megatron.model.gpt import GPT
from megatron.model.inputs import to_device
from megatron.parallel.mesh import Mesh, sum_over_ranks

Weighted = list[tuple[float | None, Corpus]]


def first_windows(corpora: Weighted, wanted: int, seed: int) -> np.ndarray:
    """Pairs (corpus, window) of about `wanted` windows: the first ones of every corpus, by the blend's
    weights."""
    weights = np.array(
        [corpus.windows if weight is None else weight for weight, corpus in corpora], np.float64
    )
    shares = counts(weighted_chain(weights, seed), wanted)
    return np.concatenate(
        [
            np.stack([np.full(count, number), np.arange(count)], 1)
            for number, (_, corpus) in enumerate(corpora)
            for count in [min(int(shares[number]), corpus.windows)]
        ]
    )


def mean_losses(
    model: GPT,
    corpora: Weighted,
    windows: np.ndarray,
    micro_batch_size: int,
    row_format: RowFormat,
    mesh: Mesh,
) -> dict[str, float]:
    """Mean loss a token by corpus name, and over all under ""; the ranks share the work."""
    sums = window_sums(model, [corpus for _, corpus in corpora], windows, micro_batch_size, row_format, mesh)
    losses = {"": float(sums[:, 0].sum() / sums[:, 1].sum())}
    if len(corpora) > 1:
        losses |= {
            corpus.name: float(part[0] / part[1]) for (_, corpus), part in zip(corpora, sums) if part[1] > 0
        }
    return losses


def window_sums(
    model: GPT,
    corpora: list[Corpus],
    windows: np.ndarray,
    micro_batch_size: int,
    row_format: RowFormat,
    mesh: Mesh,
    token_bytes: Tensor | None = None,
    advance: Advance = lambda amount, note="": None,
) -> Tensor:
    """Float64 [corpora, 3] over the windows: sum of losses, tokens scored, and bytes of text that they
    stand for by `token_bytes` [vocabulary]."""
    was_training = model.training
    model.eval()
    sums = torch.zeros(len(corpora), 3, dtype=torch.float64, device=mesh.device)
    size = micro_batch_size
    for first in range(mesh.data_rank * size, len(windows), mesh.data_size * size):
        part = windows[first : first + size]
        batch = to_device(plain_batch(corpora, part[:, 0], part[:, 1], row_format), mesh.device)
        weights = (
            batch.loss_mask
            if batch.loss_mask is not None
            else torch.ones_like(batch.labels, dtype=torch.float32)
        )
        text = weights * token_bytes[batch.labels] if token_bytes is not None else torch.zeros_like(weights)
        rows = torch.stack([one.double().sum(1) for one in (model.losses(batch) * weights, weights, text)], 1)
        for corpus in np.unique(part[:, 0]):
            sums[corpus] += rows[torch.from_numpy(part[:, 0] == corpus).to(rows.device)].sum(0)
        advance(len(part) * mesh.data_size)
    model.train(was_training)
    return sum_over_ranks(sums, mesh).cpu()
