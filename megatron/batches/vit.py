"""Draws to rows: the micro-batches of images that a rank computes in a step.

A batch is a pure function of the step, and an image's augmentation is keyed by the seed and the number of the
draw. So every pass over the images sees other crops of them, and a resumed run the same.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from megatron.base.keys import key
from megatron.base.random import draw_each
from megatron.batches.augment import Augmentation, plain_pixels, training_pixels
from megatron.batches.kept import choose_kept
from megatron.batches.loader import BatchShare
from megatron.curriculum.sampler import Sampler, draw_batch
from megatron.data.corpora import Corpus
from megatron.data.images import ImageCorpus, read_image
from megatron.model.inputs import ViTInputs
from megatron.parallel.slices import Slices
from megatron.schedule.plan import Step


@dataclass(frozen=True)
class ViTFormat:
    """How images become rows. `length`: tokens of an image; `dropping`: layers under random-LTD."""

    augmentation: Augmentation
    channels: int
    length: int
    dropping: tuple[int, ...]
    seed: int
    workers: int
    bad_is_next: bool


def make_batch(sampler: Sampler, step: Step, share: BatchShare, row_format: ViTFormat) -> list[ViTInputs]:
    """This rank's micro-batches of a step."""
    members, samples = draw_batch(sampler, step)
    size = share.micro_batch_size
    keys = draw_each(
        np.uint64(key(row_format.seed, "augment")), step.drawn_before + np.arange(step.batch_size)
    )

    def training(place: int) -> np.ndarray:
        image = _read(sampler.corpora, members[place], samples[place], row_format)
        return training_pixels(image, keys[place], row_format.augmentation)

    found = []
    for start in range(share.rank * size, step.batch_size, share.ranks * size):
        rows = np.arange(start, start + size)
        kept = None
        if row_format.dropping and step.kept_length < row_format.length:
            length = np.array(row_format.length)
            kept = choose_kept(
                row_format.dropping, rows, length, step.kept_length, row_format.seed, step.number
            )
        found.append(_inputs(sampler.corpora, members, samples, rows, training, kept, row_format))
    return found


def plain_batch(
    corpora: list[Corpus], members: np.ndarray, samples: np.ndarray, slices: Slices, row_format: ViTFormat
) -> ViTInputs:
    """The middles of images, nothing drawn or dropped: for evaluation."""

    def plain(place: int) -> np.ndarray:
        image = _read(corpora, members[place], samples[place], row_format)
        return plain_pixels(image, row_format.augmentation)

    return _inputs(corpora, members, samples, np.arange(len(samples)), plain, None, row_format)


def _read(corpora: list[Corpus], member: int, sample: int, row_format: ViTFormat):
    corpus = _of_images(corpora[member])
    return read_image(corpus, int(sample), row_format.channels, row_format.bad_is_next)


def _of_images(corpus: Corpus) -> ImageCorpus:
    assert isinstance(corpus, ImageCorpus)
    return corpus


def _inputs(
    corpora: list[Corpus],
    members: np.ndarray,
    samples: np.ndarray,
    rows: np.ndarray,
    make: Callable[[int], np.ndarray],
    kept: np.ndarray | None,
    row_format: ViTFormat,
) -> ViTInputs:
    """The images at these places of the batch, made by several threads, as Pillow works beside Python."""
    with ThreadPoolExecutor(row_format.workers) as pool:
        pixels = np.stack(list(pool.map(make, rows.tolist())))
    labels = [_of_images(corpora[members[place]]).labels[samples[place]] for place in rows]
    return ViTInputs(
        tokens=torch.arange(row_format.length).expand(len(rows), -1),
        rows=torch.from_numpy(rows),
        pixels=torch.from_numpy(pixels),
        labels=torch.tensor(labels, dtype=torch.int64),
        kept=torch.from_numpy(kept) if kept is not None else None,
        first_row=int(rows[0]),
    )
