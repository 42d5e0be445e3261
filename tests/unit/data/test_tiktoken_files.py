"""TikTokenizer against megatron-core's, and files that are cut."""

import base64
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tiktoken
import tokenizers
from tiktoken.load import load_tiktoken_bpe
from tokenizers import pre_tokenizers

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from tests.support.made_up_text import TEXTS, write_tokenizer

TOKENS = 256 + 143
SPECIAL = 10
TRICKY = [*TEXTS, "iPhone's HTTPServer 12345 <s></s> <unk>", "a\n\n  b/c\r\n\r\n", "ÉCOLE école ǅungla"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> list[bytes]:
    """256 bytes, and what 143 merges make of them."""
    library = tokenizers.Tokenizer.from_file(write_tokenizer(tmp_path_factory.mktemp("tiktoken")))
    merges = json.loads(library.to_str())["model"]["merges"]
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {chr(byte): byte for byte in order}
    names |= {chr(256 + n): byte for n, byte in enumerate(sorted(set(range(256)) - set(order)))}
    assert names.keys() == set(pre_tokenizers.ByteLevel.alphabet())
    return [*(bytes([n]) for n in range(256)), *(bytes(names[c] for c in "".join(pair)) for pair in merges)]


@pytest.fixture
def path(tokens, tmp_path) -> Path:
    entries = [
        {"rank": n, "token_bytes": base64.b64encode(one).decode(), "token_str": None}
        for n, one in enumerate(tokens)
    ]
    (tmp_path / "vocab.json").write_text(json.dumps(entries))
    return tmp_path / "vocab.json"


def build(path: Path, engine: str = "auto", **changes: Any) -> Tokenizer:
    settings = {
        "tiktoken_pattern": "v2",
        "tiktoken_num_special_tokens": SPECIAL,
        "vocab_size": TOKENS + SPECIAL,
    }
    options = TokenizerOptions(
        tokenizer_type="TikTokenizer", tokenizer_model=str(path), **{**settings, **changes}
    )
    return build_tokenizer(options, engine)


def rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids, lengths = tokenizer.encode_batch(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("pattern", ["v1", "v2"])
@pytest.mark.parametrize("size", [TOKENS + SPECIAL, 350])
def test_ids_are_those_of_megatron(path, pattern, size):
    oracle = pytest.importorskip("megatron.core.tokenizers.text.libraries.tiktoken_tokenizer")
    theirs = oracle.TikTokenTokenizer(
        str(path), num_special_tokens=SPECIAL, pattern=pattern, vocab_size=size
    ).tokenizer
    mine = build(path, tiktoken_pattern=pattern, vocab_size=size)
    assert rows(mine, TRICKY) == [theirs.encode_ordinary(text) for text in TRICKY]
    assert mine.vocab_size == size == theirs.n_vocab and mine.engine == "tiktoken"
    assert (mine.eod, mine.special_tokens["<unk>"], mine.special_tokens["<SPECIAL_9>"]) == (2, 0, 9)
    for text, ids in zip(TRICKY, rows(mine, TRICKY)):
        assert mine.decode(ids) == text
        assert mine.text_sizes([np.array(ids, int)]).tolist() == [len(text.encode())]


@pytest.mark.parametrize("pattern", ["v1", "v2"])
def test_a_million_spaces_are_tokens_like_any_others(path, tokens, pattern, monkeypatch):
    """tiktoken's regex engine gives up there. Two spaces are merged first, which leaves none for three, and
    four are no token."""
    mine = build(path, tiktoken_pattern=pattern)
    assert [token for token in tokens if not token.strip(b" ")] == [b" ", b"  ", b"   "]
    two, count = tokens.index(b"  ") + SPECIAL, 1_000_000
    assert rows(mine, [" " * count, "a"]) == [[two] * (count // 2), [ord("a") + SPECIAL]]
    wanted = rows(mine, TRICKY)
    given_up = Mock(side_effect=ValueError("Error executing regex: Max stack size exceeded"))
    monkeypatch.setattr(tiktoken.Encoding, "encode", given_up)
    assert rows(mine, TRICKY) == wanted and given_up.called


def test_patterns_differ(path):
    """Only the second cuts a word before a capital."""
    entries = json.loads(path.read_text())
    entries.append({"rank": TOKENS, "token_bytes": base64.b64encode(b"eS").decode(), "token_str": "eS"})
    path.write_text(json.dumps(entries))
    first, second = (
        build(path, tiktoken_pattern=pattern, vocab_size=TOKENS + SPECIAL + 1) for pattern in ("v1", "v2")
    )
    e, s = ord("e") + SPECIAL, ord("S") + SPECIAL
    assert (rows(first, ["eS"]), rows(second, ["eS"])) == ([[TOKENS + SPECIAL]], [[e, s]])


def test_a_tiktoken_file_is_the_same(path, tokens, tmp_path):
    lines = tmp_path / "a.tiktoken"
    lines.write_text("".join(f"{base64.b64encode(one).decode()} {n}\n" for n, one in enumerate(tokens)))
    assert rows(build(lines), TRICKY) == rows(build(path), TRICKY)
    assert list(load_tiktoken_bpe(str(lines))) == tokens
    expected = rows(build(path), TRICKY)
    for one in (lines, path):
        one.write_text(one.read_text(), encoding="utf-8-sig")  # as some editors save it
        assert rows(build(one), TRICKY) == expected


def test_special_tokens(path):
    named = ("<unk>", "<s>", "</s>", "<pad>")
    tokenizer = build(path, tiktoken_special_tokens=named)
    assert (tokenizer.pad, tokenizer.special_tokens["<SPECIAL_4>"]) == (3, 4)
    assert tokenizer.identity() != build(path).identity()
    assert build(path, eod_token="<s>").eod == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tiktoken_pattern": None}, "--tiktoken-pattern is missing"),
        ({"vocab_size": None}, r"holds 399 tokens.* vocabulary of 131,072 with 10 .* --vocab-size is 409"),
        ({"vocab_size": 410}, "ones needs 400; the file is cut"),
        ({"tiktoken_special_tokens": ("<unk>", "<s>")}, "needs </s> too"),
        ({"tiktoken_special_tokens": ("<unk>", "<s>", "</s>", "</s>")}, "names a token twice"),
        ({"tiktoken_num_special_tokens": 409}, "must be at least the 3 that are named and below .* 409"),
        ({"engine": "gigatoken"}, "gigatoken cannot do this tokenizer"),
    ],
)
def test_mistakes_in_flags(path, changes, message):
    with pytest.raises(UserError, match=message):
        build(path, **changes)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda entries: entries[:300], "holds 300 tokens, and a vocabulary of 409"),
        (lambda entries: entries[1:], "entry 0 has the rank 1"),
        (
            lambda entries: entries[:-1] + [entries[-1] | {"token_bytes": "YQ=="}],
            "1 of its 399 tokens are there twice",
        ),
        (
            lambda entries: [entries[0] | {"token_bytes": "enp6eg=="}, *entries[1:]],
            "1 of the 256 bytes are not",
        ),
        (lambda entries: [{"rank": 0}], "no whole list .*token_bytes"),
    ],
)
def test_damaged_files(path, damage, message):
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        build(path)


def test_a_file_cut_anywhere(path, tokens, tmp_path):
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="is no whole list of tiktoken's tokens"):
        build(path)
    lines = tmp_path / "a.tiktoken"
    lines.write_text("".join(f"{base64.b64encode(one).decode()} {n}\n" for n, one in enumerate(tokens))[:-6])
    with pytest.raises(UserError, match=r"line 399, .*, is no token and rank|is no whole list"):
        build(lines)
