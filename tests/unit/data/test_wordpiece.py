"""The tokens that a masked language model needs, of every kind of tokenizer that has them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.corpora import Corpus, mock_corpus
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_files import flags_of_tokenizer
from megatron.data.wordpiece import bert_tokens
from tests.support.configurations import make_config
from tests.support.corpora import make_corpus
from tests.support.made_up_text import write_bert_vocabulary, write_sentencepiece, write_tokenizer

NONE = TokenizerOptions()


def bert(folder: Path, **given: Any) -> TokenizerOptions:
    path = write_bert_vocabulary(folder / "vocab.txt")
    return TokenizerOptions("BertWordPieceLowerCase", vocab_file=path, **given)


def made_by(options: TokenizerOptions) -> Corpus:
    """A corpus whose .json names this tokenizer."""
    tokenizer = build_tokenizer(options)
    sidecar = {
        "tokenizer": tokenizer.identity(),
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "eod_token": tokenizer.end.name,
        "tokenizer_flags": flags_of_tokenizer(tokenizer, options),
    }
    return dataclasses.replace(make_corpus(4, 8), sidecar=sidecar)


def test_the_flags_or_the_data_name_the_tokenizer(tmp_path):
    options = bert(tmp_path)
    words = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for found in (bert_tokens(options, []), bert_tokens(NONE, [made_by(options)])):
        assert found[:4] == tuple(map(words.index, ("[CLS]", "[SEP]", "[MASK]", "[PAD]"))) == (2, 3, 4, 0)
        assert found.continues.dtype == bool
        assert found.continues.tolist() == [word.startswith("##") for word in words]


def byte_level(folder: Path, special: list[str]) -> TokenizerOptions:
    words = [*"abcĠ", "Ġa", "Ġab", "bc"]
    merges = [("Ġ", "a"), ("Ġa", "b"), ("b", "c")]
    tokenizer = tokenizers.Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    return TokenizerOptions("HuggingFaceTokenizer", str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    "special", [["<s>", "<pad>", "</s>", "<mask>"], ["[CLS]", "[PAD]", "[SEP]", "[MASK]", "<|endoftext|>"]]
)
def test_byte_level_pieces_without_a_space_continue_a_word(tmp_path, special):
    found = bert_tokens(byte_level(tmp_path, special), [])
    assert found[:4] == (7, 9, 10, 8)
    assert found.continues.tolist() == [True, True, True, False, False, False, True] + [False] * len(special)


def test_the_configuration_beside_names_them(tmp_path):
    options = byte_level(tmp_path, ["<begin>", "</s>", "[MASK]", "<hide>", "[PAD]"])
    with pytest.raises(UserError, match=r"has no token \[CLS\] or <cls> or <s>, which BERT needs"):
        bert_tokens(options, [])
    config = {"cls_token": "<begin>", "mask_token": {"content": "<hide>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert bert_tokens(options, [])[:4] == (7, 8, 10, 11)


def test_sentencepiece_marks_where_a_word_begins(tmp_path):
    path = write_sentencepiece(
        tmp_path / "a.model", user_defined_symbols=["<mask>"], control_symbols=["<cls>"]
    )
    options = TokenizerOptions("SentencePieceTokenizer", path)
    tokenizer, found = build_tokenizer(options), bert_tokens(options, [])
    assert found[:4] == tuple(map(tokenizer.vocabulary.__getitem__, ("<cls>", "</s>", "<mask>", "<pad>")))
    pieces = sorted(tokenizer.vocabulary, key=tokenizer.vocabulary.__getitem__)
    assert not found.continues[list(tokenizer.special_tokens.values())].any()
    plain = [n for n, piece in enumerate(pieces) if piece not in tokenizer.special_tokens and n != found.mask]
    assert found.continues[plain].tolist() == [not pieces[n].startswith("▁") for n in plain]


def test_made_up_data_has_its_last_ids():
    config = make_config("--mock-data --vocab-size 60")
    found = bert_tokens(config.tokenizer, [mock_corpus(config, "train")])
    assert found[:4] == (56, 57, 58, 59) and not found.continues.any() and len(found.continues) == 60
    with pytest.raises(UserError, match="--vocab-size 4 must be at least 5 for BERT"):
        bert_tokens(TokenizerOptions(vocab_size=4), [mock_corpus(config, "train")])


@pytest.mark.parametrize(
    "options", [TokenizerOptions(vocab_size=50), TokenizerOptions("NullTokenizer", vocab_size=50)]
)
def test_numbers_have_no_such_tokens(options):
    with pytest.raises(UserError, match=r"BERT needs to know \[CLS\].*name a tokenizer by --tokenizer-type"):
        bert_tokens(options, [make_corpus(4, 8)])


def test_a_tokenizer_of_gpt_has_none(tmp_path):
    options = TokenizerOptions("HuggingFaceTokenizer", write_tokenizer(tmp_path))
    with pytest.raises(UserError, match=r"tokenizer\.json: has no token .*\[MASK\] or <mask>.*which BERT"):
        bert_tokens(options, [])


def test_a_vocabulary_that_has_changed_is_told(tmp_path):
    corpus = made_by(bert(tmp_path))
    write_bert_vocabulary(tmp_path / "vocab.txt", "[PAD] [UNK] [CLS] [SEP] [MASK]")
    with pytest.raises(UserError, match=r"vocab\.txt is no longer the one that made the data"):
        bert_tokens(NONE, [corpus])
    np.testing.assert_array_equal(bert_tokens(bert(tmp_path), [])[:4], (2, 3, 4, 0))


def test_tokens_that_mark_no_words_are_told(tmp_path):
    """A BPE within words, whose tokens are alike at a word's start and inside it; and one of words alone."""
    words = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "</s>", "a", "b", "ab"]
    for model, known in (
        (models.BPE({word: n for n, word in enumerate(words)}, [("a", "b")]), False),
        (models.WordLevel({word: n for n, word in enumerate(words)}, "a"), True),
    ):
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(words[:5])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        options = TokenizerOptions("HuggingFaceTokenizer", str(tmp_path / "tokenizer.json"))
        found = bert_tokens(options, [])
        assert found.words_known == known and not found.continues.any() and len(found.continues) == 8
