"""Rows of pairs, against the sentences that they are made of."""

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.bert import SentencesConfig
from megatron.data.corpora import Source, open_source
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.pairs import SentenceCorpus, joining_of, open_sentences
from megatron.data.wordpiece import BertTokens
from tests.support.sentences import sentence_source

CLS, SEP, MASK, PAD = 1, 2, 3, 0
MARKS = BertTokens(CLS, SEP, MASK, PAD, np.zeros(100_000, bool))
LENGTH = 48


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Documents whose tokens count up from 10 over the whole dataset."""
    return sentence_source(tmp_path_factory.mktemp("data") / "text_sentence", documents=400)


def corpus_of(
    source: Source, share: tuple[float, float] = (0.0, 1.0), length: int = LENGTH, **flags: object
) -> SentenceCorpus:
    joining = joining_of(SentencesConfig(**flags), length, 5)  # type: ignore[arg-type]
    corpus = open_sentences(source, share, joining, "train")
    assert corpus is not None
    return SentenceCorpus(**(vars(corpus) | {"marks": MARKS}))


def texts(row: np.ndarray, length: int) -> list[np.ndarray]:
    """What stands between the marks of a row."""
    assert row[0] == CLS and row[length - 1] == SEP and (row[length:] == PAD).all()
    ends = np.flatnonzero(row[:length] == SEP)
    return (
        np.split(row[1 : length - 1], ends[:-1] - 1)
        if len(ends) == 1
        else [row[1 : ends[0]], row[ends[0] + 1 : ends[1]]]
    )


def test_a_pair_is_two_halves_of_a_run_of_sentences_in_either_order(source: Source) -> None:
    corpus = corpus_of(source)
    spans = corpus.spans(np.arange(corpus.windows))
    lengths, rows = corpus.lengths(spans), corpus.rows(spans, LENGTH)
    assert lengths.max() == LENGTH and lengths.min() >= 5
    documents = source.dataset.document_indices
    starts = source.dataset.sequence_pointers // 2 + 10
    for row, length, span in zip(rows, lengths, spans):
        first, second = texts(row, length)
        assert (np.diff(first) == 1).all() and (np.diff(second) == 1).all(), "every text is a run of tokens"
        low, high = (second, first) if span[4] else (first, second)
        assert low[-1] < high[0]
        sentence = np.searchsorted(starts, [low[0], high[-1]], side="right") - 1
        assert len(set(np.searchsorted(documents, sentence, side="right"))) == 1, "of one document"
        if length < LENGTH and span[1] + span[3] < LENGTH - 3 and low[-1] + 1 == high[0]:
            assert high[0] in starts, "cut between two sentences"
    swapped = spans[:, 4].mean()
    assert abs(swapped - 0.5) < 4 * 0.5 / len(spans) ** 0.5


def test_longer_texts_lose_tokens_at_either_end(source: Source) -> None:
    corpus = corpus_of(source, short_seq_prob=1.0)
    spans = corpus.spans(np.arange(corpus.windows))
    cut = corpus.lengths(spans) - 3 < 30
    assert cut.any() and (np.abs(spans[:, 1] - spans[:, 3])[cut] <= 40).all()
    whole = corpus_of(source)
    assert (whole.spans(np.array([5, 3])) == whole.spans(np.arange(6))[[5, 3]]).all(), (
        "a sample is itself anywhere"
    )


def test_second_texts_of_other_documents(source: Source) -> None:
    corpus = corpus_of(source, bert_pair="nsp")
    spans = corpus.spans(np.arange(corpus.windows))
    documents, starts = source.dataset.document_indices, source.dataset.sequence_pointers // 2
    of = [
        np.searchsorted(documents, np.searchsorted(starts, spans[:, column], side="right") - 1, side="right")
        for column in (0, 2)
    ]
    other = of[0] != of[1]
    assert (other == (spans[:, 4] == 1)).all()
    assert abs(other.mean() - 0.5) < 4 * 0.5 / len(spans) ** 0.5
    assert (corpus.lengths(spans) <= LENGTH).all()
    assert len(set(of[1][other])) > 100, "from everywhere"


def test_single_texts_have_one_mark_behind_them(source: Source) -> None:
    corpus = corpus_of(source, bert_no_binary_head=True)
    spans = corpus.spans(np.arange(200))
    rows = corpus.rows(spans, LENGTH)
    for row, length in zip(rows, corpus.lengths(spans)):
        assert (row[:length] == SEP).sum() == 1 and row[length - 1] == SEP
    assert corpus.lengths(spans).max() == LENGTH


@pytest.mark.parametrize(("length", "single"), [(3, True), (4, True), (5, False), (6, False)])
def test_the_shortest_rows_hold_their_samples(source: Source, length: int, single: bool) -> None:
    corpus = corpus_of(source, length=length, bert_no_binary_head=single, short_seq_prob=1.0)
    lengths = corpus.lengths(corpus.spans(np.arange(corpus.windows)))
    assert lengths.max() == length and lengths.min() >= (3 if single else 5)


def test_splits_are_shares_of_documents_and_say_what_they_are(source: Source) -> None:
    first, second = corpus_of(source, (0.0, 0.25)), corpus_of(source, (0.25, 1.0))
    assert first.sequences[1] == second.sequences[0] == source.dataset.document_indices[100]
    assert first.joined == "sop texts, seed 5, 0.1 short, 1 pass"
    assert "sentences of 100 documents" in first.describe()
    assert (
        second.spans(np.arange(second.windows))[:, 0]
        >= source.dataset.sequence_pointers[first.sequences[1]] // 2
    ).all()


def test_documents_of_one_sentence_are_no_pairs(tmp_path) -> None:
    source = sentence_source(tmp_path / "text_document", documents=9, most=1)
    with pytest.raises(
        UserError, match="none of the 9 of 9 documents in its train split has 2 sentences; preprocess"
    ):
        corpus_of(source)
    split = source._replace(sidecar={"sentences": "by rules"})
    with pytest.raises(
        UserError, match=r"2 sentences; use more data .*, or --bert-no-binary-head, for which"
    ):
        corpus_of(split)
    split = source._replace(sidecar={"sentences": {"language": "english"}})
    with pytest.raises(UserError, match="2 sentences; preprocess the text with its own --lang if"):
        corpus_of(split)
    assert corpus_of(source, bert_no_binary_head=True).windows == 9
    one = sentence_source(tmp_path / "one_sentence", documents=1)
    with IndexedDatasetBuilder(tmp_path / "one_text", np.uint16) as builder:
        builder.add_document(np.arange(10, 16), [3, 3])
        builder.end_document()
    for alone in (one, open_source(str(tmp_path / "one_text"), False)):
        with pytest.raises(UserError, match="has one document with text, and --bert-pair nsp takes second"):
            corpus_of(alone, bert_pair="nsp")
