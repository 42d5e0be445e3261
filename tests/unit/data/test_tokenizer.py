"""Tokenizers against the libraries that define them, and engines against one another."""

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions, unread_files
from megatron.data.token_engines import first_difference
from megatron.data.tokenizer import build_tokenizer, describe_around
from megatron.data.tokenizer_value import Tokenizer
from tests.support.made_up_text import TEXTS, write_sentencepiece, write_tokenizer

ENGINES = ["tokenizers", "gigatoken", "auto"]
RARE = ("Mn", "Mc", "Me", "Cc", "Cf", "Cn", "Co", "Cs", "Zs", "Zl", "Zp", "Lm", "Nl", "No")
"""Categories beyond ASCII on which engines may differ, so that preprocessing compares them."""
USUAL = st.text(
    st.characters(max_codepoint=127) | st.characters(max_codepoint=0xFFFF, exclude_categories=RARE),
    max_size=60,
)


def options(kind: str, **given: Any) -> TokenizerOptions:
    return TokenizerOptions(tokenizer_type=kind, **given)


def rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids, lengths = tokenizer.encode_batch(texts)
    assert lengths.sum() == len(ids) and len(lengths) == len(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


def size(tokenizer: Tokenizer, ids: list[int]) -> int:
    return int(tokenizer.text_sizes([np.array(ids, int)])[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tokenizer.json, the same BPE as vocab.json and merges.txt, and two SentencePiece models."""
    where = tmp_path_factory.mktemp("tokenizers")
    tokenizers.Tokenizer.from_file(write_tokenizer(where)).model.save(str(where))
    write_sentencepiece(where / "bpe.model")
    write_sentencepiece(where / "unigram.model", "unigram", 370)
    return where


@pytest.fixture
def changed(folder, tmp_path):
    """Writes the tokenizer.json with changes and gives options for it."""

    def write(**changes: Any) -> TokenizerOptions:
        content = json.loads((folder / "tokenizer.json").read_text()) | changes
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        return options("HuggingFaceTokenizer", tokenizer_model=str(tmp_path / "tokenizer.json"))

    return write


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["HuggingFaceTokenizer", "GPT2BPETokenizer"])
def test_byte_level_bpe(folder, kind, engine):
    files = (
        {"tokenizer_model": folder}
        if kind.startswith("H")
        else {"vocab_file": folder / "vocab.json", "merge_file": folder / "merges.txt"}
    )
    tokenizer = build_tokenizer(options(kind, **{name: str(path) for name, path in files.items()}), engine)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert rows(tokenizer, TEXTS) == [library.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert tokenizer.engine == ("tokenizers" if engine == "tokenizers" else "gigatoken")
    assert (tokenizer.vocab_size, tokenizer.eod, tokenizer.pad) == (400, 0, None)
    assert tokenizer.special_tokens == {"<|endoftext|>": 0}
    assert rows(tokenizer, ["a<|endoftext|>b"])[0][1] == 0
    for text, ids in zip(TEXTS, rows(tokenizer, TEXTS)):
        assert tokenizer.decode(ids) == text
        assert size(tokenizer, ids) == len(text.encode())


@pytest.mark.parametrize("engine", ENGINES[1:])
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(USUAL, min_size=1, max_size=6))
def test_engines_agree_on_usual_texts(folder, engine, texts):
    tokenizer = build_tokenizer(options("HuggingFaceTokenizer", tokenizer_model=str(folder)), engine)
    assert first_difference(tokenizer.encode_batch(texts), tokenizer.reference(texts)) is None


@pytest.mark.parametrize("special", [False, True])
def test_an_added_token_whose_letters_could_be_bytes_comes_back(folder, tmp_path, special):
    """`Ö` stands for byte 0xD6 in a byte-level vocabulary, and the library decodes `ilÖveyou` by bytes. An
    added token is plain text, so that every text comes back as it was."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    added = ["ilÖveyou", "naïve", "Ġx", "日本", "  "]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    mine = build_tokenizer(options("HuggingFaceTokenizer", tokenizer_model=str(tmp_path)))
    for text in ("", *added, "ilÖveyouilÖveyou", "a naïvenaïve ilÖveyou ü日本ï Ġx  b", "usual text, Ö"):
        (ids,) = rows(mine, [text])
        assert mine.decode(np.array(ids, int)) == text
        assert size(mine, ids) == len(text.encode())


@pytest.mark.parametrize("kind", ["ByteLevel", "Metaspace"])
def test_text_comes_back_where_the_file_has_no_decoder(folder, tmp_path, kind):
    """The library would put a space between pieces, and leave the marks of spaces as they are."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    if kind == "Metaspace":
        words = {"<|endoftext|>": 0, "▁a": 1, "▁": 2, "a": 3, "b": 4}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, [("▁", "a")]))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    content = json.loads(tokenizer.to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"decoder": None}))
    mine = build_tokenizer(options("HuggingFaceTokenizer", tokenizer_model=str(tmp_path)))
    assert mine.decode(rows(mine, ["a ab ba"])[0]) == "a ab ba"


def test_names_of_special_tokens_are_text_where_the_settings_say_so(changed):
    given = changed()
    beside = Path(given.tokenizer_model).with_name("tokenizer_config.json")
    plain, text = build_tokenizer(given, "auto"), "a <|endoftext|> b"
    assert plain.eod in rows(plain, [text])[0]
    beside.write_text('{"split_special_tokens": false}')
    assert build_tokenizer(given).identity() == plain.identity()
    beside.write_text('{"split_special_tokens": true}')
    split = build_tokenizer(given, "auto")
    assert plain.eod not in rows(split, [text])[0] and split.decode(rows(split, [text])[0]) == text
    assert split.identity() != plain.identity() and split.eod == plain.eod


OF_LLAMA = {
    "type": "BPE",
    "unk_token": "<unk>",
    "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "t": 4, "h": 5, "e": 6, "▁t": 7},
    "merges": [["▁", "t"]],
}


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("PreTrainedTokenizerFast", False),
        ("GPT2TokenizerFast", True),
        ("Qwen2Tokenizer", True),
        ("LlamaTokenizer", True),
        ("LlamaTokenizerFast", True),
        ("BloomTokenizerFast", False),
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_space_comes_before_texts_as_transformers_puts_it(changed, name, takes, wanted):
    """Classes with settings of their own take it from the tokenizer_config.json; others do not."""
    from transformers import AutoTokenizer

    cut: dict[str, Any] = BYTES | {"add_prefix_space": not wanted}
    if name == "Qwen2Tokenizer":
        split = SPLIT | {"pattern": {"Regex": " ?[a-z]+"}}
        given = changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, cut]})
    elif name == "LlamaTokenizer":
        cut = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never" if wanted else "first"}
        given = changed(pre_tokenizer=cut, model=OF_LLAMA, added_tokens=[], decoder=None)
    elif name == "LlamaTokenizerFast":  # as older files have it
        put = [] if wanted else [{"type": "Prepend", "prepend": "▁"}]
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        normalizer = {"type": "Sequence", "normalizers": [*put, spaces]}
        parts = {"pre_tokenizer": None, "normalizer": normalizer, "decoder": None}
        given = changed(**parts, model=OF_LLAMA, added_tokens=[])
    else:
        given = changed(pre_tokenizer=cut | {"use_regex": True})
    plain, folder = build_tokenizer(given), Path(given.tokenizer_model).parent
    words = json.dumps({"tokenizer_class": name, "add_prefix_space": wanted})
    (folder / "tokenizer_config.json").write_text(words)
    mine, theirs = build_tokenizer(given, "auto"), AutoTokenizer.from_pretrained(folder)
    assert rows(mine, ["the the"])[0] == theirs.encode("the the", add_special_tokens=False)
    assert (mine.identity() != plain.identity()) == takes == (rows(mine, ["the"]) != rows(plain, ["the"]))


def test_first_difference():
    one = np.array([1, 2, 3, 4]), np.array([2, 0, 1, 1])
    assert first_difference(one, (np.array([1, 2, 3, 4]), np.array([2, 0, 1, 1]))) is None
    assert first_difference(one, (np.array([1, 2, 7, 4]), np.array([2, 0, 1, 1]))) == 2
    assert first_difference(one, (np.array([1, 2, 3, 4]), np.array([2, 1, 0, 1]))) == 1
    assert first_difference(one, (np.array([1, 2, 3]), np.array([2, 0, 1, 0]))) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_cut_padded_or_added(folder, changed, engine):
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.enable_truncation(4)
    library.enable_padding(length=16)
    library.post_processor = tokenizers.processors.TemplateProcessing(
        "<|endoftext|> $0", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer = build_tokenizer(changed(**json.loads(library.to_str())), engine)
    plain = build_tokenizer(options("HuggingFaceTokenizer", tokenizer_model=str(folder)))
    assert rows(tokenizer, TEXTS) == rows(plain, TEXTS)


def test_tokens_that_a_file_puts_around_texts_are_told(folder, changed):
    """A template begins every text with a token, as Llama 3's does; the end is --append-eod's own affair."""
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.add_special_tokens(["<s>", "</s>"])
    named = [(name, library.token_to_id(name)) for name in ("<s>", "</s>")]
    told = {"<s> $0": "<s>", "<s> $0 </s>": "<s>", "$0 </s>": None, "<s> <s> $0": "<s>", "$0": None}
    for template, token in told.items():
        library.post_processor = tokenizers.processors.TemplateProcessing(template, special_tokens=named)
        given = dataclasses.replace(changed(**json.loads(library.to_str())), eod_token="</s>")
        said = describe_around(build_tokenizer(given))
        assert (
            said.startswith(f"note: tokenizer.json puts {token} around every text; ") if token else said == ""
        )
    plain = build_tokenizer(options("HuggingFaceTokenizer", tokenizer_model=str(folder)))
    assert describe_around(plain) == ""


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, False),
        ({"tokenizer_class": "XGLMTokenizer"}, False),
        ({"add_bos_token": True}, True),
    ],
)
def test_a_token_that_the_settings_of_a_sentencepiece_model_put_before_texts_is_told(tmp_path, config, told):
    """As a folder of LLaMA's has them; the weights have seen it."""
    model = write_sentencepiece(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"} | config))
    for kind, said in (("GPTSentencePieceTokenizer", told), ("Llama2Tokenizer", False)):
        tokenizer = build_tokenizer(options(kind, tokenizer_model=model))
        assert tokenizer.around == ("<s>",) * said
        assert ("puts <s> around every text" in describe_around(tokenizer)) == said


SPLIT = {"type": "Split", "pattern": {"Regex": "[a-z]+|[^a-z]+"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
ADDED = {
    "id": 400,
    "content": "fox",
    "single_word": True,
    "lstrip": True,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, BYTES]}},
        {"pre_tokenizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"added_tokens": [ADDED]},
    ],
    ids=["pattern", "no pre-tokenizer", "lower case", "word that strips"],
)
def test_the_reference_takes_what_gigatoken_cannot(changed, changes):
    given = changed(**changes)
    tokenizer = build_tokenizer(given, "auto")
    library = tokenizers.Tokenizer.from_file(given.tokenizer_model)
    assert tokenizer.engine == "tokenizers"
    assert rows(tokenizer, TEXTS) == [library.encode(text, add_special_tokens=False).ids for text in TEXTS]
    with pytest.raises(
        UserError,
        match=r"--tokenizer-engine gigatoken: gigatoken cannot do this tokenizer \(.*\); leave the flag out",
    ):
        build_tokenizer(given, "gigatoken")


def test_a_bpe_that_encodes_at_random_is_refused(folder, changed):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    with pytest.raises(UserError, match=r"tokenizer\.json: has a dropout of 0\.1, .*; write null there"):
        build_tokenizer(changed(model=model | {"dropout": 0.1}))
    for none in (None, 0.0):
        assert build_tokenizer(changed(model=model | {"dropout": none})).vocab_size == 400


@pytest.mark.parametrize("engine", ["tokenizers", "auto"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece(folder, kind, engine):
    path = str(folder / f"{kind}.model")
    tokenizer = build_tokenizer(options("SentencePieceTokenizer", tokenizer_model=path), engine)
    library = sentencepiece.SentencePieceProcessor(model_file=path)
    texts = [*TEXTS, "names in text: </s><s> <unk> <pad>", "</s>"]
    assert rows(tokenizer, texts) == library.encode(texts)
    assert tokenizer.engine == ("gigatoken" if (kind, engine) == ("bpe", "auto") else "tokenizers")
    assert (tokenizer.eod, tokenizer.pad, tokenizer.vocab_size) == (2, 3, library.vocab_size())
    assert tokenizer.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
    for text, ids in zip(TEXTS, rows(tokenizer, TEXTS)):
        assert tokenizer.decode(ids) == text
        assert size(tokenizer, ids) == len(text.encode())


def test_null_tokenizer():
    tokenizer = build_tokenizer(options("NullTokenizer", vocab_size=100), "auto")
    assert rows(tokenizer, ["1 22  99\n", "", "100"]) == [[1, 22, 99], [], [100]]
    assert (tokenizer.eod, tokenizer.vocab_size, tokenizer.pad) == (100, 101, None)
    assert tokenizer.decode(np.array([3, 100])) == "3 100"
    assert tokenizer.text_sizes([np.array([7, 42, 99]), np.array([], int)]).tolist() == [7, 0]
    assert tokenizer.identity() == {"type": "NullTokenizer", "sha256": [], "vocab_size": 101}
    for text, message in (
        ("1 two", "not 'two'"),
        ("101", "the id 101 is outside"),
        ("-1", "the id -1 is outside"),
        ("1.5", "not '1.5'; give such, or the --tokenizer-type of the text"),
        ("1 " + "9" * 25, "not '9999"),
    ):
        with pytest.raises(UserError, match=message):
            tokenizer.encode_batch([text])


@pytest.mark.parametrize("size", [None, 0, -3])
def test_null_tokenizer_needs_a_size(size):
    with pytest.raises(UserError, match="--vocab-size"):
        build_tokenizer(options("NullTokenizer", vocab_size=size))


def test_end_of_document(folder, changed):
    def eod(given: TokenizerOptions, token: str | None = None) -> int:
        return build_tokenizer(dataclasses.replace(given, eod_token=token)).eod

    special = [
        {**ADDED, "id": 400 + n, "content": name, "special": True}
        for n, name in enumerate(["</s>", "<end>", "<pad>"])
    ]
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"] + special
    given = changed(added_tokens=added)
    beside = Path(given.tokenizer_model).with_name("tokenizer_config.json")
    with pytest.raises(
        UserError, match=r"any of <\|endoftext\|> and </s> could end documents.*; choose with --eod-token"
    ):
        eod(given)
    assert eod(given, "</s>") == 400
    beside.write_text('{"eos_token": "<end>", "pad_token": {"content": "<pad>"}, "model_max_length": 8}')
    assert eod(given) == 401 and build_tokenizer(given).pad == 402
    assert eod(given, "<|endoftext|>") == 0
    with pytest.raises(UserError, match="--eod-token <none>: the tokenizer has no such token"):
        eod(given, "<none>")
    beside.write_text('{"eos_token": {"content": "</s>"}}')
    assert eod(given) == 400
    beside.write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: cannot be read"):
        eod(given)


def test_end_of_document_of_older_tokenizers(folder, changed):
    """Their special_tokens_map.json alone names it; a tokenizer_config.json that does so counts before it."""
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    given = changed(added_tokens=[*added, {**ADDED, "id": 400, "content": "<end>", "special": True}])
    config, older = (
        Path(given.tokenizer_model).with_name(f"{name}.json")
        for name in ("tokenizer_config", "special_tokens_map")
    )
    older.write_text('{"eos_token": {"content": "<end>"}, "pad_token": "<none>"}')
    end = build_tokenizer(given).end
    assert (end.id, end.reason) == (400, "named by special_tokens_map.json")
    config.write_text('{"eos_token": "<|endoftext|>"}')
    assert build_tokenizer(given).end.id == 0
    config.unlink()
    for text, expected in (("{}", 0), ('{"eos_token": "<none>"}', 0), ('{"eos_token": null}', 0)):
        older.write_text(text)
        assert build_tokenizer(given).end.id == expected
    older.write_text("[")
    with pytest.raises(UserError, match=r"special_tokens_map\.json: cannot be read"):
        build_tokenizer(given)


@pytest.mark.parametrize("kind", ["HuggingFaceTokenizer", "GPT2BPETokenizer", "SentencePieceTokenizer"])
def test_any_token_can_end_documents(folder, kind):
    files = {"tokenizer_model": folder / "bpe.model"} if kind.startswith("S") else {"tokenizer_model": folder}
    if kind == "GPT2BPETokenizer":
        files = {"vocab_file": folder / "vocab.json", "merge_file": folder / "merges.txt"}
    tokenizer = build_tokenizer(
        options(kind, eod_token="x", **{name: str(path) for name, path in files.items()}), "auto"
    )
    assert tokenizer.special_tokens["x"] == tokenizer.eod
    assert (
        first_difference(tokenizer.encode_batch(["a x b", "xx"]), tokenizer.reference(["a x b", "xx"]))
        is None
    )


def test_no_end_of_document(folder, changed):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = {
        ("other" if token == "<|endoftext|>" else token): number
        for token, number in content["model"]["vocab"].items()
    }
    with pytest.raises(
        UserError,
        match=r"none of the usual end-of-document tokens \(.*\); name it with --eod-token, or, if it has "
        "none, train it again with one of these among its special tokens",
    ):
        build_tokenizer(changed(added_tokens=[], model=content["model"] | {"vocab": vocabulary}))


def test_identity_follows_the_files(folder, changed):
    one = build_tokenizer(options("HuggingFaceTokenizer", tokenizer_model=str(folder)), "auto").identity()
    same = build_tokenizer(
        options("HuggingFaceTokenizer", tokenizer_model=str(folder / "tokenizer.json"))
    ).identity()
    built = build_tokenizer(changed())
    other = built.identity()
    Path(built.files["tokenizer_model"]).write_text("{}")  # what it was built from counts
    assert built.identity() == other
    assert one == same != other and one["vocab_size"] == other["vocab_size"] == 400


MISTAKES = [
    (
        "HuggingFaceTokenizer",
        {},
        "--tokenizer-model is missing: --tokenizer-type HuggingFaceTokenizer needs it",
    ),
    (
        "HuggingFaceTokenizer",
        {"tokenizer_model": "org/name"},
        "--tokenizer-model org/name: does not exist; it must be a local path",
    ),
    ("HuggingFaceTokenizer", {"tokenizer_model": "gpt2"}, "never fetched from a hub"),
    (
        "HuggingFaceTokenizer",
        {"tokenizer_model": "empty"},
        r"empty/tokenizer\.json: is no file; the folder holds nothing",
    ),
    (
        "HuggingFaceTokenizer",
        {"tokenizer_model": "wrong"},
        "wrong: is no tokenizer.json that HF tokenizers can read",
    ),
    ("GPT2BPETokenizer", {"vocab_file": "wrong"}, "--merge-file is missing"),
    ("GPT2BPETokenizer", {}, "--vocab-file is missing(.|\n)*--merge-file is missing"),
    (
        "GPT2BPETokenizer",
        {"vocab_file": "wrong", "merge_file": "wrong"},
        r"are no vocab\.json and merges\.txt",
    ),
    ("SentencePieceTokenizer", {"tokenizer_model": "wrong"}, "wrong: is no SentencePiece model"),
    ("SentencePieceTokenizer", {"tokenizer_model": "empty"}, "empty: is no file; give the file itself"),
    ("TikTokenizer", {}, "--tokenizer-model is missing: --tokenizer-type TikTokenizer needs it"),
    ("TikTokenizer", {"tokenizer_model": "wrong"}, "--tiktoken-pattern is missing: it is one of v1 and v2"),
    (
        "TikTokenizer",
        {"tokenizer_model": "wrong", "tiktoken_pattern": "v2"},
        "wrong: is no whole list of tiktoken's tokens",
    ),
    ("NullTokenizer", {"eod_token": "x", "vocab_size": 9}, "--eod-token x: that of NullTokenizer is <eod>"),
    ("BertTokenizer", {}, "--tokenizer-type BertTokenizer: choose one of BertWordPieceLowerCase"),
]


@pytest.mark.parametrize(
    "kind, given, message",
    [
        ("HuggingFaceTokenizer", {"tokenizer_model": "a"}, None),
        (
            "HuggingFaceTokenizer",
            {"tokenizer_model": "a", "merge_file": "m"},
            "--merge-file m: HuggingFaceTokenizer does not read it; leave it out, or give another "
            "--tokenizer-type",
        ),
        (
            "HuggingFaceTokenizer",
            {"vocab_file": "t"},
            "--vocab-file t: HuggingFaceTokenizer does not read it; give its file by --tokenizer-model, or "
            "another --tokenizer-type",
        ),
        (
            "GPT2BPETokenizer",
            {"tokenizer_model": "t"},
            "--tokenizer-model t: GPT2BPETokenizer does not read it; give its files by --vocab-file and "
            "--merge-file, or another --tokenizer-type",
        ),
        (
            "NullTokenizer",
            {"vocab_file": "v"},
            "--vocab-file v: NullTokenizer does not read it; leave it out, or give another --tokenizer-type",
        ),
        (
            "BertWordPieceCase",
            {"tokenizer_model": "a", "vocab_file": "v"},
            "--vocab-file v and --tokenizer-model a: BertWordPieceCase reads one of them; leave the other "
            "out",
        ),
    ],
)
def test_files_that_are_given_and_not_read_are_told(kind, given, message):
    assert unread_files(options(kind, **given)) == ([message] if message else [])


@pytest.mark.parametrize("kind, given, message", MISTAKES)
def test_mistakes_are_told_without_the_network(tmp_path, monkeypatch, kind, given, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a tokenizer asked for the network"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").write_text("{}")
    for engine in ENGINES:
        with pytest.raises(UserError, match=message):
            build_tokenizer(options(kind, **given), engine)


@pytest.mark.parametrize("engine", ENGINES[::2])
@pytest.mark.parametrize(
    "kind, name, is_token",
    [
        ("HuggingFaceTokenizer", "<|endoftext|>", True),
        ("GPT2BPETokenizer", "<|endoftext|>", True),
        ("SentencePieceTokenizer", "</s>", False),
        ("Llama2Tokenizer", "</s>", False),
    ],
)
def test_the_name_of_the_end_inside_a_text(folder, kind, name, is_token, engine):
    """As docs/data.md says."""
    model = folder / ("bpe.model" if name == "</s>" else "tokenizer.json")
    files = {
        "tokenizer_model": model,
        "vocab_file": folder / "vocab.json",
        "merge_file": folder / "merges.txt",
    }
    read = ("vocab_file", "merge_file") if kind == "GPT2BPETokenizer" else ("tokenizer_model",)
    files = {flag: path for flag, path in files.items() if flag in read}
    tokenizer = build_tokenizer(options(kind, **{flag: str(path) for flag, path in files.items()}), engine)
    assert tokenizer.end.name == name
    (ids,) = rows(tokenizer, [f"a {name} b"])
    assert (tokenizer.eod in ids) == is_token
    assert tokenizer.decode(ids) == f"a {name} b" and size(tokenizer, ids) == len(f"a {name} b")
