"""Rows of every shape, the same on any number of ranks."""

import numpy as np
import pytest
import torch

from megatron.base.errors import UserError
from megatron.batches.gpt import RowFormat, make_batch
from megatron.batches.loader import BatchShare, batches
from megatron.curriculum.sampler import draw_batch, make_sampler
from megatron.model.inputs import GPTInputs
from megatron.schedule.data_efficiency_flags import describe
from tests.support.configurations import make_config, make_plan
from tests.support.corpora import make_corpus

FLAGS = "--seq-length 32 --micro-batch-size 2 --global-batch-size 12 --train-iters 20 "
TRUNCATE = "--curriculum seqlen_truncate:min=8,max=32,duration=10,quantum=4 "
RESHAPE = "--curriculum seqlen_reshape:min=8,max=32,duration=10,quantum=4 "
DROP = "--random-ltd --random-ltd-min 4 --random-ltd-quantum 4 --random-ltd-duration 15"


def setup(flags: str, vocab_size: int = 50):
    config = make_config(FLAGS + flags)
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency)
    corpus = make_corpus(64, 32)
    dropping = efficiency.random_ltd.layers if efficiency.random_ltd else ()
    row_format = RowFormat(
        config.data, vocab_size, 0, efficiency.length_metric, efficiency.reference_schedules, dropping, 1234
    )
    return make_sampler([(None, corpus)], efficiency, plan), plan, row_format, corpus


def whole(parts: list[list[GPTInputs]]) -> dict[str, torch.Tensor]:
    """The global batch from the micro-batches of all ranks, by row number."""
    rows = torch.cat([batch.rows for rank in parts for batch in rank])
    order = rows.argsort()
    assert torch.equal(rows[order], torch.arange(len(rows)))
    joined = {
        name: torch.cat([getattr(batch, name) for rank in parts for batch in rank])[order]
        for name in ("tokens", "labels")
    }
    if parts[0][0].kept is not None:
        joined["kept"] = torch.cat([batch.kept for rank in parts for batch in rank], 1)[:, order]
    return joined


@pytest.mark.parametrize(
    "flags",
    [
        "",
        TRUNCATE,
        RESHAPE,
        TRUNCATE + "--random-ltd --random-ltd-min 4 --random-ltd-quantum 4 --random-ltd-duration 15",
    ],
)
def test_the_number_of_ranks_changes_nothing(flags):
    sampler, plan, row_format, _ = setup(flags)
    for number in (1, 5, 12, 20):
        step = plan.at(number)
        alone = whole([make_batch(sampler, step, BatchShare(0, 1, 12), row_format)])
        for ranks, micro in ((1, 2), (2, 3), (3, 2), (6, 1)):
            together = whole(
                [
                    make_batch(sampler, step, BatchShare(rank, ranks, micro), row_format)
                    for rank in range(ranks)
                ]
            )
            assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_truncation_keeps_the_start_of_the_window():
    sampler, plan, row_format, corpus = setup(TRUNCATE)
    step = plan.at(3)
    _, samples = draw_batch(sampler, step)
    batch = whole([make_batch(sampler, step, BatchShare(0, 1, 12), row_format)])
    length = step.sequence_length
    assert 8 < length < 32
    for row, sample in enumerate(samples):
        start = sample * 32
        assert batch["tokens"][row].tolist() == corpus.tokens[start : start + length].tolist()
        assert batch["labels"][row].tolist() == corpus.tokens[start + 1 : start + length + 1].tolist()


def test_reshaping_cuts_every_sample_into_whole_pieces():
    sampler, plan, row_format, corpus = setup(RESHAPE)
    for number in range(1, 11):
        step = plan.at(number)
        length, pieces = step.sequence_length, 32 // step.sequence_length
        _, samples = draw_batch(sampler, step)
        batch = whole([make_batch(sampler, step, BatchShare(0, 1, 12), row_format)])
        assert batch["tokens"].shape == (12 * pieces, length) == (step.rows, length)
        for row in range(12):
            window = corpus.window(int(samples[row])).tolist()
            rows = torch.cat(
                [
                    batch["tokens"][row * pieces : row * pieces + pieces],
                    batch["labels"][row * pieces : row * pieces + pieces, -1:],
                ],
                1,
            )
            offsets = [
                offset
                for offset in range(32 % length + 1)
                if window[offset : offset + length + 1] == rows[0].tolist()
            ]
            assert any(
                all(
                    window[offset + k * length : offset + (k + 1) * length + 1] == piece.tolist()
                    for k, piece in enumerate(rows)
                )
                for offset in offsets
            )


def test_published_reshaping_is_per_micro_batch():
    """Whole pieces of length+1 ids of every row, then every row's last ids, at most what the ids suffice
    for, an even number."""
    sampler, plan, row_format, corpus = setup(RESHAPE + "--reference-schedules --micro-batch-size 4")
    step = plan.at(3)
    _, samples = draw_batch(sampler, step)
    made = make_batch(sampler, step, BatchShare(0, 1, 4), row_format)
    piece = step.sequence_length + 1
    for number, batch in enumerate(made):
        windows = [corpus.window(int(sample)).tolist() for sample in samples[number * 4 : number * 4 + 4]]
        rows = [window[k * piece : (k + 1) * piece] for window in windows for k in range(33 // piece)]
        rows += [window[-piece:] for window in windows]
        rows = rows[: -(-4 * 33 // piece)]
        rows = rows[: len(rows) - len(rows) % 2]
        assert torch.cat([batch.tokens, batch.labels[:, -1:]], 1).tolist() == rows


def test_kept_positions_are_uniform_and_differ_by_layer_row_and_step():
    sampler, plan, row_format, _ = setup(
        "--random-ltd --random-ltd-min 8 --random-ltd-quantum 8 --random-ltd-duration 1000000"
    )
    hits, draws = np.zeros(32), 0
    seen = set()
    for number in range(1, 21):
        for batch in make_batch(sampler, plan.at(number), BatchShare(0, 1, 12), row_format):
            assert batch.kept is not None
            assert batch.kept.shape == (2, 12, 8)
            assert bool((batch.kept.diff(dim=-1) > 0).all())
            hits += np.bincount(batch.kept.flatten().numpy(), minlength=32)
            draws += 24
            seen |= {tuple(kept) for layer in batch.kept.tolist() for kept in layer}
    # each position is kept with probability 1/4: five standard errors of a binomial share
    assert np.abs(hits / draws - 0.25).max() < 5 * (0.25 * 0.75 / draws) ** 0.5
    assert len(seen) > draws * 0.99


def test_documents_positions_and_loss_mask():
    sampler, plan, row_format, _ = setup("--eod-mask-loss --reset-position-ids --reset-attention-mask")
    batch = make_batch(sampler, plan.at(1), BatchShare(0, 1, 12), row_format)[0]
    assert batch.positions is not None and batch.document_starts is not None and batch.loss_mask is not None
    for row in range(12):
        position = start = 0
        for place, token in enumerate(batch.tokens[row].tolist()):
            assert (batch.positions[row, place], batch.document_starts[row, place]) == (position, start)
            assert batch.loss_mask[row, place] == (token != 0)
            position, start = (0, place + 1) if token == 0 else (position + 1, start)
    assert batch.loss_tokens() == int((batch.tokens != 0).sum())


def test_the_background_thread_gives_what_is_asked_for():
    sampler, plan, row_format, _ = setup(TRUNCATE)
    steps = (plan.at(number) for number in range(4, 12))

    def make(step):
        return make_batch(sampler, step, BatchShare(1, 2, 3), row_format)

    for number, (step, made) in zip(range(4, 12), batches(make, steps)):
        assert step.number == number
        wanted = make(plan.at(number))
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(made, wanted))


def test_ids_outside_the_vocabulary_are_refused():
    sampler, plan, row_format, _ = setup("", vocab_size=20)
    with pytest.raises(UserError, match="outside the vocabulary of 20"):
        make_batch(sampler, plan.at(1), BatchShare(0, 1, 12), row_format)
