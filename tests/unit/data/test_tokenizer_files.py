"""The tokenizer that stays with a run: kept once, whole or not at all, used where the original is gone."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_files import flags_of_tokenizer, keep_tokenizer, kept_tokenizer, options_of
from megatron.data.vocabulary import Vocabulary
from tests.support.made_up_text import TEXTS, write_sentencepiece, write_tokenizer


def vocabulary_of(options: TokenizerOptions) -> Vocabulary:
    """As a checkpoint's index gives it back."""
    tokenizer = build_tokenizer(options)
    return Vocabulary(tokenizer.vocab_size, tokenizer.eod, json.loads(json.dumps(tokenizer.identity())))


def written(folder: Path, kind: str) -> TokenizerOptions:
    folder.mkdir(exist_ok=True)
    if kind == "NullTokenizer":
        return TokenizerOptions(tokenizer_type=kind, vocab_size=50)
    if kind == "HuggingFaceTokenizer":
        write_tokenizer(folder)
        return TokenizerOptions(tokenizer_type=kind, tokenizer_model=str(folder))
    if kind == "Llama2Tokenizer":
        path = write_sentencepiece(folder / "a.model")
        return TokenizerOptions(tokenizer_type=kind, tokenizer_model=path)
    import tokenizers

    tokenizers.Tokenizer.from_file(write_tokenizer(folder)).model.save(str(folder))
    vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    return TokenizerOptions(tokenizer_type=kind, vocab_file=vocab, merge_file=merges)


def encoded(options: TokenizerOptions, texts: list[str]) -> list[int]:
    return build_tokenizer(options).encode_batch(texts)[0].tolist()


@pytest.mark.parametrize(
    "kind", ["HuggingFaceTokenizer", "GPT2BPETokenizer", "Llama2Tokenizer", "NullTokenizer"]
)
def test_kept_and_used_without_the_original(tmp_path, kind):
    options, run = written(tmp_path / "original", kind), tmp_path / "run"
    vocabulary = vocabulary_of(options)
    texts = ["1 2 3"] if kind == "NullTokenizer" else TEXTS
    ids = encoded(options, texts)
    assert keep_tokenizer(str(run), options, [], vocabulary) == []
    (tmp_path / "original").rename(tmp_path / "gone")
    run.rename(tmp_path / "moved")
    kept = kept_tokenizer(tmp_path / "moved", vocabulary)
    assert kept and encoded(kept, texts) == ids and vocabulary_of(kept) == vocabulary
    assert kept_tokenizer(tmp_path, vocabulary) is None


def test_the_choice_of_what_ends_documents_is_kept(tmp_path):
    options = dataclasses.replace(written(tmp_path / "t", "HuggingFaceTokenizer"), eod_token="x")
    vocabulary = vocabulary_of(options)
    keep_tokenizer(str(tmp_path), options, [], vocabulary)
    kept = kept_tokenizer(tmp_path, vocabulary)
    assert kept and build_tokenizer(kept).eod == vocabulary.eod != 0


def test_settings_beside_the_tokenizer_are_kept(tmp_path):
    options = written(tmp_path / "t", "HuggingFaceTokenizer")
    (tmp_path / "t" / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    vocabulary = vocabulary_of(options)
    keep_tokenizer(str(tmp_path), options, [], vocabulary)
    (folder,) = (tmp_path / "tokenizer").iterdir()
    assert sorted(os.listdir(folder)) == ["flags.json", "tokenizer.json", "tokenizer_config.json"]


def test_it_is_written_once(tmp_path):
    options = written(tmp_path / "t", "HuggingFaceTokenizer")
    vocabulary = vocabulary_of(options)
    (tmp_path / "run" / "tokenizer" / ".0123456789abcdef.00.partial").mkdir(parents=True)
    keep_tokenizer(str(tmp_path / "run"), options, [], vocabulary)
    (folder,) = (one for one in (tmp_path / "run" / "tokenizer").iterdir() if one.name[0] != ".")
    before = folder.stat().st_mtime_ns
    assert keep_tokenizer(str(tmp_path / "run"), options, [], vocabulary) == []
    assert folder.stat().st_mtime_ns == before


def test_two_tokenizers_of_one_folder(tmp_path):
    one, other = written(tmp_path / "a", "HuggingFaceTokenizer"), written(tmp_path / "b", "Llama2Tokenizer")
    for options in (one, other):
        keep_tokenizer(str(tmp_path), options, [], vocabulary_of(options))
    for options in (one, other):
        kept = kept_tokenizer(tmp_path, vocabulary_of(options))
        assert kept and kept.tokenizer_type == options.tokenizer_type


def test_the_data_says_where_its_tokenizer_is(tmp_path):
    options = written(tmp_path / "t", "HuggingFaceTokenizer")
    vocabulary, tokenizer = vocabulary_of(options), build_tokenizer(options)
    flags: dict[str, Any] = flags_of_tokenizer(tokenizer, options)
    assert flags == {
        "tokenizer_type": "HuggingFaceTokenizer",
        "tokenizer_model": str(tmp_path / "t" / "tokenizer.json"),
        "eod_token": "<|endoftext|>",
    }
    assert encoded(options_of(flags), TEXTS) == encoded(options, TEXTS)
    nothing = TokenizerOptions()
    assert keep_tokenizer(str(tmp_path / "old"), nothing, [{}], vocabulary) == []
    assert kept_tokenizer(tmp_path / "old", vocabulary) is None
    assert keep_tokenizer(str(tmp_path / "new"), nothing, [{}, {"tokenizer_flags": flags}], vocabulary) == []
    assert kept_tokenizer(tmp_path / "new", vocabulary)


def test_a_tokenizer_that_has_changed_or_gone_is_told(tmp_path):
    options = written(tmp_path / "t", "HuggingFaceTokenizer")
    vocabulary, path = vocabulary_of(options), tmp_path / "t" / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    (note,) = keep_tokenizer(str(tmp_path), options, [], vocabulary)
    assert "tokenizer.json is no longer the one that made the data" in note
    path.unlink()
    (note,) = keep_tokenizer(str(tmp_path), options, [], vocabulary)
    assert "is not kept with the run" in note and "tokenizer.json: is no file" in note
    assert not (tmp_path / "tokenizer").exists()


def test_damaged_copies_are_refused(tmp_path):
    options = written(tmp_path / "t", "HuggingFaceTokenizer")
    vocabulary = vocabulary_of(options)
    keep_tokenizer(str(tmp_path), options, [], vocabulary)
    (folder,) = (tmp_path / "tokenizer").iterdir()
    with open(folder / "tokenizer.json", "a") as file:
        file.write(" ")
    with pytest.raises(UserError, match=r"is damaged \(tokenizer\.json is not the file that was written\)"):
        kept_tokenizer(tmp_path, vocabulary)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"is damaged \(.*No such file"):
        kept_tokenizer(tmp_path, vocabulary)
    (folder / "flags.json").write_text("[")
    with pytest.raises(UserError, match="is damaged"):
        kept_tokenizer(tmp_path, vocabulary)
