"""The table of words against the library that it takes its words from, on texts that neither has seen."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.config.tokenizer import TokenizerOptions
from megatron.data import word_table
from megatron.data.huggingface import is_bert
from megatron.data.token_engines import PROBE, Encode, first_difference
from megatron.data.tokenizer import build_tokenizer
from megatron.data.word_table import encode_words, word_table_engine
from tests.support.made_up_text import TEXTS, write_bert_vocabulary

ODD = "the[MASK]fox [SEP][mask] \x00a\x07b c\x7fd\x0be \u00a0f\u3000g a\u0301 \u0301x 中文x中\u0301 \ufffd ａ"
ALPHABET = st.sampled_from(
    [*"abtheTHE019 \t\n\r.,;[]#_-'\"()\x00\x0b\x1f\x7f", "é", "e\u0301", "中", "\u200b", "[PAD]"]
)


@pytest.fixture(scope="module", params=["BertWordPieceLowerCase", "BertWordPieceCase"])
def engines(request, tmp_path_factory) -> tuple[Encode, Encode]:
    path = write_bert_vocabulary(tmp_path_factory.mktemp("bert") / "vocab.txt")
    tokenizer = build_tokenizer(TokenizerOptions(request.param, vocab_file=path), "auto")
    assert tokenizer.engine == "a table of words" and tokenizer.encode_batch is not tokenizer.reference
    return tokenizer.encode_batch, tokenizer.reference


def test_places_in_a_text_of_over_2_gib_have_room():
    """A number of 32 bits ends there."""
    text = np.frombuffer(b"new words", np.uint8)
    _, _, starts, stops = word_table.find(text, np.array([len(text)]), *word_table.empty_table())
    assert (starts.tolist(), stops.tolist()) == ([0, 4], [3, 9])
    assert starts.dtype == stops.dtype == np.int64


def test_texts_of_all_kinds(engines):
    fast, reference = engines
    texts = [*TEXTS, *PROBE, ODD, "x" * 101, "a" * 100 + " " + "ab" * 99, *(ODD[n:] for n in range(len(ODD)))]
    for _ in range(2):  # words are new, then known
        assert first_difference(fast(texts), reference(texts)) is None
    assert [len(part) for part in fast([])] == [0, 0]


def test_every_code_point_between_letters(engines):
    fast, reference = engines
    points = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) != "Cs"]
    texts = [f"{one} a{one}b the{one} {one}fox" for one in points[::7]]
    assert first_difference(fast(texts), reference(texts)) is None


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.lists(ALPHABET, max_size=30).map("".join) | st.text(max_size=40), max_size=6))
def test_any_text(engines, texts):
    fast, reference = engines
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert first_difference(fast(texts), reference(texts)) is None


def test_a_full_table_is_emptied(engines, monkeypatch):
    """Every way in which it can be full; what follows is right, too."""
    _, reference = engines
    for limit, value in {"MOST_WORDS": 40, "KEY_BYTES": 200, "MOST_IDS": 60}.items():
        with monkeypatch.context() as patched:
            patched.setattr(word_table, limit, value)
            fast = word_table_engine(reference, [])
            for number in range(40):
                texts = [f"the fox{number} jumps {number}over lazy{number % 7} dogs", "the quick brown fox"]
                assert first_difference(fast(texts), reference(texts)) is None


def test_words_as_one_text(engines):
    _, reference = engines
    words = ["the", "x1", "unwanted", "a" * 101, "THE"]
    assert first_difference(encode_words(words, reference), reference(words)) is None
    assert first_difference(encode_words([], reference), reference([])) is None


def test_what_parts_words_may_have_no_token(tmp_path):
    """Then it is [UNK], as some words are."""
    path = Path(write_bert_vocabulary(tmp_path / "vocab.txt"))
    path.write_text(path.read_text(encoding="utf-8").replace("\n;\n", "\n"), encoding="utf-8")
    reference = build_tokenizer(TokenizerOptions("BertWordPieceLowerCase", vocab_file=str(path))).reference
    words = ["the", "9", "fox"]
    assert first_difference(encode_words(words, reference), reference(words)) is None
    assert 1 in reference(["9"])[0]


@pytest.mark.parametrize(
    "part, value",
    [
        ("normalizer", None),
        ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("clean_text", False),
    ],
)
def test_tokenizers_that_cut_otherwise_have_no_table(tmp_path, part, value):
    path = write_bert_vocabulary(tmp_path / "vocab.txt")
    build_tokenizer(TokenizerOptions("BertWordPieceCase", vocab_file=path))
    library = tokenizers.BertWordPieceTokenizer(path)._tokenizer
    assert is_bert(library)
    content = json.loads(library.to_str())
    (content if part in content else content["normalizer"])[part] = value
    assert not is_bert(tokenizers.Tokenizer.from_str(json.dumps(content)))


def test_texts_with_added_tokens_go_to_the_library(engines):
    _, reference = engines
    asked: list[list[str]] = []

    def spy(texts):
        asked.append(texts)
        return reference(texts)

    fast = word_table_engine(spy, ["[MASK]"])
    texts = ["the fox", "the [MASK] fox", "the fox"]
    assert first_difference(fast(texts), reference(texts)) is None
    assert ["the [MASK] fox"] in asked
    np.testing.assert_array_equal(fast(texts)[1], [2, 3, 2])
