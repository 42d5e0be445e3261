"""Draws to rows: the micro-batches that a rank computes in a step of an encoder.

A batch is a pure function of the step. Every rank draws the same global batch and so knows the real length of
every sample in it: all rows are cut to the longest one, which changes no loss.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from megatron.base.keys import key
from megatron.base.random import draw_each
from megatron.batches.kept import choose_kept
from megatron.batches.loader import BatchShare, check_ids
from megatron.batches.masking import NOT_TOLD, Masking, mask_rows
from megatron.config.bert import BertConfig
from megatron.curriculum.sampler import Sampler, draw_batch
from megatron.data.corpora import Corpus
from megatron.data.pairs import SentenceCorpus
from megatron.data.wordpiece import BertTokens
from megatron.model.inputs import BertInputs
from megatron.parallel.slices import Slices, plan_moves
from megatron.schedule.plan import Step

LENGTHS = 8
"""Rows are cut to multiples of this."""


@dataclass(frozen=True)
class BertFormat:
    """How samples become rows. `dropping`: layers under random-LTD."""

    bert: BertConfig
    pair: str
    seq_length: int
    dropping: tuple[int, ...]
    seed: int


class Samples(NamedTuple):
    """Samples of a batch: their numbers in it, their corpora and where in these their texts lie, and real
    lengths, as far as the step's length goes."""

    numbers: np.ndarray
    members: np.ndarray
    samples: np.ndarray
    spans: np.ndarray
    lengths: np.ndarray

    def part(self, places: np.ndarray) -> "Samples":
        return Samples(*(column[places] for column in self))


def make_batch(sampler: Sampler, step: Step, share: BatchShare, row_format: BertFormat) -> list[BertInputs]:
    """This rank's micro-batches of a step."""
    batch = _described(sampler.corpora, *draw_batch(sampler, step), step.sequence_length)
    if row_format.bert.bert_group_lengths:
        batch = batch.part(np.argsort(batch.lengths, kind="stable"))
    longest, size = int(batch.lengths.max()), share.micro_batch_size
    starts = range(share.rank * size, step.batch_size, share.ranks * size)
    found = []
    for start in starts:
        places = np.arange(start, start + size)
        if row_format.bert.bert_group_lengths:  # the ranks' micro-batches of the same turn are equally long
            turn = slice(start - share.rank * size, start + (share.ranks - share.rank) * size)
            longest = int(batch.lengths[turn].max())
        found.append(
            _micro_batch(sampler.corpora, batch.part(places), longest, step, row_format, share.slices)
        )
    return found


def plain_batch(
    corpora: list[Corpus],
    members: np.ndarray,
    samples: np.ndarray,
    slices: Slices,
    row_format: BertFormat,
) -> BertInputs:
    """Whole samples, nothing cut or dropped, masked alike every time: for evaluation."""
    length = row_format.seq_length
    step = Step(0, len(samples), length, length, len(samples), 0, 0.0, {})
    batch = _described(corpora, members, samples, length)
    plain = replace(row_format, bert=replace(row_format.bert, masking="static", bert_pack=False))
    return _micro_batch(corpora, batch, int(batch.lengths.max()), step, plain, slices)


def _described(corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, most: int) -> Samples:
    """Where the samples of a batch lie, and how long they are when cut to `most` tokens."""
    spans, lengths = np.empty((len(samples), 5), np.int64), np.empty(len(samples), np.int64)
    for member in np.unique(members):
        mine = np.flatnonzero(members == member)
        spans[mine] = _sentences(corpora[member]).spans(samples[mine])
        lengths[mine] = _sentences(corpora[member]).lengths(spans[mine])
    return Samples(np.arange(len(samples)), members, samples, spans, np.minimum(lengths, most))


def _sentences(corpus: Corpus) -> SentenceCorpus:
    assert isinstance(corpus, SentenceCorpus)
    return corpus


def _micro_batch(
    corpora: list[Corpus], part: Samples, longest: int, step: Step, row_format: BertFormat, slices: Slices
) -> BertInputs:
    """The rows of these samples, as long as the longest of them must be."""
    marks, bert = _sentences(corpora[0]).marks, row_format.bert
    assert marks is not None
    ids, told = _masked(corpora, part, marks, step, row_format)
    keeps = step.kept_length if row_format.dropping and step.kept_length < longest else 0
    places = _place(part.lengths, longest, step.sequence_length, keeps, _shared_by(slices), bert.bert_pack)
    tokens = np.full((places.rows, places.width), marks.pad, np.int64)
    types = np.zeros_like(tokens) if row_format.pair else None
    for number, (row, first, length) in enumerate(zip(places.row, places.first, part.lengths)):
        tokens[row, first : first + length] = ids[number, :length]
        if types is not None:
            types[row, first + min(part.spans[number, 1] + 2, length) : first + length] = 1
    kept = _kept(part, places, step, row_format) if keeps else None
    moves = None
    if kept is not None and slices.both.size > 1:
        moves = tuple(plan_moves(one, places.width, slices) for one in kept)
    return BertInputs(
        tokens=torch.from_numpy(tokens),
        **_told(told, part.lengths, places, slices),
        **(_pairs(part.spans[:, 4], places, slices) if row_format.pair else {}),
        **(_bounds_of_packed if bert.bert_pack else _bounds)(part, places),
        types=torch.from_numpy(types) if types is not None else None,
        kept=torch.from_numpy(kept) if kept is not None else None,
        moves=moves,
        padded_kept=bool(keeps) and bool((part.lengths < places.kept).any()),
        first_row=int(part.numbers[0]),
    )


def _masked(
    corpora: list[Corpus], part: Samples, marks: BertTokens, step: Step, row_format: BertFormat
) -> tuple[np.ndarray, np.ndarray]:
    """The whole samples with their masks, and what these hide."""
    bert = row_format.bert
    ids = np.empty((len(part.samples), row_format.seq_length), np.int64)
    for member in np.unique(part.members):
        mine = np.flatnonzero(part.members == member)
        ids[mine] = _sentences(corpora[member]).rows(part.spans[mine], row_format.seq_length)
    check_ids(ids, len(marks.continues), corpora, part.members)
    texts = _sentences(corpora[0]).lengths(part.spans)
    when, which = (step.number, part.numbers) if bert.masking == "dynamic" else (-1, part.samples)
    keys = draw_each(np.uint64(key(row_format.seed, "mask", when)), which)
    return ids, mask_rows(ids, texts, keys, Masking.of(bert, marks))


def _shared_by(slices: Slices) -> int:
    """What the number of tokens is a multiple of, in a row or kept, for ranks to share them."""
    return slices.both.size * (2 if slices.context.size > 1 else 1)


class Places(NamedTuple):
    """Where samples lie in rows: `row` and `first` place of each; how many rows of which width there are, and
    how many tokens of a row are kept."""

    row: np.ndarray
    first: np.ndarray
    rows: int
    width: int
    kept: int


def _place(
    lengths: np.ndarray, longest: int, most: int, kept_length: int, multiple: int, pack: bool
) -> Places:
    """A row for each sample, or for as many as fit into the longest one's length. Where tokens are dropped
    (`kept_length` above 0), every row has room for the padding that it keeps, so that all keep as many. A
    sample's own row has at most `most` tokens."""
    row, first = _first_fit(lengths, longest) if pack else (np.arange(len(lengths)), 0 * lengths)
    rows = int(row.max()) + 1
    used, kept = np.bincount(row, lengths, rows), np.bincount(row, np.minimum(lengths, kept_length), rows)
    most_kept = _rounded_up(int(kept.max()), multiple)
    width = int((used + (most_kept - kept if kept_length else 0)).max())
    wide = _rounded_up(width if pack else max(width, longest), math.lcm(LENGTHS, multiple))
    return Places(row, first, rows, wide if pack else min(wide, most), most_kept)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _first_fit(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and first place of every sample: the longest first, each into the first row with room for it."""
    row, first = np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64)
    used: list[int] = []
    for number in np.argsort(-lengths, kind="stable"):
        fits = [place for place, taken in enumerate(used) if taken + lengths[number] <= room]
        if not fits:
            used.append(0)
        row[number] = fits[0] if fits else len(used) - 1
        first[number] = used[row[number]]
        used[row[number]] += int(lengths[number])
    return row, first


def _kept(part: Samples, places: Places, step: Step, row_format: BertFormat) -> np.ndarray:
    """Which positions every dropping layer keeps of every row, [layers, rows, kept]: of each sample at most
    as many as the step keeps, and padding for what is missing."""
    dropping, seed = row_format.dropping, row_format.seed
    pack = row_format.bert.bert_pack
    most = step.kept_length if pack else places.kept
    chosen = choose_kept(dropping, part.numbers, part.lengths, most, seed, step.number)
    if not pack:
        return chosen
    kept = np.empty((len(dropping), places.rows, places.kept), np.int64)
    filled = np.zeros(places.rows, np.int64)
    used = np.bincount(places.row, part.lengths, places.rows).astype(np.int64)
    for number in np.lexsort((places.first, places.row)):
        row, count = places.row[number], min(part.lengths[number], step.kept_length)
        kept[:, row, filled[row] : filled[row] + count] = chosen[:, number, :count] + places.first[number]
        filled[row] += count
    for row in range(places.rows):
        kept[:, row, filled[row] :] = used[row] + np.arange(places.kept - filled[row])
    return kept


def _bounds(part: Samples, places: Places) -> dict[str, Any]:
    """Of rows with a sample each: their numbers, and where they end, where any is padded."""
    padded = (part.lengths < places.width).any()
    ends = torch.from_numpy(part.lengths[:, None]) if padded else None
    return {"rows": torch.from_numpy(part.numbers), "ends": ends}


def _bounds_of_packed(part: Samples, places: Places) -> dict[str, Any]:
    """Of every token the number of its sample, its place there, and where that begins and ends in its row;
    padding is a sample of its own."""
    used = np.bincount(places.row, part.lengths, places.rows).astype(np.int64)
    starts = np.repeat(used[:, None], places.width, 1)
    ends, rows, positions = np.full_like(starts, places.width), np.zeros_like(starts), np.zeros_like(starts)
    for number, row, first, length in zip(part.numbers, places.row, places.first, part.lengths):
        inside = slice(first, first + length)
        starts[row, inside], ends[row, inside], rows[row, inside] = first, first + length, number
        positions[row, inside] = np.arange(length)
    names = {"rows": rows, "positions": positions, "starts": starts, "ends": ends}
    return {name: torch.from_numpy(one) for name, one in names.items()}


def _told(told: np.ndarray, lengths: np.ndarray, places: Places, slices: Slices) -> dict[str, Any]:
    """Which of the tokens that this rank computes are to be told; where there are none, one for nothing."""
    sample, place = np.nonzero((told != NOT_TOLD) & (np.arange(told.shape[1]) < lengths[:, None]))
    labels = told[sample, place]
    index, here = _index(places.row[sample], places.first[sample] + place, places.width, slices)
    none = np.zeros(1, np.int64)
    index, mine = (index[here], labels[here]) if here.any() else (none, none)
    weights = torch.full((len(mine),), float(here.any()))
    parts = {"masked": torch.from_numpy(index), "labels": torch.from_numpy(mine), "weights": weights}
    return parts | {"masked_count": len(labels)}


def _pairs(follows_not: np.ndarray, places: Places, slices: Slices) -> dict[str, Any]:
    """The first token of every pair, if this rank computes it, and what is to be told."""
    index, here = _index(places.row, places.first, places.width, slices)
    weights = torch.from_numpy(here.astype(np.float32))
    parts = {
        "firsts": torch.from_numpy(index),
        "pairs": torch.from_numpy(follows_not),
        "pair_weights": weights,
    }
    return parts | {"pair_count": len(follows_not)}


def _index(row: np.ndarray, place: np.ndarray, width: int, slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Where tokens lie among those whose queries this rank computes, 0 for others, and which do."""
    slot = np.full(width, -1, np.int64)
    seen = slices.seen(width).numpy()
    slot[seen] = np.arange(len(seen))
    here = slot[place] >= 0
    return np.where(here, row * len(seen) + slot[place], 0), here
