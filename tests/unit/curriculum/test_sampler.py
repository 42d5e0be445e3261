"""Admission: which samples a step may draw, for values and percentiles, one metric and two, in blends."""

import sys
import types

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.curriculum.sampler import Sampler, describe_passes, draw_batch, make_sampler
from megatron.data.corpora import Corpus
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan
from tests.support.configurations import make_config, make_plan
from tests.support.corpora import make_analysis, make_corpus

STEPS = 60


def make(corpora: list[tuple[float | None, Corpus]], flags: str, *folders: str) -> tuple[Sampler, Plan]:
    paths = " ".join(f"--difficulty-path {folder}" for folder in folders)
    config = make_config(f"--seq-length 16 --global-batch-size 24 --train-iters {STEPS} {flags} {paths}")
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency)
    return make_sampler(corpora, efficiency, plan), plan


def batches(sampler: Sampler, plan: Plan) -> list[np.ndarray]:
    return [draw_batch(sampler, plan.at(step))[1] for step in range(1, plan.steps + 1)]


def test_percentile_admits_the_easiest_share(tmp_path):
    corpus = make_corpus(199, 16)
    folder = make_analysis(corpus, tmp_path / "a")
    values = np.load(f"{folder}/vocab_rarity.npy")
    ranked = sorted(range(199), key=lambda i: (values[i], i))
    sampler, plan = make(
        [(None, corpus)],
        "--curriculum voc:difficulty=percentile,min=5,max=100,pacing=fixed_root,duration=40",
        folder,
    )
    for step, drawn in enumerate(batches(sampler, plan), 1):
        percent = min(int((step / 40) ** 0.5 * 95 + 5), 100)
        assert set(drawn) <= set(ranked[: 199 * percent // 100])
    seen = set(np.concatenate(batches(sampler, plan)).tolist())
    assert seen == set(range(199))


def test_published_percentile_cuts_in_equal_slices(tmp_path):
    corpus = make_corpus(199, 16)
    folder = make_analysis(corpus, tmp_path / "a")
    spec = "--curriculum voc:difficulty=percentile,pacing=fixed_discrete,values=50/100,until=10"
    ours, _ = make([(None, corpus)], spec, folder)
    published, _ = make([(None, corpus)], spec + " --reference-schedules", folder)
    assert ours.pools[0].chain.size.tolist() == [99, 100]
    assert published.pools[0].chain.size.tolist() == [50, 149]
    spec = "--curriculum voc:difficulty=percentile,pacing=fixed_discrete,values=10/50,until=10,max=100"
    shares, _ = make([(None, corpus)], spec + " --reference-schedules", folder)
    assert shares.pools[0].chain.size.tolist() == [10, 40], "shares of the maximum: 199 // 100 each"


def below_zero(step):
    return -50 if step < 5 else 60


def test_a_percentile_below_zero_admits_nothing(tmp_path, monkeypatch):
    """What a pacing of the user's own may give."""
    monkeypatch.setitem(sys.modules, "own_pacing", types.SimpleNamespace(below=below_zero))
    corpus = make_corpus(150, 16)
    folder = make_analysis(corpus, tmp_path / "a")
    spec = "--curriculum voc:difficulty=percentile,pacing=custom,max=100,function=own_pacing:below"
    with pytest.raises(UserError, match="admits no sample at step 1"):
        make([(None, corpus)], spec, folder)


def test_value_admits_up_to_the_cap(tmp_path):
    corpus = make_corpus(150, 16)
    folder = make_analysis(corpus, tmp_path / "a")
    values = np.load(f"{folder}/vocab_rarity.npy")
    low, high = int(values.min()), int(values.max()) - 1
    sampler, plan = make(
        [(None, corpus)], f"--curriculum vocab_rarity:min={low},max={high},duration=30", folder
    )
    for step, drawn in enumerate(batches(sampler, plan), 1):
        cap = min(int(step / 30 * (high - low) + low), high)
        assert values[drawn].max() <= cap
    assert sampler.pools[0].never == int((values > high).sum()) > 0
    assert "never admitted" in describe_passes(sampler, plan)[0]


def test_two_metrics_admit_their_intersection(tmp_path):
    corpus = make_corpus(300, 16)
    folder = make_analysis(corpus, tmp_path / "a", ("vocab_rarity", "distinct_tokens"))
    columns = {name: np.load(f"{folder}/{name}.npy") for name in ("vocab_rarity", "distinct_tokens")}
    ranks = {name: np.argsort(np.lexsort((np.arange(300), column))) for name, column in columns.items()}
    flags = "--curriculum voc:difficulty=percentile,min=40,max=100,duration=20 "
    flags += "--curriculum distinct_tokens:difficulty=percentile,min=50,max=100,duration=50"
    sampler, plan = make([(None, corpus)], flags, folder)
    for step, drawn in enumerate(batches(sampler, plan), 1):
        for name, low, duration in (("vocab_rarity", 40, 20), ("distinct_tokens", 50, 50)):
            percent = min(int(step / duration * (100 - low) + low), 100)
            assert (ranks[name][drawn] < 300 * percent // 100).all()
    entries = np.repeat(sampler.pools[0].entry, sampler.pools[0].chain.size)
    order = np.asarray(sampler.pools[0].order)
    assert list(zip(entries, order)) == sorted(zip(entries, order))


def test_an_empty_first_pool_names_the_smallest_minimum(tmp_path):
    corpus = make_corpus(30, 16)
    folder = make_analysis(corpus, tmp_path / "a")
    easiest = int(np.load(f"{folder}/vocab_rarity.npy").min())
    with pytest.raises(UserError, match="min 4 admits"):
        make([(None, corpus)], "--curriculum voc:difficulty=percentile,min=1,max=100,duration=40", folder)
    with pytest.raises(UserError, match=f"min {easiest} admits"):
        make([(None, corpus)], f"--curriculum voc:min={easiest - 3},max={easiest - 1},duration=40", folder)


def test_no_metric_draws_from_everything():
    sampler, plan = make([(None, make_corpus(96, 16))], "")
    drawn = np.concatenate(batches(sampler, plan)[:4])
    assert np.array_equal(np.sort(drawn), np.arange(96))


def test_blends_keep_weights_and_caps_act_inside(tmp_path):
    first, second = make_corpus(200, 16, seed=1, name="one"), make_corpus(400, 16, seed=2, name="two")
    folders = [make_analysis(corpus, tmp_path / corpus.name) for corpus in (first, second)]
    sampler, plan = make(
        [(3.0, first), (1.0, second)],
        "--curriculum voc:difficulty=percentile,min=10,max=100,duration=40",
        *folders,
    )
    taken = np.zeros(2)
    for step in range(1, plan.steps + 1):
        members, samples = draw_batch(sampler, plan.at(step))
        taken += np.bincount(members, minlength=2)
        assert np.abs(taken - step * 24 * np.array([0.75, 0.25])).max() < 2
        percent = min(int(step / 40 * 90 + 10), 100)
        for number, corpus in enumerate((first, second)):
            rank = np.argsort(np.load(f"{folders[number]}/vocab_rarity.order.npy"))
            assert (rank[samples[members == number]] < corpus.windows * percent // 100).all()


def test_batches_are_a_function_of_the_step_alone(tmp_path):
    corpus = make_corpus(100, 16)
    folder = make_analysis(corpus, tmp_path / "a")
    flags = "--curriculum voc:difficulty=percentile,min=10,max=100,duration=40"
    forwards = batches(*make([(None, corpus)], flags, folder))
    sampler, plan = make([(None, corpus)], flags, folder)
    for step in np.random.default_rng(1).permutation(np.arange(1, STEPS + 1)):
        assert np.array_equal(draw_batch(sampler, plan.at(int(step)))[1], forwards[step - 1])
    other, plan = make([(None, corpus)], flags + " --data-efficiency-seed 5", folder)
    assert not np.array_equal(draw_batch(other, plan.at(50))[1], forwards[49])


def test_passes_over_thousands_of_corpora_are_told_in_one_screen() -> None:
    corpus = make_corpus(8, 16)
    *lines, rest = describe_passes(*make([(None, corpus)] * 1000, ""))
    assert len(lines) == 20 and rest.startswith(f"980 more corpora: {980 * 8:,} samples, ")
