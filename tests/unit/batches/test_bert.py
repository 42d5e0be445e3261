"""Batches of an encoder: padding, groups and packs change no loss; what random-LTD keeps of them."""

from functools import cache

import numpy as np
import pytest
import torch

from megatron.batches.bert import BertFormat, make_batch
from megatron.batches.loader import BatchShare
from megatron.config.config import Config
from megatron.model.bert import Bert
from megatron.model.inputs import BertInputs
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Axis
from megatron.parallel.slices import Slices
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Step
from megatron.tasks.bert import BERT_TASK
from megatron.train.setup import Prepared, join
from tests.support.configurations import make_config

FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 64 --global-batch-size 16 "
    "--micro-batch-size 4 --train-iters 40 --init-method-std 0.1 --short-seq-prob 0.7 "
    "--attention-dropout 0.1 "
)
LTD = "--random-ltd --random-ltd-min 16 --random-ltd-quantum 16 --random-ltd-duration 39 "
MODERN = (
    "--bert-no-binary-head --position-embedding-type rope --geglu --local-rotary-base 90 --window-size 5,3 "
    "--window-attn-skip-freq [0,1,1,0] "
)


@cache
def prepared(flags: str) -> Prepared:
    config = make_config(FLAGS + flags)
    return join(BERT_TASK, config, describe(config)[0], BERT_TASK.open_data(config))


def batches_of(flags: str, number: int = 3, share: BatchShare | None = None) -> list[BertInputs]:
    run = prepared(flags)
    return run.rows.batch(run.sampler, run.plan.at(number), share or BatchShare(0, 1, 4))


def model_of(config: Config, dropping: tuple[int, ...]) -> Bert:
    model = BERT_TASK.build_model(config, 100, dropping).double().train()
    initialize(model, 3)
    assert isinstance(model, Bert)
    return model


def sums(flags: str, number: int = 3) -> tuple[dict[str, float], torch.Tensor]:
    """Losses of a step, summed, and the gradient of all weights."""
    run = prepared(flags)
    model = model_of(run.config, run.efficiency.dropping_layers)
    total: dict[str, float] = {}
    for batch in batches_of(flags, number):
        found = model(batch, torch.tensor(9))
        sum(found.values()).backward()  # type: ignore[union-attr]
        total = {name: total.get(name, 0.0) + float(one.detach()) for name, one in found.items()}
    return total, torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


@pytest.mark.parametrize("model", ["", MODERN])
@pytest.mark.parametrize("ltd", ["", LTD])
@pytest.mark.parametrize("way", ["--bert-pack", "--bert-group-lengths"])
def test_packs_and_groups_change_no_loss_beyond_rounding(model: str, ltd: str, way: str) -> None:
    """With dropout and dropped tokens, too: all is keyed by a sample's own number and places."""
    losses, gradient = sums(model + ltd)
    found, other = sums(f"{model}{ltd}{way}")
    assert found == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-11)
    tokens = [sum(batch.tokens.numel() for batch in batches_of(f"{model}{ltd}{one}")) for one in ("", way)]
    assert tokens[1] < 0.9 * tokens[0], "and they save padding"


@pytest.mark.parametrize("ltd", ["", LTD])
def test_padding_is_cut_to_the_longest_sample_of_the_whole_batch(ltd: str, monkeypatch) -> None:
    """Whatever is cut changes no loss, as nothing sees it and random-LTD keeps none of it before real
    tokens."""
    flags = f"--short-seq-prob 1 --global-batch-size 4 {ltd}"
    run = prepared(flags)
    number = next(one for one in range(1, 30) if batches_of(flags, one)[0].tokens.shape[1] < 64)
    (batch,) = batches_of(flags, number)
    losses, gradient = sums(flags, number)
    assert batch.tokens.shape[1] % 8 == 0 and batch.ends is not None
    longest = int(batch.ends.max())
    assert batch.tokens.shape[1] - longest < 8
    monkeypatch.setattr("megatron.batches.bert.LENGTHS", 64)
    (whole,) = batches_of(flags, number)
    assert whole.tokens.shape[1] == 64
    found, other = sums(flags, number)
    assert found == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-11)
    assert run.plan.raw_tokens[0] == 4 * 64, "the plan counts whole rows"


def test_ranks_know_the_longest_sample_of_all() -> None:
    """Two ranks of one turn have rows of the same length without asking each other."""
    parts = [batches_of("", share=BatchShare(rank, 2, 4)) for rank in range(2)]
    assert [one.tokens.shape for one in parts[0]] == [one.tokens.shape for one in parts[1]]
    grouped = [batches_of("--bert-group-lengths", share=BatchShare(rank, 2, 4)) for rank in range(2)]
    assert [one.tokens.shape for one in grouped[0]] == [one.tokens.shape for one in grouped[1]]
    rows = torch.cat([one.rows for part in grouped for one in part])
    assert sorted(rows.tolist()) == list(range(16))


def test_random_ltd_keeps_tokens_before_padding() -> None:
    run = prepared(LTD)
    step = run.plan.at(3)
    assert step.kept_length == 16
    for batch in batches_of(LTD):
        assert batch.kept is not None and batch.ends is not None
        real = (batch.kept < batch.ends[None]).sum(-1)
        assert (real == batch.ends[:, 0].clamp(max=16)[None]).all()
        assert (batch.kept.diff(dim=-1) > 0).all() and int(batch.kept.max()) < batch.tokens.shape[1]
        assert batch.padded_kept == bool((batch.ends < 16).any())
    assert not torch.equal(batch.kept[0], batch.kept[1]), "another choice in every layer"


def test_what_is_told_does_not_depend_on_what_is_dropped() -> None:
    for plain, dropped in zip(batches_of(""), batches_of(LTD)):
        for name in ("masked", "labels", "weights", "tokens", "pairs", "firsts"):
            assert torch.equal(getattr(plain, name), getattr(dropped, name))


def test_truncation_cuts_tokens_types_and_what_is_told() -> None:
    flags = "--curriculum seqlen_truncate:min=16,max=64,duration=30,quantum=16 "
    for cut, whole in zip(batches_of(flags, 1), batches_of("", 1)):
        assert cut.tokens.shape[1] == 16
        assert torch.equal(cut.tokens, whole.tokens[:, :16]) and torch.equal(cut.types, whole.types[:, :16])
        rows, places = whole.masked // whole.tokens.shape[1], whole.masked % whole.tokens.shape[1]
        assert torch.equal(cut.labels, whole.labels[places < 16])
        assert torch.equal(cut.masked, (rows * 16 + places)[places < 16])


def test_masks_are_new_at_every_draw_or_stay() -> None:
    """The same samples at other steps: a pass later, with as many samples as a pass has."""
    for flags, alike in (("--masking dynamic", False), ("--masking static", True)):
        run = prepared(flags)
        row_format = BertFormat(run.config.bert, "sop", 64, (), 1234)
        steps = [Step(number, 4, 64, 64, 4, 0, 0.0, {}) for number in (1, 2)]
        first, second = (make_batch(run.sampler, step, BatchShare(0, 1, 4), row_format)[0] for step in steps)
        same = {int(row): int(row) for row in first.rows}
        assert len(same) == 4
        order = [np.lexsort(one.tokens.numpy()[:, ::-1].T) for one in (first, second)]
        a, b = (one.tokens[torch.from_numpy(rows)] for one, rows in zip((first, second), order))
        assert torch.equal(a, b) == alike


def test_a_rank_of_the_context_axis_has_its_own_masks() -> None:
    """Together they have all, each once, and where one has none it has one that counts nothing."""
    whole = batches_of("")
    found: list[list[int]] = [[] for _ in whole]
    for rank in range(2):
        axis = Axis(rank, 2)
        share = BatchShare(0, 1, 4, Slices(axis, both=axis))
        for number, batch in enumerate(batches_of("", share=share)):
            width = batch.tokens.shape[1] // 2
            seen = share.slices.seen(batch.tokens.shape[1])
            counted = batch.weights > 0
            rows, slots = batch.masked[counted] // width, batch.masked[counted] % width
            found[number] += (rows * 2 * width + seen[slots]).tolist()
            assert batch.masked_count == len(whole[number].masked)
            assert batch.pair_weights is not None and float(batch.pair_weights.sum()) == (
                4 if rank == 0 else 0
            )
    assert [sorted(one) for one in found] == [sorted(batch.masked.tolist()) for batch in whole]
