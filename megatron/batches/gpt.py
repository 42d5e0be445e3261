"""Draws to rows: the micro-batches that a rank computes in a step of a GPT.

A batch is a pure function of the step. Every rank draws the same global batch and reads its own share, so
the number of ranks changes nothing: micro-batch m of rank r holds the samples [(m·ranks + r)·size, + size)
of the global batch.
"""

from dataclasses import dataclass

import numpy as np
import torch

from megatron.base.keys import key
from megatron.batches.kept import choose_kept
from megatron.batches.loader import BatchShare, check_ids
from megatron.config.config import DataConfig
from megatron.curriculum.sampler import Sampler, draw_batch
from megatron.data.corpora import Corpus
from megatron.model.inputs import GPTInputs
from megatron.parallel.slices import WHOLE, Slices, plan_moves
from megatron.schedule.data_efficiency import RESHAPE
from megatron.schedule.plan import Step


@dataclass(frozen=True)
class RowFormat:
    """How samples become rows. `eod` is needed where documents matter; `dropping`: layers under
    random-LTD."""

    data: DataConfig
    vocab_size: int
    eod: int | None
    length_metric: str
    reference_schedules: bool
    dropping: tuple[int, ...]
    seed: int


def make_batch(sampler: Sampler, step: Step, share: BatchShare, row_format: RowFormat) -> list[GPTInputs]:
    """This rank's micro-batches of a step."""
    members, samples = draw_batch(sampler, step)
    size = share.micro_batch_size
    starts = range(share.rank * size, step.batch_size, share.ranks * size)
    return [
        _micro_batch(
            sampler.corpora, members, samples, np.arange(start, start + size), step, row_format, share.slices
        )
        for start in starts
    ]


def plain_batch(
    corpora: list[Corpus],
    members: np.ndarray,
    samples: np.ndarray,
    slices: Slices,
    row_format: RowFormat,
) -> GPTInputs:
    """Whole windows, nothing cut or dropped: for evaluation."""
    length = row_format.data.seq_length
    step = Step(0, len(samples), length, length, len(samples), 0, 0.0, {})
    return _micro_batch(corpora, members, samples, np.arange(len(samples)), step, row_format)


def _micro_batch(
    corpora: list[Corpus],
    members: np.ndarray,
    samples: np.ndarray,
    places: np.ndarray,
    step: Step,
    row_format: RowFormat,
    slices: Slices = WHOLE,
) -> GPTInputs:
    """The rows of the samples at `places` of the global batch."""
    length, full = step.sequence_length, row_format.data.seq_length
    if row_format.length_metric == RESHAPE and length < full:
        ids, rows = _reshaped(corpora, members, samples, places, step, row_format)
    else:
        ids = np.stack([corpora[members[place]].window(int(samples[place]), 0, length) for place in places])
        rows = places
    ids = ids.astype(np.int64)
    check_ids(ids, row_format.vocab_size, corpora, members[places])
    tokens, labels = ids[:, :-1], ids[:, 1:]
    kept, moves = _kept(step, rows, row_format), None
    if kept is not None and slices.both.size > 1:
        moves = tuple(plan_moves(layer, length, slices) for layer in kept)
    return GPTInputs(
        torch.from_numpy(np.ascontiguousarray(tokens)),
        torch.from_numpy(np.ascontiguousarray(labels)),
        torch.from_numpy(rows),
        *document_inputs(tokens, row_format.data, row_format.eod),
        torch.from_numpy(kept) if kept is not None else None,
        moves,
        int(rows[0]),
    )


def _reshaped(
    corpora: list[Corpus],
    members: np.ndarray,
    samples: np.ndarray,
    places: np.ndarray,
    step: Step,
    row_format: RowFormat,
) -> tuple[np.ndarray, np.ndarray]:
    """Reshaped rows of length+1 ids and their numbers in the global batch."""
    length, full = step.sequence_length, row_format.data.seq_length
    if row_format.reference_schedules:
        whole = np.stack([corpora[members[place]].window(int(samples[place])) for place in places])
        count = step.rows // (step.batch_size // len(places))
        return reference_reshape(whole, length, count), places[0] // len(places) * count + np.arange(count)
    pieces = full // length
    ids = np.stack(
        [
            corpora[members[place]].window(int(samples[place]), offset + piece * length, length)
            for place in places
            for offset in [reshape_offset(row_format.seed, step.number, int(place), full, length)]
            for piece in range(pieces)
        ]
    )
    return ids, (places[:, None] * pieces + np.arange(pieces)).reshape(-1)


def document_inputs(
    tokens: np.ndarray, data: DataConfig, eod: int | None
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Loss mask, positions and where documents begin of [rows, length], as the flags ask."""
    if not (data.eod_mask_loss or data.reset_position_ids or data.reset_attention_mask):
        return None, None, None
    starts = document_starts(tokens, eod if eod is not None else -1)
    return (
        torch.from_numpy((tokens != eod).astype(np.float32)) if data.eod_mask_loss else None,
        torch.from_numpy(np.arange(tokens.shape[1]) - starts) if data.reset_position_ids else None,
        torch.from_numpy(starts) if data.reset_attention_mask else None,
    )


def _kept(step: Step, rows: np.ndarray, row_format: RowFormat) -> np.ndarray | None:
    """Which positions every dropping layer keeps of every row."""
    if not row_format.dropping or step.kept_length >= step.sequence_length:
        return None
    length, seed = np.array(step.sequence_length), row_format.seed
    return choose_kept(row_format.dropping, rows, length, step.kept_length, seed, step.number)


def document_starts(tokens: np.ndarray, eod: int) -> np.ndarray:
    """Where in its row the document of every token of [rows, length] begins; an end-of-document token is
    the last of its document."""
    begins = np.pad(tokens == eod, ((0, 0), (1, 0)))[:, :-1]
    places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.maximum.accumulate(np.where(begins, places, 0), axis=1)


def reshape_offset(seed: int, step: int, row: int, full: int, length: int) -> int:
    """Where the first of the full//length pieces of a sample starts: a keyed place in [0, full mod
    length]."""
    return key(seed, "reshape", step, row) % (full % length + 1)


def reference_reshape(ids: np.ndarray, length: int, rows: int) -> np.ndarray:
    """DeepSpeed's reshaping of a micro-batch [samples, S+1]: whole pieces of length+1 ids, then every
    sample's last ones, cut to `rows` rows."""
    piece = length + 1
    whole = ids[:, : ids.shape[1] // piece * piece].reshape(-1, piece)
    return np.concatenate([whole, ids[:, -piece:]])[:rows]
