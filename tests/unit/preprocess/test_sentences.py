"""Documents into sentences, and datasets of sentences against megatron-core's builder."""

import subprocess
import sys
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import nupunkt
import pytest
import sentencex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.data import word_table
from megatron.data.indexed_dataset import IndexedDataset, read_sidecar
from megatron.data.tokenizer import build_tokenizer
from megatron.preprocess.preprocess import PreprocessOptions, preprocess
from megatron.preprocess.sentences import CODES, LANGUAGES, is_unsplit, sentence_splitter
from tests.support.made_up_text import TEXTS, make_options, write_bert_vocabulary, write_lines

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    "The fox jumps. It is quick!\n\nA heading\n\nDr. Fox ran, e.g. over the dog.  \n",
    "",
    " \n\t ",
    "One sentence without an end",
    "\x00\x07",
    "First. \x00 Second. [MASK] third? Yes.",
    *TEXTS,
]
TEXT = st.lists(
    st.sampled_from([*"aB.?!… \n\"')", "Mr. ", "U.S. ", ". . .", "\n\n", "the ", "\u00a0", "1."]), max_size=40
).map("".join)


@pytest.mark.parametrize("language", CODES)
def test_wide_spaces_before_a_period_end_no_process(language: str) -> None:
    """sentencex cuts such a space in two; nothing of the text is lost."""
    split = sentence_splitter(language)
    for space in "\u00a0\u202f\u2003\u3000\u0085":
        text = f"M.{space}) A{space}. B{space}.{space}5. C z.B.{space}. Und so. Ja"
        parts = split(text)
        assert all(parts) and "".join("".join(parts).split()) == "".join(text.split())


def bert_options(folder: Path, *inputs: str, **changes: Any) -> PreprocessOptions:
    (folder / "bert").mkdir(exist_ok=True)
    (folder / "bert" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    ours = {
        "split_sentences": True,
        "tokenizer_type": "BertWordPieceLowerCase",
        "tokenizer_model": None,
        "vocab_file": write_bert_vocabulary(folder / "bert" / "vocab.txt"),
    }
    return make_options(folder, *inputs, **{**ours, **changes})


def output(folder: Path, name: str = "out_text_sentence") -> tuple[bytes, ...]:
    return tuple((folder / f"{name}{ending}").read_bytes() for ending in (".bin", ".idx", ".json"))


def documents_of(prefix: Path) -> list[list[list[int]]]:
    dataset = IndexedDataset(prefix)
    bounds = dataset.document_indices.tolist()
    return [[one.tolist() for one in dataset[first:last]] for first, last in pairwise(bounds)]


@settings(max_examples=300, deadline=None)
@given(text=TEXT | st.text(max_size=60))
def test_english_sentences_are_those_of_nupunkt(text):
    found = sentence_splitter("english")(text)
    assert found == nupunkt.sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())


@settings(max_examples=100, deadline=None)
@given(text=TEXT, language=st.sampled_from(LANGUAGES))
def test_kept_newlines_are_all_that_lies_between(text, language):
    bare, kept = sentence_splitter(language)(text), sentence_splitter(language, keep_newlines=True)(text)
    assert [one.rstrip() for one in kept] == bare
    assert "".join(kept) == text.strip()


@pytest.mark.parametrize("language, code", CODES.items())
def test_other_languages_are_those_of_sentencex(language, code):
    text = "Das ist z. B. gut. Dr. Müller kam.\n\nEl Sr. García. ¿Cómo? Это т. е. так. यह है। वह है। はい。え?"
    found = sentence_splitter(language)(text)
    assert found == [one.strip() for one in sentencex.segment(code, text) if one.strip()]
    assert len(found) > 3


def test_german_knows_its_abbreviations():
    text = "Das ist z. B. gut. Dr. Müller kam am 3. Mai an."
    assert sentence_splitter("german")(text) == ["Das ist z. B. gut.", "Dr. Müller kam am 3. Mai an."]


@pytest.mark.parametrize("append_eod", [False, True])
@pytest.mark.parametrize("keep_newlines", [False, True])
def test_files_are_those_of_megatrons_tool(tmp_path, append_eod, keep_newlines):
    """Sentences encoded one by one; those without a token are left out; the last one has the end."""
    oracle = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    transformers = pytest.importorskip("transformers")
    path = write_lines(tmp_path / "corpus.jsonl", DOCUMENTS * 7)
    changes = {"append_eod": append_eod, "keep_newlines": keep_newlines}
    totals = preprocess(bert_options(tmp_path, path, **changes), piece_bytes=2000)
    assert (totals.engine, totals.documents) == ("a table of words", len(DOCUMENTS * 7))
    assert totals.empty == [4 * 7] and totals.unknown
    library = transformers.BertTokenizerFast.from_pretrained(str(tmp_path / "bert"))
    split = sentence_splitter("english", keep_newlines)
    builder = oracle.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), np.uint16)
    for text in DOCUMENTS * 7:
        rows = [library(one, add_special_tokens=False)["input_ids"] for one in split(text)]
        rows = list(filter(None, rows))
        if rows and append_eod:
            rows[-1] = [*rows[-1], library.sep_token_id]
        for row in rows:
            builder.add_item(torch.tensor(row))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    theirs = tuple((tmp_path / f"theirs{ending}").read_bytes() for ending in (".bin", ".idx"))
    assert output(tmp_path)[:2] == theirs


def test_the_output_does_not_depend_on_workers_pieces_or_engine(tmp_path):
    path = write_lines(tmp_path / "corpus.jsonl", DOCUMENTS * 20)
    seen = set()
    for workers, piece_bytes, engine in ((1, 1 << 20, "auto"), (2, 3000, "auto"), (2, 1000, "tokenizers")):
        options = bert_options(tmp_path, path, workers=workers, tokenizer_engine=engine, append_eod=True)
        totals = preprocess(options, piece_bytes)
        assert (totals.verified_documents > 0) == (engine == "auto")
        seen.add(output(tmp_path))
    assert len(seen) == 1
    sidecar = read_sidecar(tmp_path / "out_text_sentence")
    assert sidecar["sentences"] == {
        "splitter": "nupunkt",
        "version": nupunkt.__version__,
        "language": "english",
        "keep_newlines": False,
    }
    assert sidecar["tokenizer"]["type"] == "BertWordPieceLowerCase" and sidecar["eod_token"] == "[SEP]"
    assert sidecar["text_bytes"] == sum(len(text.encode()) for text in DOCUMENTS * 20)


def test_a_shuffle_keeps_documents_whole(tmp_path):
    path = write_lines(tmp_path / "corpus.jsonl", DOCUMENTS * 5)
    preprocess(bert_options(tmp_path, path))
    plain = documents_of(tmp_path / "out_text_sentence")
    preprocess(bert_options(tmp_path, path, shuffle_documents=3), piece_bytes=1500)
    shuffled = documents_of(tmp_path / "out_text_sentence")
    assert shuffled != plain and sorted(shuffled) == sorted(plain)


def test_a_shuffle_has_the_same_order_with_and_without_sentences(tmp_path):
    path = write_lines(tmp_path / "corpus.jsonl", [f"{number}. Then b. And a." for number in range(50)])
    for split in (True, False):
        preprocess(bert_options(tmp_path, path, shuffle_documents=3, split_sentences=split))
    of_sentences = documents_of(tmp_path / "out_text_sentence")
    of_documents = documents_of(tmp_path / "out_text_document")
    assert [[list(chain(*one))] for one in of_sentences] == of_documents


def test_byte_level_tokenizers_keep_newlines(tmp_path):
    path = write_lines(tmp_path / "corpus.jsonl", ["The fox.\nIt ran.\n\nThe end. "])
    options = make_options(tmp_path, path, split_sentences=True, keep_newlines=True)
    preprocess(options)
    tokenizer = build_tokenizer(options.tokenizer)
    ((*rows,),) = documents_of(tmp_path / "out_text_sentence")
    assert [tokenizer.decode(row) for row in rows] == ["The fox.\n", "It ran.\n\n", "The end."]


def test_a_wrong_table_is_noticed(tmp_path, monkeypatch, capsys):
    """Everything is encoded again by the library."""
    real = word_table.word_table_engine

    def wrong(reference, added):
        encode = real(reference, added)

        def encode_wrongly(texts):
            ids, lengths = encode(texts)
            return ids + np.uint32("zebra" in "".join(texts)), lengths

        return encode_wrongly

    monkeypatch.setattr(word_table, "word_table_engine", wrong)
    path = write_lines(tmp_path / "corpus.jsonl", ["The fox. A zebra."])
    assert preprocess(bert_options(tmp_path, path)).engine == "tokenizers"
    assert "a table of words and the reference library encode text of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_sequence_length": 8}, "--max-sequence-length 8 cuts documents, and --split-sentences makes"),
        ({"split_sentences": False, "keep_newlines": True}, "--keep-newlines goes with --split-sentences"),
        ({"split_sentences": False, "lang": "german"}, "--lang german goes with --split-sentences; add it"),
        ({"overwrite": False}, r"out_text_sentence has \.bin already; choose another"),
        ({"vocab_file": "none.txt"}, "--vocab-file none.txt: does not exist"),
    ],
)
def test_mistakes(tmp_path, changes, message):
    path = write_lines(tmp_path / "corpus.jsonl", ["The fox."])
    (tmp_path / "out_text_sentence.bin").write_bytes(b"")
    with pytest.raises(UserError, match=message) as caught:
        preprocess(bert_options(tmp_path, path, **changes))
    assert len(caught.value.problems) == 1
    assert [one.name for one in tmp_path.glob("out_*")] == ["out_text_sentence.bin"]


def tool(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def preprocess_by_command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    kind = ("--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", "vocab.txt")
    return tool(folder, "preprocess_data", "--input", "a.jsonl", "--output-prefix", "out", *kind, *words)


def test_the_command(tmp_path):
    write_bert_vocabulary(tmp_path / "vocab.txt")
    write_lines(tmp_path / "a.jsonl", DOCUMENTS)
    done = preprocess_by_command(tmp_path, "--split-sentences", "--lang", "english", "--append-eod")
    assert (done.returncode, done.stderr) == (0, "")
    assert "encoded by a table of words; " in done.stdout and " sentences (" in done.stdout
    assert "are [UNK]" in done.stdout and "have changed" not in done.stdout
    assert "documents end with [SEP]" in done.stdout
    plain = preprocess_by_command(tmp_path, "--split-sentences", "--overwrite")
    assert plain.returncode == 0 and "documents end with" not in plain.stdout  # BERT's samples need none
    assert sorted(one.name for one in tmp_path.glob("out*")) == [
        f"out_text_sentence{ending}" for ending in (".bin", ".idx", ".json")
    ]
    shown = tool(tmp_path, "inspect_data", "--data-path", "out_text_sentence", "--validate")
    assert shown.returncode == 0 and "sentences.splitter" in shown.stdout and "nupunkt" in shown.stdout


@pytest.mark.parametrize(
    "words, message",
    [
        (("--split-sentences", "--lang", "klingon"), "klingon"),
        (("--split-sentences", "--metrics", "vocab_rarity", "--seq-length", "8"), "--task bert"),
    ],
)
def test_mistakes_of_the_command(tmp_path, words, message):
    write_bert_vocabulary(tmp_path / "vocab.txt")
    write_lines(tmp_path / "a.jsonl", ["The fox."])
    done = preprocess_by_command(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert message in done.stderr and ("english" in done.stderr) == ("klingon" in done.stderr)
    assert list(tmp_path.glob("out*")) == []


def test_merging(tmp_path):
    """Datasets of sentences merge with their like alone."""
    path = write_lines(tmp_path / "corpus.jsonl", DOCUMENTS)
    for name, changes in {
        "a": {},
        "b": {},
        "whole": {"split_sentences": False},
        "german": {"lang": "german"},
    }.items():
        preprocess(bert_options(tmp_path, path, output_prefix=str(tmp_path / name), **changes))
    merge = lambda *names: tool(  # noqa: E731
        tmp_path, "merge_datasets", "--input", *names, "--output-prefix", "merged"
    )
    refused = merge("a_text_sentence", "whole_text_document")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "whole_text_document holds whole documents and a_text_sentence sentences" in refused.stderr
    refused = merge("a_text_sentence", "german_text_sentence")
    assert refused.returncode == 2 and "german" in refused.stderr
    assert list(tmp_path.glob("merged*")) == []
    assert merge("a_text_sentence", "b_text_sentence").returncode == 0
    once, both = (documents_of(tmp_path / name) for name in ("a_text_sentence", "merged"))
    assert both == once * 2
    assert read_sidecar(tmp_path / "merged")["sentences"]["language"] == "english"


def test_chinese_sentences():
    text = "今天天气很好。我们去公园吧！你想去吗？\n他说：“好的。”"
    expected = ["今天天气很好。", "我们去公园吧！", "你想去吗？", "他说：“好的。”"]
    assert sentence_splitter("chinese")(text) == expected


def test_a_text_of_another_language_is_told(tmp_path, capsys):
    """No sign of English ends a sentence of Chinese: each document would be one, and be cut in training, or
    have no second one for a pair."""
    for times in (60, 1):
        path = write_lines(tmp_path / "a.jsonl", ["今天天气很好。我们去公园吧！" * times] * 3)
        for lang, told in (("english", True), ("chinese", False)):
            preprocess(bert_options(tmp_path, path, lang=lang, overwrite=True))
            said = capsys.readouterr().out
            assert ("note: 100% of the text is in sentences whose end was not seen" in said) == told


def test_signs_of_other_languages_count_where_text_goes_on_behind_them():
    """At its end a sentence has them; English may cite one."""
    assert is_unsplit("你好。再见。", 18) and is_unsplit("यह है। वह", 20) and is_unsplit("a" * 2001, 2001)
    assert not any(is_unsplit(text, 20) for text in ("你好。", "他说：“好的。”", "Fine. Is it?", "a" * 20))
