"""The closed form of the draws, against the rule it stands for: proportional to size across groups,
without replacement inside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.curriculum.draws import counts, draw_places, make_chain, weighted_chain


def pool(sizes: list[int], entries: list[int], batch: int):
    """A chain whose groups enter at steps `entries`, and a function step -> places drawn."""
    entry = np.array(entries)
    chain = make_chain(np.array(sizes), (entry - 1) * batch, seed=3)

    def draw(step: int) -> np.ndarray:
        out = np.empty(batch, np.int64)
        draw_places(
            chain, (step - 1) * batch, step * batch, 11, int(np.searchsorted(entry, step, side="right")), out
        )
        return out

    return chain, draw


groups = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(groups, st.integers(1, 40))
def test_draws_follow_the_rule(shape, batch):
    sizes = [size for size, _ in shape]
    entries = [1, *(1 + np.cumsum([gap for _, gap in shape[1:]])).tolist()]
    chain, draw = pool(sizes, entries, batch)
    offsets = np.cumsum(sizes) - sizes
    uses = np.zeros(sum(sizes), np.int64)
    ideal = np.zeros(len(sizes))
    for step in range(1, entries[-1] + 25):
        places = draw(step)
        admitted = sum(size for size, entry in zip(sizes, entries) if entry <= step)
        assert places.min() >= 0 and places.max() < admitted
        uses += np.bincount(places, minlength=len(uses))
        inside = np.array(entries) <= step
        ideal[inside] += batch * np.array(sizes)[inside] / admitted
        taken = np.add.reduceat(uses, offsets)
        assert np.array_equal(taken, counts(chain, step * batch))
        # every split errs by less than one draw, and an error upstream reaches a group only in proportion to
        # its share
        assert np.abs(taken - ideal).max() < 2 + np.log2(1 + len(sizes))
        for offset, size in zip(offsets, sizes):
            assert np.ptp(uses[offset : offset + size]) <= 1


def test_any_order_of_steps_gives_the_same_batches():
    _, draw = pool([40, 30, 200, 5], [1, 4, 9, 30], 16)
    forwards = {step: draw(step) for step in range(1, 60)}
    for step in np.random.default_rng(0).permutation(np.arange(1, 60)):
        assert np.array_equal(draw(int(step)), forwards[int(step)])


def test_a_pass_covers_every_sample_once():
    _, draw = pool([1000], [1], 50)
    for turn in range(3):
        drawn = np.concatenate([draw(step) for step in range(1 + turn * 20, 21 + turn * 20)])
        assert np.array_equal(np.sort(drawn), np.arange(1000))
    assert not np.array_equal(
        np.concatenate([draw(step) for step in range(1, 21)]),
        np.concatenate([draw(step) for step in range(21, 41)]),
    )


def test_a_batch_larger_than_the_pool_repeats_evenly():
    _, draw = pool([7], [1], 32)
    assert np.ptp(np.bincount(draw(1), minlength=7)) <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), st.integers(0, 10**12))
def test_blends_keep_their_weights(weights, draws):
    chain = weighted_chain(np.array(weights), 1)
    share = counts(chain, draws)
    assert share.sum() == draws
    ideal = np.array(weights) / sum(weights) * draws
    # weights are kept to 2^-30 of the total, and every split rounds once
    assert np.all(np.abs(share - ideal) <= draws * 2.0**-29 + 2 + np.log2(1 + len(weights)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-2, 1e2), min_size=2, max_size=10), st.integers(0, 10**6))
def test_a_blend_assigns_every_draw_to_one_corpus(weights, draws):
    chain = weighted_chain(np.array(weights), 1)
    step = counts(chain, draws + 1) - counts(chain, draws)
    assert step.sum() == 1 and step.min() == 0


def test_a_billion_samples_in_a_hundred_groups():
    sizes = np.full(100, 10**7)
    chain = make_chain(sizes, np.arange(100) * 512 * 1000, 1)
    share = counts(chain, 512 * 10**9)
    assert share.sum() == 512 * 10**9
    assert np.abs(share / share.sum() - 0.01).max() < 1e-3


def test_too_many_samples_for_exact_splits_are_refused():
    with pytest.raises(UserError, match="too many"):
        make_chain(np.array([1, 4 * 10**9]), np.array([0, 1]), 1)


@pytest.mark.parametrize("draw", [0, 1, 10])
def test_any_single_draw_falls_to_every_corpus_by_its_weight(draw):
    """Over seeds: were the rounding alike for all seeds, the first draw would always be of one corpus. Five
    standard deviations of a binomial."""
    seeds, weights = 2_000, np.array([3.0, 1.0, 4.0])
    shares = weights / weights.sum()
    hits = np.zeros(3)
    for seed in range(seeds):
        chain = weighted_chain(weights, seed)
        hits += counts(chain, draw + 1) - counts(chain, draw)
    assert np.all(np.abs(hits - seeds * shares) < 5 * np.sqrt(seeds * shares * (1 - shares)))


def test_a_group_begins_to_be_drawn_when_it_enters():
    """Of two groups of 2 and 6 samples the second enters after 10 draws: then 3 of 4 draws are of it."""
    for seed in range(20):
        chain = make_chain(np.array([2, 6]), np.array([0, 10]), seed)
        assert [counts(chain, draws).tolist() for draws in (0, 9, 10)] == [[0, 0], [9, 0], [10, 0]]
        for draws in (14, 18, 30, 4010):
            assert counts(chain, draws).tolist() == [10 + (draws - 10) // 4, (draws - 10) * 3 // 4]


def test_draws_never_change():
    """The data order of every run hangs on these numbers."""
    chain = make_chain(np.array([3, 2, 5]), np.array([0, 4, 8]), 7)
    out = np.empty(12, np.int64)
    draw_places(chain, 8, 20, 11, 3, out)
    assert out.tolist() == [0, 2, 1, 2, 3, 4, 6, 9, 8, 5, 7, 6]
