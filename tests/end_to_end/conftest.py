"""A small real corpus, made once by the commands of the README: documents from the standard library's
sources."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.commands import run_command

SEQ_LENGTH = 64
MODEL = (
    f"--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length {SEQ_LENGTH} "
    "--micro-batch-size 2 --global-batch-size 8 "
    "--lr 2e-3 --lr-warmup-iters 3 --lr-decay-style cosine --min-lr 1e-4 --log-interval 5 "
).split()
EFFICIENT = [
    "--curriculum=vocab_rarity:difficulty=percentile,min=20,max=100,pacing=fixed_root,root=2,duration=15",
    "--curriculum=seqlen_truncate:min=16,max=64,duration=15,quantum=8",
    *("--random-ltd", "--random-ltd-min", "16", "--random-ltd-duration", "20", "--random-ltd-quantum", "8"),
]


@dataclass(frozen=True)
class Prepared:
    """Paths of a text, its tokenizer, its tokens and its analysis."""

    text: str
    tokenizer: str
    prefix: str
    difficulty: str


@pytest.fixture(autouse=True)
def numbers_as_before() -> Iterator[None]:
    """Training flushes denormal numbers in its process; other tests in the same process must not notice."""
    yield
    torch.set_flush_denormal(False)


def records(folder: Path) -> list[dict]:
    """What a run recorded, without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    timing = ("ms_per_iteration", "cpu_ms_per_iteration", "ms_waiting_for_data")
    timing += ("tokens_per_second", "throughput", "mfu", "hfu")
    return [{name: value for name, value in json.loads(line).items() if name not in timing} for line in lines]


def write_text(path: Path) -> str:
    """About 300 kB of documents from the standard library."""
    sources = sorted(Path(json.__file__).parents[1].glob("*.py"))[:40]
    with open(path, "w", encoding="utf-8") as file:
        for source in sources:
            text = source.read_text(encoding="utf-8", errors="ignore")[:8000]
            file.write(json.dumps({"text": text}) + "\n")
    return str(path)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("corpus")
    text = write_text(folder / "my.jsonl")
    tokenizer, prefix = str(folder / "tokenizer.json"), str(folder / "my")
    run_command("tools/train_tokenizer.py", "--input", text, "--vocab-size", "1024", "--output", tokenizer)
    flags = [
        "--tokenizer-type",
        "HuggingFaceTokenizer",
        "--tokenizer-model",
        tokenizer,
        "--append-eod",
        "--workers",
        "1",
    ]
    run_command(
        "tools/preprocess_data.py",
        "--input",
        text,
        "--output-prefix",
        prefix,
        "--shuffle-documents",
        "1",
        *flags,
    )
    difficulty = str(folder / "difficulty")
    analysis = ["--split", "90,5,5", "--seq-length", str(SEQ_LENGTH), "--output-dir", difficulty]
    run_command("tools/analyze_data.py", "--data-path", prefix + "_text_document", *analysis)
    return Prepared(text, tokenizer, prefix + "_text_document", difficulty)


@pytest.fixture(scope="session")
def prepared_sentences(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same texts as sentences, for encoders."""
    folder = tmp_path_factory.mktemp("sentences")
    text, tokenizer = write_text(folder / "my.jsonl"), str(folder / "tokenizer.json")
    prefix, difficulty = str(folder / "my"), str(folder / "difficulty")
    size = ["--vocab-size", "800", "--output", tokenizer]
    run_command("tools/train_tokenizer.py", "--model", "wordpiece", "--input", text, *size)
    flags = ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", tokenizer, "--split-sentences"]
    run_command("tools/preprocess_data.py", "--input", text, "--output-prefix", prefix, *flags)
    prefix += "_text_sentence"
    analysis = ["--split", "90,5,5", "--seq-length", str(SEQ_LENGTH), "--output-dir", difficulty]
    metrics = ["--metrics", "vocab_rarity", "seqlen"]
    run_command("tools/analyze_data.py", "--task", "bert", "--data-path", prefix, *analysis, *metrics)
    return Prepared(text, tokenizer, prefix, difficulty)
