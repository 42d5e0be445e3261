"""Small datasets of sentences, and rows of them."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch

from megatron.batches.loader import BatchShare
from megatron.curriculum.sampler import Sampler
from megatron.data.corpora import Source, open_source
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.model.inputs import BertInputs
from megatron.schedule.plan import Step
from megatron.train.setup import Run


def sentence_source(prefix: Path, documents: int, most: int = 14, tokens: int = 1 << 15) -> Source:
    """A dataset of documents of 1 to `most` sentences of 1 to 20 tokens, whose ids count up from 10, and from
    10 again behind `tokens`."""
    generator, count = np.random.default_rng(3), 0
    with IndexedDatasetBuilder(prefix, np.uint16) as builder:
        for _ in range(documents):
            lengths = generator.integers(1, 21, generator.integers(1, most + 1))
            total = int(lengths.sum())
            builder.add_document(10 + (count + np.arange(total)) % tokens, lengths)
            count += total
    return open_source(str(prefix), False)


def as_priced(run: Run) -> Run:
    """The run of an encoder whose micro-batches have as many masked tokens as their price takes for granted;
    some are told twice. Their rows are as long as the step says."""

    def batch(sampler: Sampler, step: Step, share: BatchShare) -> list[BertInputs]:
        found = run.rows.batch(sampler, step, share)
        assert {one.tokens.shape[1] for one in found} == {step.sequence_length}
        return [told(one, one.tokens.numel() // share.slices.context.size) for one in found]

    def told(inputs: BertInputs, tokens: int) -> BertInputs:
        which = torch.arange(math.ceil(run.config.bert.mask_prob * tokens)) % len(inputs.masked)
        parts = {name: getattr(inputs, name)[which] for name in ("masked", "labels", "weights")}
        return inputs._replace(**parts)

    return dataclasses.replace(run, rows=run.rows._replace(batch=batch))
