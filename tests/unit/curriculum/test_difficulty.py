"""Metrics against their definitions in plain Python, and analyses that are the same bytes for any number
of threads."""

import dataclasses
import math
import sys
import types
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.curriculum import analysis
from megatron.curriculum.analysis import analyze, choose_metrics
from megatron.curriculum.analysis_folder import find_analysis, load_column, open_analyses
from megatron.curriculum.difficulty import METRICS, sort_by_difficulty, token_costs
from megatron.data.corpora import mock_corpus
from tests.support.configurations import make_config
from tests.support.corpora import make_analysis, make_corpus


def test_rarity_and_frequency_by_the_definition(tmp_path):
    corpus = make_corpus(37, 16, vocab_size=50)
    folder = make_analysis(corpus, tmp_path / "a", ("vocab_rarity", "distinct_tokens"), vocab_size=60)
    samples = [corpus.tokens[i * 16 : i * 16 + 17].tolist() for i in range(37)]
    counted = Counter(token for sample in samples for token in sample)
    frequency = [counted[token] for token in range(60)]
    assert np.load(tmp_path / "a" / "token_frequency.npy").tolist() == frequency
    total = sum(max(count, 1) for count in frequency)
    cost = [-math.log(max(count, 1) / total) for count in frequency]
    exact = [math.fsum(cost[token] for token in sample) for sample in samples]
    assert all(abs(value - round(value)) > 1e-6 for value in exact)
    values = np.load(f"{folder}/vocab_rarity.npy")
    assert values.tolist() == [int(value) for value in exact]
    assert np.load(f"{folder}/distinct_tokens.npy").tolist() == [len(set(sample)) for sample in samples]
    assert np.load(f"{folder}/vocab_rarity.order.npy").tolist() == sorted(
        range(37), key=lambda i: (values[i], i)
    )


def test_costs_are_exact_to_their_unit():
    frequency = np.array([0, 1, 5, 1000, 10**12])
    total = 1 + 1 + 5 + 1000 + 10**12
    for cost, count in zip(token_costs(frequency), (1, 1, 5, 1000, 10**12)):
        # half a unit of rounding, and the relative rounding of the logarithm, 28 at most, in double precision
        assert abs(int(cost) - -math.log(count / total) * 2**40) <= 0.5 + 28 * 2**-52 * 2**40


def test_threads_and_chunks_change_no_byte(tmp_path, monkeypatch):
    corpus = make_corpus(200, 16)
    metrics = ("vocab_rarity", "distinct_tokens")
    make_analysis(corpus, tmp_path / "one", metrics)
    monkeypatch.setattr(analysis, "CHUNK_TOKENS", 100)
    make_analysis(corpus, tmp_path / "many", metrics, workers=4)
    for file in sorted(path.name for path in (tmp_path / "one").iterdir()):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes(), file


def fifth_token(tokens, statistics):
    return tokens[5 : len(tokens) - 1 : statistics.seq_length].astype(np.int64)


def test_a_metric_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_metrics", types.SimpleNamespace(fifth=fifth_token))
    corpus = make_corpus(20, 16)
    make_analysis(corpus, tmp_path / "a", ("own_metrics:fifth",))
    assert np.load(tmp_path / "a" / "fifth.npy").tolist() == corpus.tokens[5 : 20 * 16 : 16].tolist()


@pytest.mark.parametrize(
    "values, said",
    [
        (lambda tokens, statistics: np.zeros(1, np.int64), r"gave int64 \(1,\) for 20 samples"),
        (lambda tokens, statistics: np.ones(20), r"gave float64 \(20,\) for 20 samples"),
        (lambda tokens, statistics: None, "gave object"),
        (lambda tokens: tokens, r"the metric mine must take \(tokens, context\) and give one .*TypeError"),
        (lambda tokens, statistics: np.full(20, 1 << 63, np.uint64), "gave 9223372036854775808; a diffic"),
        (lambda tokens, statistics: [][len(tokens)], "the metric mine failed in .*test_difficulty.py, line"),
        (3, "is a function, and 'own_metrics:mine' is int"),
    ],
)
def test_what_a_metric_of_the_users_own_may_not_give(tmp_path, monkeypatch, values, said):
    monkeypatch.setitem(sys.modules, "own_metrics", types.SimpleNamespace(mine=values))
    with pytest.raises(UserError, match=said):
        make_analysis(make_corpus(20, 16), tmp_path / "a", ("own_metrics:mine",))
    assert not list(tmp_path.iterdir())


def test_other_names_of_a_metric_are_read():
    assert list(choose_metrics(("voc", "vocabulary_rarity", "distinct_tokens"))) == [
        "vocab_rarity",
        "distinct_tokens",
    ]


@pytest.mark.parametrize("name", ["voc", "seqlen_truncate", "token_frequency"])
def test_a_metric_of_the_users_own_has_a_name_that_means_nothing_else(name):
    with pytest.raises(UserError, match=f"{name} means another thing; rename the function"):
        choose_metrics((f"own_metrics:{name}",))


def test_two_metrics_of_one_name_are_refused():
    for names in (("my.metrics:vocab_rarity",), ("a:mine", "b:mine")):
        with pytest.raises(UserError, match="would name two metrics"):
            choose_metrics(names)


def test_unknown_metrics_are_refused():
    with pytest.raises(UserError, match=r"colour.*vocab_rarity"):
        choose_metrics(("vocab_rarity", "colour"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5) | st.integers(-(10**12), 10**12), min_size=1, max_size=50))
def test_sorting_is_by_value_then_id(values):
    wanted = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert sort_by_difficulty(np.array(values, np.int64)).tolist() == wanted


def test_ids_outside_the_vocabulary_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="outside the vocabulary of 20"):
        make_analysis(make_corpus(20, 16, vocab_size=50), tmp_path / "a", vocab_size=20)
    assert list(tmp_path.iterdir()) == []


def test_ids_below_zero_are_refused(tmp_path):
    """As datasets of pictures and texts have for a picture."""
    corpus = make_corpus(20, 16)
    tokens = np.array(corpus.tokens, np.int32)
    tokens[37] = -200
    with pytest.raises(UserError, match="holds the token id -200, outside the vocabulary of 50"):
        make_analysis(dataclasses.replace(corpus, tokens=tokens), tmp_path / "a", vocab_size=50)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match="other files"):
        make_analysis(make_corpus(20, 16), tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_analysis_of_other_data_is_refused_with_the_difference(tmp_path):
    corpus = make_corpus(20, 16)
    path = make_analysis(corpus, tmp_path / "a")
    assert str(find_analysis(open_analyses((path,)), corpus, "vocab_rarity")) == path
    with pytest.raises(UserError, match="seq_length 16 against 8"):
        find_analysis(open_analyses((path,)), make_corpus(20, 8), "vocab_rarity")
    with pytest.raises(UserError, match=r"with this run's data, split and length$"):
        find_analysis(open_analyses((path,)), make_corpus(20, 8), "vocab_rarity")
    pairs = dataclasses.replace(corpus, joined="nsp texts, seed 1, 0.1 short")
    with pytest.raises(UserError, match=r"windows against nsp .* and flags of samples \(--bert-pair, "):
        find_analysis(open_analyses((path,)), pairs, "vocab_rarity")
    with pytest.raises(UserError, match="fingerprint corpus-0 against corpus-1"):
        find_analysis(open_analyses((path,)), make_corpus(20, 16, seed=1), "vocab_rarity")
    with pytest.raises(UserError, match="lacks the metric distinct_tokens"):
        find_analysis(open_analyses((path,)), corpus, "distinct_tokens")
    with pytest.raises(UserError, match="holds no analysis"):
        find_analysis(open_analyses((str(tmp_path),)), corpus, "vocab_rarity")
    with pytest.raises(UserError, match=f"a word of its own: {path} {tmp_path}/b; or in a YAML file"):
        open_analyses((f"{path},{tmp_path}/b",))
    with pytest.raises(UserError, match="--difficulty-path"):
        find_analysis(open_analyses(()), corpus, "vocab_rarity")


def test_made_up_tokens_are_not_sent_to_an_analysis_that_cannot_read_them(tmp_path):
    corpus = mock_corpus(make_config("--seq-length 16 --mock-data --vocab-size 40"), "train")
    others = make_analysis(make_corpus(20, 16), tmp_path)
    for paths in ((), (others,)):
        with pytest.raises(UserError) as caught:
            find_analysis(open_analyses(paths), corpus, "vocab_rarity")
        assert str(caught.value) == (
            "the curriculum orders by vocab_rarity, and tools/analyze_data.py cannot read the made-up tokens "
            "of --mock-data; give files, or leave vocab_rarity out of the curriculum"
        )


def test_an_unknown_metric_is_told_with_those_that_are_known(tmp_path):
    corpus = make_corpus(20, 16)
    analyses = open_analyses((make_analysis(corpus, tmp_path / "a"),))
    for some in (analyses, open_analyses(())):
        with pytest.raises(UserError) as caught:
            find_analysis(some, corpus, "vocab_rartiy")
        assert str(caught.value) == (
            "unknown metric vocab_rartiy; did you mean vocab_rarity? known: distinct_tokens, "
            "seqlen, seqlen_reshape, seqlen_truncate, seqlen_vocab_rarity, vocab_rarity; or give "
            "--difficulty-path FOLDER with an analysis that holds one of that name"
        )


def test_an_older_version_of_a_metric_is_refused(tmp_path, monkeypatch):
    corpus = make_corpus(20, 16)
    analyses = open_analyses((make_analysis(corpus, tmp_path / "a"),))
    monkeypatch.setitem(METRICS, "vocab_rarity", METRICS["vocab_rarity"]._replace(version=2))
    with pytest.raises(UserError, match="has version 1 of the metric vocab_rarity, and this is version 2"):
        find_analysis(analyses, corpus, "vocab_rarity")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_columns_are_refused_or_read(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    np.save(folder / "m.npy", np.arange(10))
    content = bytearray((folder / "m.npy").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "m.npy").write_bytes(content)
    try:
        assert load_column(folder, "m", 10).shape == (10,)
    except UserError as error:
        assert "m.npy" in str(error)


def test_analyze_replaces_an_older_analysis(tmp_path):
    corpus = make_corpus(20, 16)
    make_analysis(corpus, tmp_path / "a", ("distinct_tokens",))
    manifest = analyze(corpus, "train", choose_metrics(("vocab_rarity",)), 50, tmp_path / "a", 1)
    assert list(manifest["metrics"]) == ["vocab_rarity"]
    assert not (tmp_path / "a" / "distinct_tokens.npy").exists()


def test_the_manifest_tells_how_difficulty_is_spread(tmp_path):
    """The value at a share of the samples is that of the sample at this rank; 100 % is the hardest."""
    corpus = make_corpus(37, 16)
    entry = analyze(corpus, "train", choose_metrics(("vocab_rarity",)), 50, tmp_path / "a", 1)["metrics"]
    values = sorted(np.load(tmp_path / "a" / "vocab_rarity.npy").tolist())
    told = entry["vocab_rarity"]["percentiles"]
    assert list(told) == [*range(0, 101, 5)]
    assert (told[0], told[25], told[50], told[95], told[100]) == tuple(values[i] for i in (0, 9, 18, 35, 36))
    assert entry["vocab_rarity"]["mean"] == pytest.approx(sum(values) / 37, rel=1e-12)
    assert len(set(told.values())) > 10
