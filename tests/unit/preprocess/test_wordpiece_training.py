"""WordPiece vocabularies: the same every time, as good as the library's own, and readable by transformers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import trainers

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.bert_files import SPECIAL
from megatron.data.tokenizer import build_tokenizer
from megatron.preprocess.wordpiece_training import train_wordpiece
from tests.support.made_up_text import TEXTS, many_texts, write_lines

ROOT = Path(__file__).parents[3]
DOCUMENTS = [*TEXTS, *many_texts(40), "Übergröße ÄÖÜ", "words worded wording wordy"] * 2


def tokens(tokenizer: tokenizers.Tokenizer) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def tool(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "train_tokenizer.py"), "--input", "a.jsonl", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_it_is_the_same_every_time_and_in_the_order_of_bert():
    first = tokens(train_wordpiece(DOCUMENTS, 290, cased=False))
    assert all(tokens(train_wordpiece(DOCUMENTS, 290, cased=False)) == first for _ in range(5))
    assert first[:5] == list(SPECIAL) and len(first) == 290 == len(set(first))
    single = [token for token in first[5:] if len(token.removeprefix("##")) == 1]
    assert first[5 : 5 + len(single)] == single == sorted(single, key=lambda one: (one[:2] == "##", one))
    assert "##ing" in first or "##ed" in first


@pytest.mark.parametrize("cased", [False, True])
def test_texts_become_as_few_tokens_as_by_the_library(cased):
    """Which of equally frequent pairs come first differs, and from run to run of the library, too."""
    ours = train_wordpiece(DOCUMENTS, 400, cased)
    library = tokenizers.Tokenizer.from_str(ours.to_str())
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
    )
    library.train_from_iterator(DOCUMENTS, trainer)
    sizes = [sum(len(one.encode(text).ids) for text in DOCUMENTS) for one in (ours, library)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.02
    letters = [
        {token for token in tokens(one) if len(token.removeprefix("##")) == 1} for one in (ours, library)
    ]
    assert letters[0] == letters[1]
    assert ("The" in "".join(tokens(ours))) == cased


def test_letters_that_are_too_many():
    with pytest.raises(UserError, match=r"--vocab-size 50: the text has \d+ letters .*; give at least"):
        train_wordpiece(DOCUMENTS, 50, cased=False)


@pytest.mark.parametrize("cased", [False, True])
def test_the_command(tmp_path, cased):
    transformers = pytest.importorskip("transformers")
    write_lines(tmp_path / "a.jsonl", DOCUMENTS)
    (tmp_path / "out").mkdir()
    flags = ("--model", "wordpiece", "--vocab-size", "300", *(["--cased"] if cased else []))
    for output in ("out", "lines/vocab.txt", "whole.json"):
        (tmp_path / output).parent.mkdir(exist_ok=True)
        done = tool(tmp_path, *flags, "--output", output)
        assert (done.returncode, done.stderr) == (0, "") and "300 tokens from" in done.stdout
    whole = (tmp_path / "whole.json").read_text(encoding="utf-8")
    for path in ("out/tokenizer.json", "lines/tokenizer.json"):
        assert (tmp_path / path).read_text(encoding="utf-8") == whole
    lines = (tmp_path / "lines" / "vocab.txt").read_text(encoding="utf-8")
    assert lines == (tmp_path / "out" / "vocab.txt").read_text(encoding="utf-8")
    kind = "BertWordPieceCase" if cased else "BertWordPieceLowerCase"
    theirs = transformers.BertTokenizerFast.from_pretrained(str(tmp_path / "out"))
    for options in (
        TokenizerOptions(kind, vocab_file=str(tmp_path / "lines" / "vocab.txt")),
        TokenizerOptions(kind, tokenizer_model=str(tmp_path / "out")),
    ):
        encoded, _ = build_tokenizer(options, "auto").encode_batch([TEXTS[2]])
        assert encoded.tolist() == theirs(TEXTS[2], add_special_tokens=False)["input_ids"]
    assert json.loads(whole)["model"]["vocab"]["[MASK]"] == 4 == theirs.mask_token_id


@pytest.mark.parametrize(
    "words, message",
    [
        (("--cased", "--output", "t.json"), "--cased is of --model wordpiece"),
        (("--model", "wordpiece", "--vocab-size", "20", "--output", "v.txt"), "give at least"),
        (("--model", "wordpiece", "--output", "there.txt"), "there.txt: is there already"),
        (("--model", "wordpiece", "--output", "a.jsonl"), "a.jsonl is a file of --input"),
    ],
)
def test_mistakes_of_the_command(tmp_path, words, message):
    write_lines(tmp_path / "a.jsonl", DOCUMENTS)
    (tmp_path / "there.txt").write_text("mine")
    done = tool(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.jsonl", "there.txt"]


def test_a_tokenizer_of_another_model_is_not_replaced(tmp_path):
    """README trains one of a GPT first, in the same folder."""
    write_lines(tmp_path / "a.jsonl", DOCUMENTS)
    (tmp_path / "tokenizer.json").write_text("of a GPT")
    words = ("--model", "wordpiece", "--vocab-size", "300", "--output")
    done = tool(tmp_path, *words, "vocab.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --output vocab.txt: tokenizer.json is written beside it, and tokenizer.json is there "
        "already, perhaps of another tokenizer; choose a folder of its own, such as my_wordpiece/vocab.txt, "
        "or replace it with --overwrite\n"
    )
    done = tool(tmp_path, *words, "my_wordpiece/vocab.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "tokenizer.json").read_text() == "of a GPT"
    assert sorted(one.name for one in (tmp_path / "my_wordpiece").iterdir()) == [
        "tokenizer.json",
        "vocab.txt",
    ]


def test_letters_beyond_the_limit_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Chinese has more than BERT's usual trainer takes: they would be [UNK], and nothing would say so."""
    characters = [chr(0x4E00 + number) for number in range(1100)]
    texts = ["".join(characters), "".join(characters[:1000])]
    few = train_wordpiece(texts, 1200, cased=False).get_vocab()
    said = capsys.readouterr().err
    assert "note: 100 of 1,100 letters and signs (4.76% of the text), such as " in said
    assert "raise --limit-alphabet 1,000" in said and len(few) == 1005
    every = train_wordpiece(texts, 1200, cased=False, most_letters=1100).get_vocab()
    assert capsys.readouterr().err == "" and every.keys() >= set(characters)
