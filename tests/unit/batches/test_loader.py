"""Rows of every shape, the same on any number of ranks."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from megatron.base.errors import UserError
from megatron.batches.gpt import RowFormat, make_batch, plain_batch
from megatron.batches.loader import BatchShare, batches
from megatron.curriculum.sampler import draw_batch, make_sampler
from megatron.model.inputs import GPTInputs
from megatron.parallel.slices import WHOLE
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


@pytest.mark.parametrize("flag", ["eod_mask_loss", "reset_position_ids", "reset_attention_mask"])
def test_every_flag_of_documents_asks_for_its_own_part_alone(flag):
    sampler, plan, row_format, _ = setup("--" + flag.replace("_", "-"))
    (batch,) = make_batch(sampler, plan.at(1), BatchShare(0, 1, 12), row_format)
    starts = np.zeros((12, 32), int)
    for row, tokens in enumerate(batch.tokens.tolist()):
        for place in range(1, 32):
            starts[row, place] = place if tokens[place - 1] == 0 else starts[row, place - 1]
    assert len(np.unique(starts)) > 5
    expected = {
        "eod_mask_loss": ("loss_mask", (batch.tokens != 0).float(), torch.float32),
        "reset_position_ids": ("positions", torch.from_numpy(np.arange(32) - starts), torch.int64),
        "reset_attention_mask": ("document_starts", torch.from_numpy(starts), torch.int64),
    }
    name, values, kind = expected.pop(flag)
    part = getattr(batch, name)
    assert part.dtype == kind and torch.equal(part, values)
    assert [getattr(batch, other) for other, _, _ in expected.values()] == [None, None]


def test_without_a_flag_of_documents_all_that_they_ask_for_is_trivial():
    sampler, plan, row_format, _ = setup("")
    (batch,) = make_batch(sampler, plan.at(1), BatchShare(0, 1, 12), row_format)
    assert (batch.loss_mask, batch.positions, batch.document_starts, batch.kept) == (None,) * 4
    assert batch.loss_tokens() == 12 * 32


def test_an_unknown_end_of_document_ends_none():
    sampler, plan, row_format, _ = setup("--reset-position-ids --reset-attention-mask")
    row_format = dataclasses.replace(row_format, eod=None)
    (batch,) = make_batch(sampler, plan.at(1), BatchShare(0, 1, 12), row_format)
    assert batch.positions is not None and batch.document_starts is not None
    assert torch.equal(batch.positions, torch.arange(32).expand(12, 32))
    assert not batch.document_starts.any()


def test_evaluation_sees_whole_windows_of_their_own_corpora():
    """Nothing is cut or dropped, whatever training does at its first step."""
    _, _, row_format, first = setup(TRUNCATE + DROP)
    second = make_corpus(16, 32, seed=1, name="second")
    batch = plain_batch([first, second], np.array([1, 0, 1]), np.array([15, 63, 0]), WHOLE, row_format)
    windows = [second.tokens[15 * 32 : 16 * 32 + 1], first.tokens[63 * 32 : 64 * 32 + 1], second.tokens[:33]]
    assert batch.tokens.tolist() == [window[:-1].tolist() for window in windows]
    assert batch.labels.tolist() == [window[1:].tolist() for window in windows]
    assert batch.kept is None and batch.rows.tolist() == [0, 1, 2] and batch.first_row == 0


def test_ranks_take_micro_batches_in_turn():
    """Micro-batch m of rank r holds the rows from (m * ranks + r) * size on."""
    sampler, plan, row_format, _ = setup("")
    made = make_batch(sampler, plan.at(2), BatchShare(1, 3, 2), row_format)
    assert [batch.rows.tolist() for batch in made] == [[2, 3], [8, 9]]
    assert [batch.first_row for batch in made] == [2, 8]


def test_batches_are_made_two_ahead_and_no_more():
    """While step n is computed, n + 1 and n + 2 are made."""
    taken: list[int] = []
    _, plan, _, _ = setup("")

    def steps():
        for number in range(1, 7):
            taken.append(number)
            yield plan.at(number)

    threads: set[int] = set()

    def make(step):
        threads.add(threading.get_ident())
        return [step.number]

    seen = [(step.number, made, len(taken)) for step, made in batches(make, steps())]
    assert seen == [(n, [n], min(n + 2, 6)) for n in range(1, 7)]
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_the_background_thread_gives_what_is_asked_for():
    sampler, plan, row_format, _ = setup(TRUNCATE)
    steps = (plan.at(number) for number in range(4, 12))

    def make(step):
        return make_batch(sampler, step, BatchShare(1, 2, 3), row_format)

    for number, (step, made) in zip(range(4, 12), batches(make, steps)):
        assert step.number == number
        wanted = make(plan.at(number))
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(made, wanted))


def test_the_vocabulary_ends_behind_its_largest_id():
    """Ids are below its size: the largest id of a batch itself is too small a size."""
    sampler, plan, row_format, _ = setup("")
    share = BatchShare(0, 1, 12)
    (batch,) = make_batch(sampler, plan.at(1), share, row_format)
    largest = max(int(batch.tokens.max()), int(batch.labels.max()))
    make_batch(sampler, plan.at(1), share, dataclasses.replace(row_format, vocab_size=largest + 1))
    with pytest.raises(
        UserError, match=f"^corpus: the token id {largest} is outside the vocabulary of {largest};"
    ):
        make_batch(sampler, plan.at(1), share, dataclasses.replace(row_format, vocab_size=largest))


@pytest.mark.parametrize(("place", "row"), [(0, 0), (32, 0), (64, 1)])
@pytest.mark.parametrize("wrong", [-1, 50])
def test_an_id_outside_the_vocabulary_is_found_wherever_it_stands(place, row, wrong):
    """The first token and the last label of a row count, too, and only corpora of the micro-batch are
    named."""
    _, _, row_format, good = setup("")
    bad = make_corpus(4, 32, name="bad")
    tokens = np.array(bad.tokens, np.int32)
    tokens[place] = wrong
    corpora = [good, dataclasses.replace(bad, tokens=tokens)]
    plain_batch(corpora, np.array([1]), np.array([3]), WHOLE, row_format)
    with pytest.raises(UserError, match=f"^bad: the token id {wrong} is outside the vocabulary of 50;"):
        plain_batch(corpora, np.array([1]), np.array([row]), WHOLE, row_format)
