"""Samples of sentences against the rule written out, one sentence after another."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data import sentences
from megatron.data.sentences import Joining, Runs, _target, find_runs, locate


def by_hand(
    lengths: np.ndarray, documents: np.ndarray, joining: Joining, keys: np.ndarray
) -> list[list[int]]:
    """First sentence, end and target of every sample."""
    found = []
    for key in keys:
        for begin, end in pairwise(documents):
            if end - begin < joining.minimum:
                continue
            first, total = begin, 0
            target = _target(key, first, joining.target, joining.short)
            for sentence in range(begin, end):
                total += lengths[sentence]
                left = end - sentence - 1
                full = total >= target and left > 1 and sentence - first + 1 >= joining.minimum
                if full or left == 0:
                    found.append([first, sentence + 1, target])
                    first, total = sentence + 1, 0
                    target = _target(key, first, joining.target, joining.short)
    return found


def runs_of(sizes: list[int], lengths: np.ndarray, first: int = 0, workers: int = 2, **more: Any) -> Runs:
    documents = first + np.cumsum([0, *sizes])
    joining = Joining(
        **({"target": 20, "short": 0.3, "minimum": 2, "passes": 2, "seed": 7, "pair": "sop"} | more)
    )
    return find_runs(lengths, documents, joining, workers)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_samples_are_those_of_the_rule(data: st.DataObject) -> None:
    """Of documents of any size, empty ones too, wherever they lie among the sentences, in chunks of any
    size."""
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=40))
    first = data.draw(st.integers(0, 5))
    lengths = np.array(
        data.draw(st.lists(st.integers(0, 30), min_size=first + sum(sizes), max_size=first + sum(sizes))),
        np.int32,
    )
    minimum, passes = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "CHUNK", data.draw(st.integers(1, 50)))
        runs = runs_of(sizes, lengths, first, minimum=minimum, passes=passes)
    wanted = by_hand(lengths, runs.documents, runs.joining, runs.keys)
    assert runs.samples == len(wanted)
    assert runs.skipped == sum(size < minimum for size in sizes)
    found = locate(runs, np.arange(runs.samples))
    assert found[:, :3].tolist() == wanted
    for (begin, _, _), (low, high) in zip(wanted, found[:, 3:].tolist()):
        assert (
            low <= begin < high
            and [low, high] in np.stack([runs.documents[:-1], runs.documents[1:]], 1).tolist()
        )


def test_every_sentence_is_in_one_sample_of_a_pass() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 40, 50_000).astype(np.int32)
    sizes = [50] * 1000
    runs = runs_of(sizes, lengths, target=125, short=0.1, passes=3)
    found = locate(runs, np.arange(runs.samples))
    passes = np.split(found, np.flatnonzero(np.diff(found[:, 0]) < 0) + 1)
    assert len(passes) == 3
    for one in passes:
        assert one[0, 0] == 0 and one[-1, 1] == len(lengths) and (one[1:, 0] == one[:-1, 1]).all()
    assert len({part[:, :3].tobytes() for part in passes}) == 3, "targets are drawn anew in every pass"
    short = found[:, 2] < 125
    spread = (0.1 * 0.9 / len(found)) ** 0.5
    assert abs(short.mean() - 0.1 * 123 / 124) < 4 * spread, "one of the lengths drawn is the full one"
    assert found[short, 2].min() >= 2 and abs(found[short, 2].mean() - 63) < 4 * 36 / short.sum() ** 0.5


def test_one_document_of_many_sentences_is_found_from_its_marks() -> None:
    lengths = np.full(300_000, 3, np.int32)
    runs = runs_of([300_000], lengths, target=9, short=0.0, passes=1)
    assert runs.samples == 100_000
    assert locate(runs, np.array([77_777]))[0, :2].tolist() == [233_331, 233_334]
