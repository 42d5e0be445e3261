"""The tools around a dataset: train a tokenizer, merge, inspect, gather a corpus; and the whole chain as a
user types it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from megatron.base.errors import UserError
from megatron.data.index_builder import IndexedDatasetBuilder
from megatron.data.indexed_dataset import HEADER, IndexedDataset, read_sidecar
from megatron.preprocess import bpe_training
from megatron.preprocess.preprocess import preprocess
from tests.support.made_up_text import TEXTS, make_options, many_texts, write_lines, write_sentencepiece
from tools import analyze_data, collect_corpus, inspect_data, merge_datasets, train_tokenizer

ROOT = Path(__file__).parents[3]


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a tool's main with arguments and gives what it printed."""

    def run(tool, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return run


def command(*words: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


# train_tokenizer


@pytest.mark.parametrize("vocab_size", [257, 300, 420, 510, 519, 540, 5000])
def test_a_trained_tokenizer_is_that_of_hfs_trainer(tmp_path, call, vocab_size):
    texts = [*TEXTS, *many_texts(40)]
    path = write_lines(tmp_path / "a.jsonl", texts)
    printed = call(
        train_tokenizer, "--input", path, "--vocab-size", vocab_size, "--output", tmp_path / "t.json"
    )
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    assert json.loads((tmp_path / "t.json").read_text()) == json.loads(library.to_str())
    assert ("was not reached" in printed) == (
        library.get_vocab_size() < vocab_size
    ) and f"{library.get_vocab_size():,} tokens from" in printed


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text("ab é\n中", max_size=40), min_size=1, max_size=12),
    vocab_size=st.integers(257, 300),
)
def test_training_small_texts_as_hf_does(texts, vocab_size):
    content = bpe_training.BETWEEN_DOCUMENTS.join(text.encode() for text in texts)
    ours, theirs = (
        bpe_training.train(content, vocab_size, ("<a>",)),
        bpe_training.train_by_huggingface(content, vocab_size, ("<a>",)),
    )
    assert ours.to_str() == theirs.to_str()


def test_a_tokenizer_is_replaced_only_where_asked(tmp_path, call):
    words = ["--input", write_lines(tmp_path / "a.jsonl", TEXTS), "--output", tmp_path / "t.json"]
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UserError, match=r"t\.json: is there already"):
        call(train_tokenizer, *words, "--vocab-size", 300)
    assert (tmp_path / "t.json").read_text() == "{}"
    call(train_tokenizer, *words, "--vocab-size", 300, "--overwrite")
    assert len(json.loads((tmp_path / "t.json").read_text())["model"]["vocab"]) == 300


@pytest.mark.parametrize("folder", ["new/", "old"])
def test_a_tokenizer_in_a_folder(tmp_path, call, folder):
    (tmp_path / "old").mkdir()
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    call(train_tokenizer, "--input", path, "--vocab-size", 300, "--output", f"{tmp_path}/{folder}")
    assert os.listdir(tmp_path / folder) == ["tokenizer.json"]
    with pytest.raises(UserError, match=r"tokenizer\.json: is there already"):
        call(train_tokenizer, "--input", path, "--vocab-size", 300, "--output", f"{tmp_path}/{folder}")


def test_no_token_is_learned_from_the_letters_of_a_special_token(tmp_path, call):
    """A text's special tokens stand apart in training as they do in encoding, the longest one at a place."""
    special = ["<sep>", "<sep>2", "ZZ"]
    words = [f"AB{i % 7}CD" for i in range(60)]
    texts = ["<sep>".join(words), "<sep>2".join(words), "ZZ".join(words)]
    arguments = ["--vocab-size", 290, "--special-tokens", *special, "--json-keys", "text"]
    learned = []
    for name, lines in (("whole", texts), ("apart", [words[i] for i in range(60)] * 3)):
        path, out = write_lines(tmp_path / f"{name}.jsonl", lines), tmp_path / f"{name}.json"
        call(train_tokenizer, "--input", path, "--output", out, *arguments)
        learned.append(json.loads(out.read_text()))
    assert learned[0]["model"] == learned[1]["model"]
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "whole.json"))
    assert [library.encode(f"a{one}b").ids[1:-1] for one in special] == [[0], [1], [2]]


def test_special_tokens_come_first(tmp_path, call):
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    call(
        train_tokenizer,
        "--input",
        path,
        "--vocab-size",
        300,
        "--output",
        tmp_path / "t.json",
        "--special-tokens",
        "<a>",
        "<b>",
    )
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    assert library.encode("<b>x<a>").ids[::2] == [1, 0] and library.get_vocab_size() == 300
    assert [token.content for token in library.get_added_tokens_decoder().values()] == ["<a>", "<b>"]


def test_training_reads_no_more_than_it_is_told(tmp_path, call, monkeypatch):
    monkeypatch.setattr(train_tokenizer, "cut_into_pieces", lambda files: _cut(files, 100))
    path = write_lines(tmp_path / "a.jsonl", ["aa" * 50] * 5 + ["bb" * 50] * 50)
    call(
        train_tokenizer,
        "--input",
        path,
        "--vocab-size",
        260,
        "--output",
        tmp_path / "t.json",
        "--max-bytes",
        400,
    )
    vocabulary = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json")).get_vocab()
    assert "aa" in vocabulary and "bb" not in vocabulary


def test_text_that_was_not_read_is_told(tmp_path, monkeypatch, capsys):
    path = write_lines(tmp_path / "a.jsonl", ["aa" * 50] * 50)
    monkeypatch.setattr(train_tokenizer, "cut_into_pieces", lambda files: _cut(files, 100))
    for most, told in ((400, True), (5000, False), (10_000, False)):
        options = train_tokenizer.Options(input=(path,), output="t.json", max_bytes=most)
        train_tokenizer.read_text(options, [path])
        said = "note: the first 0.0 MB of text were read, as --max-bytes 400 says, and the rest of"
        assert (said in capsys.readouterr().err) == told


def test_what_is_not_read_may_be_damaged(tmp_path, capsys):
    path, damaged = write_lines(tmp_path / "a.jsonl", ["aa" * 50] * 50), tmp_path / "b.jsonl.gz"
    damaged.write_bytes(b"\x1f\x8b" + bytes(9))
    files = [path, str(damaged)]
    options = train_tokenizer.Options(input=tuple(files), output="t.json", max_bytes=5000)
    assert train_tokenizer.read_text(options, files).count(b"aa" * 50) == 50
    assert "the first 0.0 MB of text were read" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"b\.jsonl\.gz"):
        train_tokenizer.read_text(dataclasses.replace(options, max_bytes=6000), files)


_cut = train_tokenizer.cut_into_pieces


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--vocab-size", 256], "--vocab-size 256 must be at least 257, for 256 bytes and 1 special tokens"),
        (["--min_frequency", 5], "--min_frequency 5 is refused: give a smaller --vocab-size"),
        (["--character-coverage", 1], "--character-coverage 1 is refused: .*; leave it out"),
        (["--limit-alphabet", 9], "--limit-alphabet is of --model wordpiece: a BPE of bytes has all letters"),
        (["--json-keys", "title"], r"line 1: has no key 'title'; its keys are text"),
        (["--json-keys", "text,text"], r"its keys are text; give each as a word of its own: text text"),
        (["--output", "/proc/none/t.json"], "cannot write to the folder /proc/none"),
        (
            ["--vocab-size", "1e12"],
            "--vocab-size 1000000000000 must be at most 16777216",
        ),
        (["--special-tokens", "a", "a"], "--special-tokens a a: a token is given twice"),
        (
            ["--special-tokens", "<a>,<b>"],
            r"--special-tokens <a>,<b>: give each as a word of its own: <a> <b>",
        ),
        (["--max-bytes", "-1"], "--max-bytes -1 must be at least 1"),
        (["--json-keys"], "--json-keys needs a value"),
        (["--output", ""], "--output is given an empty text"),
        (["--output", "no/", "--model", "bpe", "--cased"], "--cased is of --model wordpiece"),
    ],
)
def test_training_mistakes(tmp_path, call, arguments, message):
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    output = [] if "--output" in arguments else ["--output", tmp_path / "t.json"]
    with pytest.raises(UserError, match=message):
        call(train_tokenizer, "--input", path, *output, *arguments)
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_bad_lines_are_left_out_as_in_preprocessing(tmp_path, call):
    texts = many_texts(40)
    fine = write_lines(tmp_path / "fine.jsonl", texts)
    path = write_lines(tmp_path / "a.jsonl", [*texts[:9], {"n": 1}, *texts[9:], {"text": None}])
    flags = ["--input", path, "--vocab-size", 300, "--output", tmp_path / "t.json"]
    with pytest.raises(
        UserError, match=r"a\.jsonl, line 10: has no key 'text'.*Mend it, or .* --on-bad-line skip"
    ):
        call(train_tokenizer, *flags)
    with pytest.raises(UserError, match=r"more than --max-bad-lines 1 lines hold no document"):
        call(train_tokenizer, *flags, "--on-bad-line", "skip", "--max-bad-lines", 1)
    assert not (tmp_path / "t.json").exists()
    printed = call(train_tokenizer, *flags, "--on-bad-line", "skip")
    assert "left out 2 lines that hold no document; the first:\n" in printed
    assert "a.jsonl, line 10: has no key 'text'" in printed
    assert "a.jsonl, line 42: key 'text' holds null, not a text" in printed
    call(train_tokenizer, "--input", fine, "--vocab-size", 300, "--output", tmp_path / "fine.json")
    assert (tmp_path / "t.json").read_bytes() == (tmp_path / "fine.json").read_bytes()


def test_an_input_is_never_written_over(tmp_path, call):
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    before = Path(path).read_bytes()
    with pytest.raises(UserError, match="is a file of --input, which would be lost"):
        call(train_tokenizer, "--input", path, "--output", f"{tmp_path}/../{tmp_path.name}/a.jsonl")
    assert Path(path).read_bytes() == before


def test_training_on_nothing(tmp_path, call):
    path = write_lines(tmp_path / "a.jsonl", ["", ""])
    with pytest.raises(UserError, match="no text in"):
        call(train_tokenizer, "--input", path, "--output", tmp_path / "t.json")


def test_folders_of_one_name_are_all_gathered(tmp_path, call):
    for number in range(3):
        folder = tmp_path / str(number) / "docs"
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(f"A text of folder {number}, long enough to be taken.\n" * 10)
    call(
        collect_corpus, "--input", *tmp_path.glob("*/docs"), "--output", tmp_path / "c.jsonl", "--min-size", 0
    )
    sources = [json.loads(line)["source"] for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert sources == ["docs-2/a.txt", "docs-3/a.txt", "docs/a.txt"]


# merge_datasets


@pytest.fixture
def two(tmp_path) -> tuple[str, str]:
    """Two datasets of one tokenizer in the folder `shards`, and their texts in one file beside it."""
    texts = many_texts(60)
    write_lines(tmp_path / "all.jsonl", texts)
    for name, part in (("a", texts[:25]), ("b", texts[25:])):
        path = write_lines(tmp_path / f"{name}.jsonl", part)
        preprocess(
            make_options(tmp_path, path, output_prefix=str(tmp_path / "shards" / name), append_eod=True)
        )
    return tuple(str(tmp_path / "shards" / f"{name}_text_document") for name in "ab")


def test_merging_gives_what_preprocessing_at_once_gives(tmp_path, call, two):
    preprocess(make_options(tmp_path, str(tmp_path / "all.jsonl"), append_eod=True))
    for number, inputs in enumerate([two, [tmp_path / "shards"]]):
        printed = call(merge_datasets, "--input", *inputs, "--output-prefix", tmp_path / f"merged{number}")
        assert f"{tmp_path}/merged{number}: 60 documents, " in printed and "of 2 datasets" in printed
        for ending in (".bin", ".idx", ".json"):
            assert (tmp_path / f"merged{number}{ending}").read_bytes() == (
                tmp_path / f"out_text_document{ending}"
            ).read_bytes()


def test_a_dataset_that_is_merged_several_times_counts_as_often(tmp_path, call, two):
    given = [two[0], two[1], two[0], tmp_path / "shards"]
    call(merge_datasets, "--input", *given, "--output-prefix", tmp_path / "m")
    merged, *parts = (read_sidecar(prefix) for prefix in (tmp_path / "m", *two))
    for fact in ("documents", "sequences", "tokens", "text_bytes"):
        assert merged[fact] == 3 * parts[0][fact] + 2 * parts[1][fact]


@pytest.mark.parametrize("cuts, merged", [((5, 7), 7), ((7, 7), 7), ((5, None), None), ((None, 5), None)])
def test_merged_sequences_are_as_long_as_the_longest(tmp_path, call, cuts, merged):
    path, prefixes = write_lines(tmp_path / "texts.jsonl", many_texts(20)), []
    for name, cut in zip("ab", cuts):
        options = make_options(tmp_path, path, output_prefix=str(tmp_path / name), max_sequence_length=cut)
        preprocess(options)
        prefixes.append(tmp_path / f"{name}_text_document")
    call(merge_datasets, "--input", *prefixes, "--output-prefix", tmp_path / "m")
    assert read_sidecar(tmp_path / "m")["max_sequence_length"] == merged


def test_a_folder_to_merge_is_what_its_owner_sees(tmp_path, call, two, capsys):
    call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "expected")
    shards = tmp_path / "shards"
    (shards / ".ipynb_checkpoints").mkdir()
    (shards / "deep").mkdir()
    for ending in (".bin", ".idx", ".json"):
        shutil.copy(two[0] + ending, shards / ".ipynb_checkpoints" / f"a{ending}")
        shutil.copy(two[0] + ending, shards / f"._a{ending}")
        os.rename(two[1] + ending, shards / "deep" / f"b{ending}")
    call(merge_datasets, "--input", shards, "--output-prefix", tmp_path / "m")
    assert (tmp_path / "m.bin").read_bytes() == (tmp_path / "expected.bin").read_bytes()
    find = merge_datasets.find_prefixes(str(shards))
    assert find == [two[0], str(shards / "deep" / "b")]
    assert "6 hidden files left out" in capsys.readouterr().err
    os.unlink(shards / "deep" / "b.idx")
    with pytest.raises(UserError, match=r"b\.idx: does not exist, though the other file of the dataset does"):
        call(merge_datasets, "--input", shards, "--output-prefix", tmp_path / "n")


def test_a_glob_of_datasets(tmp_path, call, two):
    for number, inputs in enumerate([two, [tmp_path / "shards" / "*_text_document"]]):
        call(merge_datasets, "--input", *inputs, "--output-prefix", tmp_path / f"m{number}")
    assert (tmp_path / "m0.bin").read_bytes() == (tmp_path / "m1.bin").read_bytes()


def test_a_merge_has_no_weights(tmp_path, call, two):
    with pytest.raises(UserError, match=r"--input 0\.3 0\.7: a merge takes all of every dataset"):
        call(merge_datasets, "--input", 0.3, two[0], 0.7, two[1], "--output-prefix", tmp_path / "m")


def test_a_merge_with_the_flags_of_a_tokenizer(tmp_path, call, two):
    """Older merging tools need them."""
    flags = ["--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", "v", "--dataset-impl", "mmap"]
    printed = call(merge_datasets, "--datasets", *two, "--output-prefix", tmp_path / "m", *flags)
    assert "not used here: --tokenizer-type, --vocab-file (the .json files of the datasets say" in printed


def test_a_merge_replaces_a_dataset_only_when_asked(tmp_path, call, two):
    call(merge_datasets, "--input", two[0], "--output-prefix", tmp_path / "m")
    before = (tmp_path / "m.bin").read_bytes()
    with pytest.raises(UserError, match=r"m has \.bin, \.idx, \.json already; .*--overwrite"):
        call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "m")
    assert (tmp_path / "m.bin").read_bytes() == before
    call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "m", "--overwrite")
    assert len((tmp_path / "m.bin").read_bytes()) > len(before)


def test_every_tool_refuses_files_that_do_not_belong_together(tmp_path, call, two):
    shutil.copy(two[1] + ".json", two[0] + ".json")
    analysis = ["--seq-length", 8, "--output-dir", tmp_path / "d"]
    calls = (
        (merge_datasets, "--input", *two, "--output-prefix", tmp_path / "m"),
        (inspect_data, "--data-path", two[0]),
        (analyze_data, "--data-path", two[0], *analysis),
    )
    for words in calls:
        with pytest.raises(
            UserError, match=r"a_text_document\.json: is not of this \.bin.*35 documents against 25"
        ):
            call(*words)
    assert not (tmp_path / "m.bin").exists() and not (tmp_path / "d").exists()


def test_what_reads_a_whole_dataset_checks_its_whole_index(tmp_path, call):
    with IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder:
        builder.add_documents(np.zeros(20000, np.uint16), np.full(10000, 2))
    with open(tmp_path / "a.idx", "r+b") as file:
        file.seek(HEADER.size + 4 * 10000 + 8 * 33)  # the pointer of a sequence that opening does not look at
        file.write((40000).to_bytes(8, "little"))
    IndexedDataset(tmp_path / "a")
    vocabulary = ["--tokenizer-type", "NullTokenizer", "--vocab-size", 10]
    calls = (
        (merge_datasets, "--input", tmp_path / "a", "--output-prefix", tmp_path / "m"),
        (inspect_data, "--data-path", tmp_path / "a", "--validate"),
        (
            *(analyze_data, "--data-path", tmp_path / "a", *vocabulary),
            *("--seq-length", 8, "--output-dir", tmp_path / "d"),
        ),
    )
    for words in calls:
        with pytest.raises(UserError, match=r"a\.idx: is damaged: sequence 33 does not begin where"):
            call(*words)
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.idx"]


def test_the_command_of_megatron_deepspeeds_analysis(tmp_path, call, two):
    given = ["--analyzing-task", "map", "--analyzing-data-type", "GPT", "--analyzing-metric", "vocab_rarity"]
    given += [
        "--analyzing-num-workers",
        1,
        "--analyzing-worker-id",
        0,
        "--data-impl",
        "mmap",
        "--num-layers",
        1,
    ]
    given += ["--train-data-exact-num-epochs", 1, "--return-data-index", "--save", tmp_path / "out"]
    said = call(analyze_data, "--data-path", two[0], "--seq-length", 8, "--split", "949,50,1", *given)
    assert "not used here: --analyzing-task (one command does both)" in said
    assert (tmp_path / "out" / "vocab_rarity.npy").is_file()


def test_merging_files_without_sidecars(tmp_path, call, two):
    os.unlink(two[0] + ".json")
    with pytest.raises(UserError, match=r"a_text_document: has no \.json .*b_text_document has"):
        call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "m")
    os.unlink(two[1] + ".json")
    call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "m")
    assert read_sidecar(tmp_path / "m") is None and len(IndexedDataset(tmp_path / "m").document_indices) == 61


def test_datasets_of_one_tokenizer_are_merged_in_the_wider_type(tmp_path, call, two):
    wide, narrow = tmp_path / "wide", IndexedDataset(two[1])
    with IndexedDatasetBuilder(wide, np.int32) as builder:
        builder.add_documents(narrow.tokens, narrow.sequence_lengths, np.diff(narrow.document_indices))
        builder.sidecar = read_sidecar(two[1])
    call(merge_datasets, "--input", two[0], wide, "--output-prefix", tmp_path / "m")
    call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "expected")
    merged, expected = (IndexedDataset(tmp_path / name) for name in ("m", "expected"))
    assert merged.dtype == np.int32 and np.array_equal(merged.tokens, expected.tokens)
    assert np.array_equal(merged.document_indices, expected.document_indices)


def test_what_does_not_go_together(tmp_path, call, two):
    with IndexedDatasetBuilder(tmp_path / "wide", np.int32) as builder:
        builder.add_documents(np.arange(4), [4])
    for prefix in two:
        os.rename(prefix + ".json", prefix + ".kept")
    with pytest.raises(
        UserError, match=r"wide holds int32 tokens and .*a_text_document uint16, and no \.json says .* one"
    ):
        call(merge_datasets, "--input", *two, tmp_path / "wide", "--output-prefix", tmp_path / "m")
    for prefix in two:
        os.rename(prefix + ".kept", prefix + ".json")
    sidecar = read_sidecar(two[1])
    made_by = {"tokenizer_flags": {"tokenizer_model": "/other/tokenizer.json"}}
    for fact, value, words in (
        ("eod", 3, "3 and 0"),
        ("append_eod", False, "False and True"),
        ("tokenizer", {"type": "other"}, "a other of None tokens in /other/tokenizer.json and a Hugging"),
    ):
        Path(two[1] + ".json").write_text(json.dumps(sidecar | made_by | {fact: value}))
        told = f"b_text_document and .*a_text_document differ in {fact}: {words}"
        with pytest.raises(UserError, match=told):
            call(merge_datasets, "--input", *two, "--output-prefix", tmp_path / "m")
    with pytest.raises(UserError, match="is one of the inputs"):
        call(merge_datasets, "--input", *two, "--output-prefix", two[0])
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="the folder holds no dataset"):
        call(merge_datasets, "--input", tmp_path / "none", "--output-prefix", tmp_path / "m")
    assert not list(tmp_path.glob("*m.*"))


# inspect_data


def test_inspecting(tmp_path, call, two, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    dataset = IndexedDataset(two[1])
    tokenizer = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", tmp_path / "tokenizer.json"]
    printed = call(inspect_data, "--data-path", two[1], "--validate", "--samples", 35, *tokenizer)
    assert (
        f"{len(dataset.tokens):,}" in printed
        and f"{len(dataset.tokens) / len(dataset):,.1f}" in printed
        and "uint16" in printed
    )
    assert (
        "tokenizer.type" in printed
        and "35" in printed
        and f"ids reach from 0 to {dataset.tokens.max()}" in printed
    )
    assert "1234567890" in printed and "<|endoftext|>" in printed
    lengths = sorted(dataset.sequence_lengths.tolist())
    assert (
        f" {lengths[0]:,} " in printed
        and f" {lengths[-1]:,} " in printed
        and f" {lengths[(len(lengths) - 1) // 2]:,} " in printed
    )
    plain = call(inspect_data, "--data-path", two[1], "--samples", 1)
    assert " ".join(map(str, dataset[0][:8].tolist())) in plain


def test_inspecting_finds_what_is_wrong(tmp_path, call, two):
    sidecar = read_sidecar(two[0])
    Path(two[0] + ".json").write_text(json.dumps(sidecar | {"vocab_size": 10}))
    with pytest.raises(
        UserError, match=r"a_text_document\.bin: ids reach from 0 to \d+, outside the vocabulary of 10"
    ):
        call(inspect_data, "--data-path", two[0], "--validate")
    with pytest.raises(UserError, match=r"was made by .* and the flags name"):
        call(inspect_data, "--data-path", two[0], "--tokenizer-type", "NullTokenizer", "--vocab-size", 5)


def test_inspecting_by_a_tokenizer_of_fewer_tokens(tmp_path, call):
    """Files of another Megatron say nothing of their tokenizer."""
    with IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder:
        builder.add_documents(np.array([5, 1000]), [2])
    write_sentencepiece(tmp_path / "a.model")
    given = ("--data-path", tmp_path / "a", "--tokenizer-type", "GPTSentencePieceTokenizer")
    given += ("--tokenizer-model", tmp_path / "a.model")
    with pytest.raises(UserError, match=r"document 0 begins with ids up to 1000, and the tokenizer has 4"):
        call(inspect_data, *given, "--samples", 3)
    with pytest.raises(UserError, match=r"outside the vocabulary of 4\d\d; .* the tokenizer that made it"):
        call(inspect_data, *given, "--validate")


def test_flags_of_a_tokenizer_count_or_are_refused_where_a_dataset_is_inspected(tmp_path, call, two):
    with IndexedDatasetBuilder(tmp_path / "plain", np.uint16) as builder:
        builder.add_documents(np.array([5, 699]), [2])
    plain = ("--data-path", tmp_path / "plain", "--validate", "--vocab-size")
    assert "ids reach from 5 to 699" in call(inspect_data, *plain, 700)
    with pytest.raises(UserError, match="ids reach from 5 to 699, outside the vocabulary of 699"):
        call(inspect_data, *plain, 699)
    with pytest.raises(UserError, match=r"--vocab-size 7 contradicts .*a_text_document, whose"):
        call(inspect_data, "--data-path", two[0], "--vocab-size", 7)
    for flag in ("--tokenizer-model", "--vocab-file", "--eod-token"):
        with pytest.raises(UserError, match=f"^{flag}: --tokenizer-type is missing; without it ids are"):
            call(inspect_data, "--data-path", two[0], flag, tmp_path)
    analysis = ("--data-path", two[0], "--seq-length", 8, "--output-dir", tmp_path / "analysis")
    with pytest.raises(UserError, match=r"^--tokenizer-model: --tokenizer-type is missing$"):
        call(analyze_data, *analysis, "--tokenizer-model", tmp_path)
    call(analyze_data, *analysis, "--eod-token", "<|endoftext|>")


def test_inspecting_a_dataset_of_empty_documents(tmp_path, call):
    with IndexedDatasetBuilder(tmp_path / "a", np.uint16) as builder:
        builder.add_documents(np.empty(0), [0, 0])
    printed = call(inspect_data, "--data-path", tmp_path / "a", "--validate", "--samples", 5)
    assert "ids reach from none" in printed


# collect_corpus

SOURCE = (
    '"""What this module does, in a few words."""\n\n\n'
    'def double(number):\n    """Twice a number."""\n    return number + number\n' * 2
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tree with two files worth reading and one of every kind that is not."""
    files = {
        "pkg/code.py": SOURCE,
        "pkg/guide.rst": "How to use it, at some length.\n" * 8,
        "pkg/copy_of_code.py": SOURCE,
        "pkg/tests/code.py": SOURCE + "# tests",
        "pkg/test_code.py": SOURCE + "# test",
        "pkg/LICENSE.txt": "You may use it. " * 30,
        "pkg/tables.py": "TABLE = [\n" + "    0x1234, 0x5678, 0x9ABC,\n" * 100 + "]\n",
        "pkg/made.py": "# Generated by a tool; do not edit.\n" + SOURCE,
        "pkg/wide.txt": "word " * 500,
        "pkg/short.md": "Short.",
        "pkg/data.json": "{}" * 500,
        "pkg-1.0.dist-info/entry.txt": "words of an index " * 30,
    }
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    (tmp_path / "tree" / "pkg" / "latin.txt").write_bytes(
        ("caf\u00e9 and more words\n" * 30).encode("latin-1")
    )
    return tmp_path / "tree"


def collect(call, folder: Path, *more: object) -> list[dict[str, str]]:
    output = folder.parent / "corpus.jsonl"
    call(collect_corpus, "--output", output, "--input", folder, "--min-size", 0, "--overwrite", *more)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_what_is_worth_reading(folder, call):
    found = collect(call, folder)
    assert [document["source"] for document in found] == ["tree/pkg/code.py", "tree/pkg/guide.rst"]
    assert found[0]["text"] == SOURCE.strip()


def test_what_is_not_worth_reading_is_counted(folder, call):
    (folder / "NOTES.MD").write_text("Words of some length.\n" * 20)
    assert [document["source"] for document in collect(call, folder)][:1] == ["tree/NOTES.MD"]
    collect_corpus.gather({"tree": folder}, left_out := Counter())
    assert left_out == {
        "file of a text that is there already": 1,
        "file that is no UTF-8": 1,
        "file that a program made": 1,
        "file of fewer than 200 bytes or more than 2,000,000": 1,
        "file of long lines or few letters (tools/preprocess_data.py reads any .txt)": 2,
    }


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "corpus.txt", "corpus.parquet", "corpus/"])
def test_a_corpus_is_json_lines(folder, call, name):
    with pytest.raises(UserError, match=r"let it end in \.jsonl|is a folder, and a file is to be written"):
        call(collect_corpus, "--output", f"{folder.parent}/{name}", "--input", folder, "--min-size", 0)
    assert not list(folder.parent.glob("*corpus*"))


def test_hidden_files_are_not_gathered(folder, call, capsys):
    before = collect(call, folder)
    for name in (".ipynb_checkpoints/guide-checkpoint.rst", "pkg/._guide.rst", ".git/COMMIT.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"Words of {name}, at some length.\n" * 10)
    (folder / "gone.md").symlink_to("nowhere")
    assert collect_corpus.gather({"tree": folder}, Counter()) and collect(call, folder) == before
    collect_corpus.gather({"tree": folder}, Counter())
    said = capsys.readouterr().err
    assert "3 hidden files left out; 1 file behind a broken link left out" in said


def test_of_a_long_source_the_docstrings(folder, call):
    (folder / "pkg" / "long.py").write_text(SOURCE * 2000)
    text = collect(call, folder)[-1]["text"]
    assert (
        text.startswith("What this module does")
        and "return" not in text
        and text.count("Twice a number.") == 4000
    )


def test_a_cap_takes_the_same_files_every_time(folder, call):
    for number in range(50):
        (folder / f"{number}.txt").write_text(f"text number {number}\n" * 20)
    whole, small = collect(call, folder), collect(call, folder, "--max-size", 0.005)
    assert small == collect(call, folder, "--max-size", 0.005) != whole
    sources = [document["source"] for document in small]
    assert sources == sorted(sources) and 4000 < sum(len(document["text"]) for document in small) <= 5000
    assert all(document in whole for document in small)


def test_too_little_text(folder, call):
    with pytest.raises(UserError, match=r"found only 0\.0 MB of text, less than --min-size 20"):
        call(collect_corpus, "--output", folder.parent / "corpus.jsonl", "--input", folder)
    with pytest.raises(UserError, match="--input /no/such: no such folder"):
        call(collect_corpus, "--output", folder.parent / "corpus.jsonl", "--input", "/no/such")
    with pytest.raises(UserError, match=r"--input \S+guide\.rst: is no folder; name the one that holds it"):
        call(
            collect_corpus,
            "--output",
            folder.parent / "corpus.jsonl",
            "--input",
            folder / "pkg" / "guide.rst",
        )
    assert not list(folder.parent.glob("*corpus*"))


def test_a_corpus_is_replaced_only_where_asked(folder, call):
    (folder.parent / "corpus.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"--output \S+: is there already; .* --overwrite"):
        call(collect_corpus, "--output", folder.parent / "corpus.jsonl", "--input", folder, "--min-size", 0)
    assert (folder.parent / "corpus.jsonl").read_text() == "mine"
    assert len(collect(call, folder)) == 2


def test_a_byte_order_mark_is_not_gathered(folder, call):
    (folder / "pkg" / "guide.rst").write_text("How to use it, at some length.\n" * 8, encoding="utf-8-sig")
    assert collect(call, folder)[1]["text"].startswith("How to use it")


# as a user types it


def test_the_whole_chain(tmp_path):
    """A corpus of this Python, its tokenizer, its dataset."""
    collected = command(
        "tools/collect_corpus.py", "--output", tmp_path / "c.jsonl", "--max-size", 3, "--min-size", 1
    )
    assert collected.returncode == 0 and "python" in collected.stdout and "documents, " in collected.stdout
    trained = command(
        "tools/train_tokenizer.py",
        "--input",
        tmp_path / "c.jsonl",
        "--vocab-size",
        1024,
        "--output",
        tmp_path / "t.json",
    )
    assert (
        trained.returncode == 0
        and trained.stderr == ""
        and trained.stdout.startswith(f"{tmp_path}/t.json: 1,024 tokens from 3.0 MB")
    )
    model = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", tmp_path / "t.json"]
    written = command(
        "tools/preprocess_data.py",
        "--input",
        tmp_path / "c.jsonl",
        "--output-prefix",
        tmp_path / "c",
        "--append-eod",
        *model,
    )
    assert written.returncode == 0 and "Processed " in written.stdout
    shown = command(
        "tools/inspect_data.py",
        "--data-path",
        tmp_path / "c_text_document",
        "--samples",
        2,
        "--validate",
        *model,
    )
    assert shown.returncode == 0 and "ids reach from 0 to" in shown.stdout
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    dataset, library = (
        IndexedDataset(tmp_path / "c_text_document"),
        tokenizers.Tokenizer.from_file(str(tmp_path / "t.json")),
    )
    assert len(dataset) == len(lines)
    for number in (0, len(lines) // 2, len(lines) - 1):
        assert library.decode(dataset[number][:-1]) == lines[number]["text"] and dataset[number][-1] == 0


@pytest.mark.parametrize(
    "tool", ["preprocess_data", "train_tokenizer", "merge_datasets", "inspect_data", "collect_corpus"]
)
def test_help_and_mistakes(tool):
    shown = command(f"tools/{tool}.py", "--help")
    assert shown.returncode == 0 and f"examples:\n  python tools/{tool}.py --" in shown.stdout
    wrong = command(f"tools/{tool}.py", "--no-such-flag")
    assert wrong.returncode == 2 and wrong.stdout == "" and "Traceback" not in wrong.stderr
    assert "error: unknown flag --no-such-flag" in wrong.stderr and " is required: " in wrong.stderr
