"""vocab.json and merges.txt that are not of one tokenizer are refused with what differs."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from tests.support.made_up_text import TEXTS, write_tokenizer


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A vocabulary of 400 tokens (256 bytes, one special) and its 143 merges."""
    tokenizers.Tokenizer.from_file(write_tokenizer(tmp_path)).model.save(str(tmp_path))
    return tmp_path / "vocab.json", tmp_path / "merges.txt"


def build(files: tuple[Path, Path]) -> list[int]:
    vocab, merges = map(str, files)
    tokenizer = build_tokenizer(
        TokenizerOptions(tokenizer_type="GPT2BPETokenizer", vocab_file=vocab, merge_file=merges)
    )
    return tokenizer.encode_batch([TEXTS[0]])[0].tolist()


def refused(files: tuple[Path, Path], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(files)
    assert len(caught.value.problems) == 1


def test_files_of_one_tokenizer(files):
    library = tokenizers.Tokenizer.from_file(str(files[0].with_name("tokenizer.json")))
    assert build(files) == library.encode(TEXTS[0]).ids
    files[1].write_text("#version: 0.2\r\n" + files[1].read_text().split("\n", 1)[1].replace("\n", "\r\n"))
    assert build(files) == library.encode(TEXTS[0]).ids


@pytest.mark.parametrize("text", ["", "#version: 0.2\n"])
def test_no_merges(files, text):
    files[1].write_text(text)
    refused(files, "400 tokens and 0 merges, 143 tokens are made by no merge, such as .*; the merges are cut")


@pytest.mark.parametrize("text, said", [("", "it is empty"), (" \n", "it is empty"), ("<html>", "Expecting")])
def test_a_vocabulary_that_did_not_arrive(files, text, said):
    files[0].write_text(text)
    way = "name both files of one tokenizer by --vocab-file and --merge-file"
    refused(files, rf"of one BPE: the first is no JSON \({said}.*\); {way}$")


@pytest.mark.parametrize("kept, lost", [(40, 103), (142, 1)])
def test_cut_merges(files, kept, lost):
    lines = [line for line in files[1].read_text().splitlines() if not line.startswith("#version")]
    files[1].write_text("\n".join(lines[:kept]) + "\n")
    refused(files, f"400 tokens and {kept} merges, {lost} tokens are made by no merge")


def test_merges_cut_inside_a_line(files):
    lines = files[1].read_text().splitlines()
    files[1].write_text("\n".join([*lines[:50], lines[50].split(" ")[0]]))
    refused(files, "line 51 of the second, .*, is no pair of tokens")


@pytest.mark.parametrize("between", ["\n", "\r\n", " "])
def test_merges_across_white_space(between, tmp_path):
    """They are lost in a merges.txt, and kept in a tokenizer.json."""
    model = tokenizers.Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<|endoftext|>"], show_progress=False)
    texts = [between.join(["one", "line", "and", "the", "next", "", ""])] * 9
    model.train_from_iterator(texts, trainer)
    model.model.save(str(tmp_path))
    files = (tmp_path / "vocab.json", tmp_path / "merges.txt")
    refused(files, "tokens hold white space, such as .*, which a merges.txt cannot keep: save this")
    model.save(str(tmp_path / "tokenizer.json"))
    options = TokenizerOptions("HuggingFaceTokenizer", tokenizer_model=str(tmp_path / "tokenizer.json"))
    assert build_tokenizer(options).encode_batch(texts[:1])[0].tolist() == model.encode(texts[0]).ids


def test_merges_of_another_vocabulary(files):
    files[1].write_text("a z\n" + files[1].read_text().split("\n", 1)[1])
    refused(files, r"merge 1 \(a z\) needs 'az', which is no token")


def test_a_vocabulary_without_all_bytes(files):
    vocabulary = json.loads(files[0].read_text())
    del vocabulary["Ń"], vocabulary["ß"]
    files[0].write_text(json.dumps(vocabulary))
    refused(files, "2 of the 256 bytes are no token of it, such as 'ß'|needs 'Ń'")


def test_two_tokens_of_one_id(files):
    vocabulary = json.loads(files[0].read_text())
    files[0].write_text(json.dumps(vocabulary | {"<mask>": 5}))
    refused(files, "the first gives .* and '<mask>' the same id, 5, so that one text would be read as")
    files[0].write_text(json.dumps(vocabulary | {"<mask>": 400, "madeupword0000": 401}))
    assert build(files)  # tokens that only fill up a vocabulary are no text


def test_a_tokenizer_json_that_has_lost_its_merges(tmp_path):
    path = Path(write_tokenizer(tmp_path, 1000))
    content = json.loads(path.read_text())
    content["model"]["merges"] = []
    path.write_text(json.dumps(content))
    options = TokenizerOptions(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(path))
    size = len(content["model"]["vocab"])
    with pytest.raises(UserError, match=f"0 merges make only 257 of its {size:,} tokens"):
        build_tokenizer(options)
    content["model"]["ignore_merges"] = True
    path.write_text(json.dumps(content))
    assert build_tokenizer(options).vocab_size == size


def test_marks_of_words_are_not_lost_merges(tmp_path):
    """A merge joins `a` and `@@b` to `ab`, and `a</w>` is a letter."""
    for marks in ({"continuing_subword_prefix": "@@"}, {"end_of_word_suffix": "</w>"}):
        made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", **marks))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        flags = {"vocab_size": 300, "special_tokens": ["<unk>", "</s>"], "show_progress": False}
        made.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(**flags, **marks))
        made.save(str(tmp_path / "tokenizer.json"))
        options = TokenizerOptions("HuggingFaceTokenizer", tokenizer_model=str(tmp_path / "tokenizer.json"))
        assert build_tokenizer(options).vocab_size == made.get_vocab_size()


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([("~ing", 5)], "gives .* and '~ing' the same id, 5, so that one text would be read as the other"),
        ([("~ing", 300), ("~ed", 300)], "gives '~ing' and '~ed' the same id, 300"),
        ([("~ing", 310)], "the added token '~ing' the id 310, and HF tokenizers reads it as 300, behind"),
        ([("~ing", 300), ("~ed", 301)], ""),
    ],
)
def test_ids_of_a_tokenizer_json_are_those_that_are_used(tmp_path, added, message):
    path = Path(write_tokenizer(tmp_path, 300))
    content = json.loads(path.read_text())
    assert len(content["model"]["vocab"]) == 300
    kind = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] += [{"id": number, "content": token, **kind} for token, number in added]
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    options = TokenizerOptions("HuggingFaceTokenizer", tokenizer_model=str(path))
    if not message:
        assert build_tokenizer(options).vocabulary["~ed"] == 301
        return
    with pytest.raises(UserError, match=message):
        build_tokenizer(options)


def test_special_tokens_of_a_vocab_json_are_tokens_wherever_they_stand(files):
    vocabulary = json.loads(files[0].read_text())
    count = len(vocabulary)
    files[0].write_text(json.dumps(vocabulary | {"<|x|>": count, "[Y]": count + 1}))
    flags = {"vocab_file": str(files[0]), "merge_file": str(files[1])}
    tokenizer = build_tokenizer(TokenizerOptions(tokenizer_type="GPT2BPETokenizer", **flags))
    ids = tokenizer.encode_batch(["a<|x|>b[Y]"])[0]
    assert [one for one in ids if one >= count] == [count, count + 1]
    assert tokenizer.decode(list(ids)) == "a<|x|>b[Y]"


def test_the_vocabulary_of_a_clip(files):
    """It has all bytes, once more with a mark of the end of a word, and merges of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e</w>"), ("a", "n</w>"), ("o", "f</w>")]
    tokens = [*alphabet, *(f"{one}</w>" for one in alphabet), *map("".join, merges), "<|endoftext|>"]
    files[0].write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    files[1].write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    refused(
        files, r"mark the ends of words with </w>, as those of CLIP .*--tokenizer-type HuggingFaceTokenizer$"
    )
