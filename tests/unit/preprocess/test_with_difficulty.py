"""tools/preprocess_data.py --metrics: tokens and difficulty in one command."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from tests.support.made_up_text import many_texts, write_lines, write_tokenizer
from tools import preprocess_data

ROOT = Path(__file__).parents[3]
OWN_METRIC = """
def last_id(tokens, context):
    return tokens[context.seq_length :: context.seq_length].astype("int64")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A current folder with a text of two keys, a tokenizer and a metric."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    records = [{"text": text, "title": text[:9]} for text in many_texts(200)]
    write_lines(tmp_path / "a.jsonl", records)
    write_tokenizer(tmp_path)
    (tmp_path / "of_ones_own.py").write_text(OWN_METRIC)
    return tmp_path


def arguments(*more: str) -> list[str]:
    model = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", "tokenizer.json"]
    return ["--input", "a.jsonl", "--output-prefix", "my", "--append-eod", *model, "--workers", "1", *more]


def run(tool: str, *words: str) -> str:
    """What a tool printed, run in the current folder."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def call(monkeypatch, *more: str) -> None:
    """The tool in this process, whose answer to signals stays as it was."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / "tools" / "preprocess_data.py"), *arguments(*more)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        preprocess_data.main()
    finally:
        signal.signal(signal.SIGTERM, before)


def content(folder: Path) -> dict[str, bytes]:
    """All that the tools wrote: everything that begins with `my`."""
    names = {path: str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for path, name in names.items() if name.startswith("my")}


def test_one_command_writes_the_bytes_of_two(folder):
    keys, metrics = ["--json-keys", "text", "title"], ["--metrics", "vocab_rarity", "of_ones_own:last_id"]
    analysis = [*metrics, "--seq-length", "8", "--split", "80,10,10"]
    table = run("preprocess_data.py", *arguments(*keys, *analysis)).partition("docs/s")[2].split("\n", 1)[1]
    together = content(folder)
    for name in together:
        (folder / name).unlink()
    run("preprocess_data.py", *arguments(*keys))
    printed = ""
    for key in ("text", "title"):
        output = ["--output-dir", f"my_{key}_difficulty"]
        printed += run("analyze_data.py", "--data-path", f"my_{key}_document", *analysis, *output)
    assert content(folder) == together and printed == table
    assert len(together) == 2 * (3 + 6)
    manifest = json.loads(together["my_title_difficulty/manifest.json"])
    assert (
        list(manifest["metrics"]) == ["vocab_rarity", "last_id"] and manifest["data"] == "my_title_document"
    )


def test_a_folder_of_ones_own(folder, monkeypatch):
    call(monkeypatch, "--metrics", "vocab_rarity", "--seq-length", "8", "--difficulty-path", "one")
    assert (folder / "one" / "manifest.json").is_file()
    both = ["--json-keys", "text", "title", "--difficulty-path", "two"]
    call(monkeypatch, "--metrics", "vocab_rarity", "--seq-length", "8", "--overwrite", *both)
    for name in ("vocab_rarity.npy", "vocab_rarity.order.npy", "token_frequency.npy", "manifest.json"):
        assert (folder / "two" / "text" / name).read_bytes() == (folder / "one" / name).read_bytes()
        assert (folder / "two" / "title" / name).is_file()


@pytest.mark.parametrize(
    ("more", "messages"),
    [
        (
            ["--seq-length", "8", "--split", "9,1", "--difficulty-path", "d"],
            ["--seq-length 8 goes with --metrics", "--split 9,1 goes with", "--difficulty-path d goes with"],
        ),
        (["--metrics", "vocab_rarity"], ["--metrics vocab_rarity needs --seq-length"]),
        (
            ["--metrics", "colour", "--seq-length", "0", "--workers", "-1"],
            ["--seq-length 0 must be at least 1", "--workers -1 must be at least 1"],
        ),
        (
            ["--metrics", "colour", "--seq-length", "8", "--split", "x"],
            ["--metrics colour: unknown; known are vocab_rarity", "--split x: is no list"],
        ),
        (
            [
                "--metrics",
                "of_ones_own:none",
                "--seq-length",
                "8",
                "--split",
                "0,1",
                "--tokenizer-model",
                "no.json",
            ],
            [
                "'of_ones_own:none' cannot be loaded",
                "--split 0,1 leaves nothing for train",
                "no.json: does not exist",
            ],
        ),
        (
            ["--metrics", "of_ones_own:last_id", "--seq-length", "8", "--split", "1..2"],
            ["--split 1..2: is no list"],
        ),
        (
            ["--metrics", "vocab_rarity", "--seq-length", "8", "--difficulty-path", "."],
            ["--difficulty-path . is the folder of the data my_text_document"],
        ),
        (
            ["--metrics", "vocab_rarity", "--seq-length", "8", "--difficulty-path", "/proc/none/d"],
            ["cannot write to the folder /proc"],
        ),
        (
            ["--metrics", "vocab_rarity", "--seq-length", "8", "--difficulty-path", "of_ones_own.py"],
            ["--difficulty-path of_ones_own.py is a file"],
        ),
    ],
)
def test_mistakes_are_told_together_before_the_work(folder, monkeypatch, more, messages):
    before = sorted(os.listdir(folder))
    with pytest.raises(UserError) as error:
        call(monkeypatch, *more)
    assert len(error.value.problems) == len(messages), error.value
    assert all(any(message in problem for problem in error.value.problems) for message in messages)
    assert sorted(set(os.listdir(folder)) - {"__pycache__"}) == before


@pytest.mark.parametrize("older", [[], ["manifest.json", "vocab_rarity.npy"]])
def test_a_folder_that_holds_other_files(folder, monkeypatch, older):
    (folder / "my_text_difficulty").mkdir()
    for name in [*older, "thesis.txt"]:
        (folder / "my_text_difficulty" / name).write_text("ten years of work")
    with pytest.raises(UserError, match="--difficulty-path my_text_difficulty holds other files"):
        call(monkeypatch, "--metrics", "vocab_rarity", "--seq-length", "8")
    assert not (folder / "my_text_document.bin").exists()


def test_tokens_without_difficulty_are_told_with_the_command_that_goes_on(folder, monkeypatch, capsys):
    flags = ["--json-keys", "title", "text", "--metrics", "vocab_rarity", "--seq-length", "2000"]
    with pytest.raises(UserError) as error:
        call(monkeypatch, *flags)
    why, left = error.value.problems
    assert "my_title_document: its train split has" in why and "a smaller --seq-length" in why
    assert left.startswith("the dataset my_title_document is written, its difficulty is not; this finishes")
    assert (folder / "my_text_difficulty").is_dir() and not (folder / "my_title_difficulty").exists()
    python, tool, *words = shlex.split(left.rpartition("job: ")[2])
    words[words.index("2000")] = "8"
    assert python == "python" and tool == str(ROOT / "tools" / "analyze_data.py")
    run("analyze_data.py", *words)
    assert (folder / "my_title_difficulty" / "manifest.json").is_file()


def test_an_interrupted_analysis_says_how_to_go_on(folder, monkeypatch, capsys):
    def interrupt(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("megatron.curriculum.analyze_dataset.analyze_dataset", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, "--metrics", "vocab_rarity", "--seq-length", "8")
    told = capsys.readouterr().err
    assert "nothing was written" not in told and "is written, its difficulty is not; this finishes" in told
    assert "--seq-length 8 --metrics vocab_rarity --output-dir my_text_difficulty\n" in told
