"""Batches: what a rank computes in a step, made ahead of time by a background thread.

A batch is a pure function of the step. Every rank draws the same global batch and reads its own share, so the number of ranks
changes nothing: micro-batch m of rank r holds the samples [(m·ranks + r)·size, + size) of the global batch.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from megatron.config import DataConfig
from megatron.data.curriculum import Sampler, draw_batch
from megatron.data.gpt_dataset import Corpus, document_layout, published_reshape, reshape_offset
from megatron.data_efficiency import RESHAPE
from megatron.errors import UserError
from megatron.plan import Step
from megatron.random import choose, draw, key

AHEAD = 2


class MicroBatch(NamedTuple):
    """Rows of one forward pass. `tokens`, `labels` [rows, length]; `rows`: their numbers in the global batch, which key
    dropout; `loss_mask`, `positions`, `documents` [rows, length] or None where they are trivial; `kept` [dropping layers,
    rows, kept length]: ascending positions that random-LTD keeps, or None; `first_row`: the first of `rows`."""

    tokens: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    loss_mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    documents: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    first_row: int = 0

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on a device."""
        return MicroBatch(*(part.to(device, non_blocking=True) if torch.is_tensor(part) else part for part in self))  # type: ignore[arg-type]

    def pinned(self) -> "MicroBatch":
        """The same in memory that a GPU reads by itself, so that copies run beside the computation."""
        return MicroBatch(*(part.pin_memory() if torch.is_tensor(part) else part for part in self))  # type: ignore[arg-type]

    def loss_tokens(self) -> int:
        """Tokens whose loss counts."""
        return self.labels.numel() if self.loss_mask is None else int(self.loss_mask.sum())


@dataclass(frozen=True)
class Share:
    """This rank's part of every batch: data-parallel rank, number of them, samples of a micro-batch."""

    rank: int
    ranks: int
    micro_batch_size: int


@dataclass(frozen=True)
class Shape:
    """How samples become rows. `eod` is needed where documents matter; `dropping`: layers under random-LTD."""

    data: DataConfig
    vocab_size: int
    eod: int | None
    reshape: str
    published: bool
    dropping: tuple[int, ...]
    seed: int


def batches(
    sampler: Sampler, steps: Iterator[Step], share: Share, shape: Shape, pin: bool = False
) -> Iterator[tuple[Step, list[MicroBatch]]]:
    """Every step with this rank's micro-batches, AHEAD of them made in the background. `pin`: they go to a GPU."""

    def make(step: Step) -> list[MicroBatch]:
        made = make_batch(sampler, step, share, shape)
        return [batch.pinned() for batch in made] if pin else made

    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for step in steps:
            waiting.append((step, pool.submit(make, step)))
            if len(waiting) > AHEAD:
                ready, future = waiting.pop(0)
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()


def make_batch(sampler: Sampler, step: Step, share: Share, shape: Shape) -> list[MicroBatch]:
    """This rank's micro-batches of a step."""
    members, samples = draw_batch(sampler, step)
    size = share.micro_batch_size
    starts = range(share.rank * size, step.batch_size, share.ranks * size)
    return [_micro_batch(sampler.corpora, members, samples, np.arange(start, start + size), step, shape) for start in starts]


def plain_batch(corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, shape: Shape) -> MicroBatch:
    """Whole windows, nothing cut or dropped: for evaluation."""
    length = shape.data.seq_length
    step = Step(0, len(samples), length, length, len(samples), 0, 0.0, {})
    return _micro_batch(corpora, members, samples, np.arange(len(samples)), step, shape)


def _micro_batch(
    corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, places: np.ndarray, step: Step, shape: Shape
) -> MicroBatch:
    """The rows of the samples at `places` of the global batch."""
    length, full = step.sequence_length, shape.data.seq_length
    if shape.reshape == RESHAPE and length < full:
        ids, rows = _pieces(corpora, members, samples, places, step, shape)
    else:
        ids = np.stack([corpora[members[place]].window(int(samples[place]), 0, length) for place in places])
        rows = places
    ids = ids.astype(np.int64)
    _check_ids(ids, shape.vocab_size, corpora, members[places])
    tokens, labels = ids[:, :-1], ids[:, 1:]
    return MicroBatch(
        torch.from_numpy(np.ascontiguousarray(tokens)),
        torch.from_numpy(np.ascontiguousarray(labels)),
        torch.from_numpy(rows),
        *_documents(tokens, shape),
        _kept(step, rows, shape),
        int(rows[0]),
    )


def _pieces(
    corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, places: np.ndarray, step: Step, shape: Shape
) -> tuple[np.ndarray, np.ndarray]:
    """Reshaped rows of length+1 ids and their numbers in the global batch."""
    length, full = step.sequence_length, shape.data.seq_length
    if shape.published:
        whole = np.stack([corpora[members[place]].window(int(samples[place])) for place in places])
        count = step.rows // (step.batch_size // len(places))
        return published_reshape(whole, length, count), places[0] // len(places) * count + np.arange(count)
    pieces = full // length
    ids = np.stack(
        [
            corpora[members[place]].window(int(samples[place]), offset + piece * length, length)
            for place in places
            for offset in [reshape_offset(shape.seed, step.number, int(place), full, length)]
            for piece in range(pieces)
        ]
    )
    return ids, (places[:, None] * pieces + np.arange(pieces)).reshape(-1)


def _check_ids(ids: np.ndarray, vocab_size: int, corpora: list[Corpus], members: np.ndarray) -> None:
    if ids.max() >= vocab_size or ids.min() < 0:
        names = sorted({corpora[member].name for member in members})
        raise UserError(
            f"{', '.join(names)}: the token id {int(ids.max() if ids.max() >= vocab_size else ids.min())} is outside the vocabulary "
            f"of {vocab_size}; name the tokenizer that made the file"
        )


def _documents(tokens: np.ndarray, shape: Shape) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Loss mask, positions and documents, as the flags ask."""
    data = shape.data
    if not (data.eod_mask_loss or data.reset_position_ids or data.reset_attention_mask):
        return None, None, None
    documents, positions = document_layout(tokens, shape.eod if shape.eod is not None else -1)
    return (
        torch.from_numpy((tokens != shape.eod).astype(np.float32)) if data.eod_mask_loss else None,
        torch.from_numpy(positions) if data.reset_position_ids else None,
        torch.from_numpy(documents) if data.reset_attention_mask else None,
    )


def _kept(step: Step, rows: np.ndarray, shape: Shape) -> torch.Tensor | None:
    """Which positions every dropping layer keeps of every row: uniform draws keyed by (seed, step, layer, row)."""
    if not shape.dropping or step.kept_length >= step.sequence_length:
        return None
    out = np.empty((len(shape.dropping), len(rows), step.kept_length), np.int64)
    seed = np.uint64(key(shape.seed, "random_ltd", step.number))
    _choose_all(seed, np.array(shape.dropping), rows, step.sequence_length, out)
    return torch.from_numpy(out)


@njit(cache=True, nogil=True)
def _choose_all(seed, layers, rows, length, out):
    for i in range(len(layers)):
        for j in range(len(rows)):
            choose(length, out[i, j], draw(draw(seed, layers[i]), rows[j]))
