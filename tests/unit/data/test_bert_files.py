"""BERT's tokenizers against transformers', and what is refused of their files."""

import json
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.bert_files import SPECIAL
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from tests.support.made_up_text import TEXTS, write_bert_vocabulary, write_tokenizer

LOWER, CASED = "BertWordPieceLowerCase", "BertWordPieceCase"
ODD = [
    "Café NAÏVE Größe ÑandÚ \u0130stanbul",
    "中文 and 日本語カナ한국어",
    "a\x00b\ufffdc \x07 \u200bzero\u00adsoft \t\r\n",
    "x" * 100 + " " + "x" * 101,
    "It [MASK] is [SEP]not[CLS] a [mask] [PAD][UNK]",
    "unwanted, running! don't (stop)",
    "",
]


@pytest.fixture
def vocabulary(tmp_path) -> str:
    return write_bert_vocabulary(tmp_path / "vocab.txt")


def rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids, lengths = tokenizer.encode_batch(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("engine", ["tokenizers", "auto"])
@pytest.mark.parametrize("kind", [LOWER, CASED])
@pytest.mark.parametrize("config", [{}, {"strip_accents": False}, {"tokenize_chinese_chars": False}])
def test_ids_and_texts_are_those_of_transformers(tmp_path, vocabulary, kind, config, engine):
    transformers = pytest.importorskip("transformers")
    lower = {"do_lower_case": kind == LOWER}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | lower))
    tokenizer = build_tokenizer(TokenizerOptions(kind, vocab_file=vocabulary), engine)
    theirs = transformers.BertTokenizerFast.from_pretrained(str(tmp_path))
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in [*TEXTS, *ODD]]
    assert rows(tokenizer, [*TEXTS, *ODD]) == expected
    assert tokenizer.decode(expected[-2]) == "unwanted, running! don ' t ( stop )"
    assert [tokenizer.decode(ids) for ids in expected[:3]] == [theirs.decode(ids) for ids in expected[:3]]
    assert (tokenizer.vocab_size, tokenizer.pad, tokenizer.end.name) == (len(theirs), 0, "[SEP]")
    settings = tokenizer.identity().get("settings", [])
    assert settings == [f"{name} {value}" for name, value in config.items()]


def test_the_mask_inside_a_text_is_the_token_as_in_the_library(vocabulary):
    tokenizer = build_tokenizer(TokenizerOptions(LOWER, vocab_file=vocabulary))
    assert rows(tokenizer, ["the [MASK] [mask]"])[0][1:3] == [4, tokenizer.vocabulary["["]]


def test_a_tokenizer_json_gives_the_same(tmp_path, vocabulary):
    transformers = pytest.importorskip("transformers")
    transformers.BertTokenizerFast.from_pretrained(str(tmp_path)).save_pretrained(tmp_path / "saved")
    whole = tmp_path / "saved" / "tokenizer.json"
    by_lines = rows(build_tokenizer(TokenizerOptions(LOWER, vocab_file=vocabulary)), [*TEXTS, *ODD])
    for options in (
        TokenizerOptions(LOWER, tokenizer_model=str(whole)),
        TokenizerOptions(LOWER, vocab_file=str(whole)),
        TokenizerOptions(LOWER, tokenizer_model=str(tmp_path / "saved")),
        TokenizerOptions(LOWER, tokenizer_model=str(tmp_path)),
        TokenizerOptions("HuggingFaceTokenizer", str(whole)),
    ):
        assert rows(build_tokenizer(options), [*TEXTS, *ODD]) == by_lines
    with pytest.raises(UserError, match=r"lowers the case of letters; give --tokenizer-type BertWordPieceLo"):
        build_tokenizer(TokenizerOptions(CASED, tokenizer_model=str(whole)))


@pytest.mark.parametrize(
    "content, message",
    [
        ("[UNK]\n[CLS]\n[SEP]\nthe\n", r"has no \[PAD\], \[MASK\], which BERT needs, among its 4 tokens"),
        ("[PAD]\n[UNK]\nthe\nfox\nthe\n", "line 5 repeats 'the' of line 3"),
        ("[PAD]\n\nthe\n", "line 2 is empty"),
        ("", "line 1 is empty"),
        (b"[PAD]\n\xff\xfe\n", "byte 7 is no UTF-8"),
        ('{"a": 1}', "is no tokenizer.json that HF tokenizers can read"),
    ],
)
def test_odd_vocabularies(tmp_path, content, message):
    path = tmp_path / "odd.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        build_tokenizer(TokenizerOptions(LOWER, vocab_file=str(path)))
    assert len(caught.value.problems) == 1 and "\n" not in caught.value.problems[0]


def test_files_of_other_kinds(tmp_path, vocabulary):
    bpe = write_tokenizer(tmp_path)
    with pytest.raises(UserError, match="is a BPE tokenizer, no WordPiece; give --tokenizer-type Hugg"):
        build_tokenizer(TokenizerOptions(LOWER, tokenizer_model=bpe))
    with pytest.raises(UserError, match="--vocab-file is missing: --tokenizer-type BertWordPieceCase needs"):
        build_tokenizer(TokenizerOptions(CASED))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds nothing; give a vocab\.txt, or a folder with"):
        build_tokenizer(TokenizerOptions(LOWER, vocab_file=str(tmp_path / "empty")))
    Path(tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(UserError, match=r"do_lower_case false, .* give --tokenizer-type BertWordPieceCase"):
        build_tokenizer(TokenizerOptions(LOWER, vocab_file=vocabulary))


def test_gigatoken_knows_no_wordpiece(vocabulary):
    with pytest.raises(UserError, match=r"gigatoken cannot do this tokenizer \(it knows no WordPiece\)"):
        build_tokenizer(TokenizerOptions(LOWER, vocab_file=vocabulary), "gigatoken")


def test_a_vocabulary_that_keeps_the_case_is_not_lowered(tmp_path, vocabulary):
    """Nothing beside it says so: its tokens do."""
    path = Path(vocabulary)
    capitals = "".join(f"{mark}{chr(code)}\n" for mark in ("", "##") for code in range(65, 91))
    path.write_text(path.read_text(encoding="utf-8") + capitals, encoding="utf-8-sig")
    with pytest.raises(UserError, match=r"upper-case letters, such as 'The', and .* BertWordPieceCase"):
        build_tokenizer(TokenizerOptions(LOWER, vocab_file=vocabulary))
    cased = build_tokenizer(TokenizerOptions(CASED, vocab_file=vocabulary))
    assert rows(cased, ["A"]) == [[cased.vocabulary["A"]]]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    lower = build_tokenizer(TokenizerOptions(LOWER, vocab_file=vocabulary))
    assert rows(lower, ["A"]) == [[lower.vocabulary["a"]]]


def test_a_vocabulary_without_upper_case_letters_is_not_of_cased_text(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *ascii_lowercase, "the", "##s"]) + "\n")
    options = TokenizerOptions(tokenizer_type="BertWordPieceCase", vocab_file=str(path))
    with pytest.raises(UserError, match=r"no token has an upper-case letter.* BertWordPieceLowerCase"):
        build_tokenizer(options)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    build_tokenizer(options)
    (tmp_path / "tokenizer_config.json").unlink()
    path.write_text("\n".join([*SPECIAL, *ascii_lowercase, "The", "##s"]) + "\n")
    build_tokenizer(options)
