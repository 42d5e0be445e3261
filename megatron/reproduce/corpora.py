"""The data that tables share, made once from what this machine has: commands, and what they write."""

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from megatron.base.files import checksum

LENGTHS = {"text": 256, "sentences": 64}
"""Tokens of a sample whose difficulty is computed, as --scale mini has them."""
SPLIT = "949,50,1"


class Step(NamedTuple):
    """A command, the files or folders that it writes, and where it runs."""

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]


class Kind(NamedTuple):
    """Steps to the data of a kind of table, in their order, and the flags that name it. `difficulty`: those
    of runs that order samples. `identity`: the file by which one machine's data is told from another's."""

    steps: tuple[str, ...]
    flags: tuple[str, ...]
    difficulty: tuple[str, ...] = ()
    identity: str = ""


KINDS = {
    "text": Kind(
        ("collect", "tokenizer", "text"),
        ("--data-path", "{data}/text_text_document"),
        ("--difficulty-path", "{data}/text_text_difficulty"),
        "text_text_document.bin",
    ),
    "sentences": Kind(
        ("collect", "packages", "wordpiece", "sentences", "sentences-difficulty"),
        ("--data-path", "{data}/sentences_text_sentence"),
        ("--difficulty-path", "{data}/sentences_difficulty"),
        "sentences_text_sentence.bin",
    ),
    # 2 % of the descriptions are as many tokens as five passes of the scaled recipe want
    "descriptions": Kind(
        ("collect", "packages", "tokenizer", "descriptions"),
        ("--data-path", "{data}/descriptions_text_document", "--split", "2,5,93"),
        (),
        "descriptions_text_document.bin",
    ),
    "digits": Kind(("digits",), ("--data-path", "{data}/digits")),
    "mock": Kind((), ("--mock-data", "--vocab-size", "256")),
}


def steps_of(kind: str, data: Path) -> list[Step]:
    """What is to be done for a kind of data, with full paths."""
    every = _steps(data)
    return [
        Step(name, words, tuple(str(data / one) for one in outputs))
        for name, words, outputs in (every[name] for name in KINDS[kind].steps)
    ]


def prepare_steps(kinds: Iterable[str], data: Path) -> list[Step]:
    """What is to be done for several kinds, each step once."""
    return list(dict.fromkeys(step for kind in kinds for step in steps_of(kind, data)))


def is_done(step: Step) -> bool:
    """Whether all that a step writes is there; its files appear whole or not at all."""
    return all(Path(one).exists() for one in step.outputs)


def identity(kind: str, data: Path) -> str:
    """A few letters that differ where the data does."""
    path = data / KINDS[kind].identity
    return checksum(path)[:12] if KINDS[kind].identity and path.is_file() else ""


def flags_of(kind: str, data: Path, ordered: bool) -> list[str]:
    """Flags of training on this data; `ordered`: the run orders its samples by difficulty."""
    found = KINDS[kind]
    words = (*found.flags, *(found.difficulty if ordered else ()))
    return [word.format(data=data) for word in words]


def _steps(data: Path) -> dict[str, Step]:
    corpus, packages = str(data / "corpus.jsonl"), str(data / "packages")
    described = f"{packages}/text.jsonl"
    pieces, words = str(data / "tokenizer.json"), str(data / "wordpiece.json")
    gpt = ("--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", pieces)
    bert = ("--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", words)
    paths = sysconfig.get_paths()
    folders = (paths["stdlib"], paths["purelib"], *filter(_is_there, ("/usr/share/doc",)))
    pre, ana = "tools/preprocess_data.py", "tools/analyze_data.py"
    order = ("--append-eod", "--shuffle-documents", "1", "--max-sequence-length", "512", "--overwrite")
    found = [
        Step(
            "collect",
            ("tools/collect_corpus.py", "--output", corpus, "--min-size", "50", "--max-size", "80")
            + ("--input", *folders),
            ("corpus.jsonl",),
        ),
        Step("packages", ("tools/collect_labelled.py", "--output", packages), ("packages",)),
        Step(
            "tokenizer",
            ("tools/train_tokenizer.py", "--input", corpus, "--vocab-size", "8192", "--output", pieces),
            ("tokenizer.json",),
        ),
        Step(
            "wordpiece",
            ("tools/train_tokenizer.py", "--model", "wordpiece", "--input", corpus, described)
            + ("--vocab-size", "4096", "--output", words),
            ("wordpiece.json",),
        ),
        Step(
            "text",
            (pre, "--input", corpus, "--output-prefix", str(data / "text"), *gpt, *order)
            + ("--metrics", "vocab_rarity", "--seq-length", str(LENGTHS["text"]), "--split", SPLIT),
            ("text_text_document.bin", "text_text_difficulty"),
        ),
        Step(
            "descriptions",
            (pre, "--input", described, "--output-prefix", str(data / "descriptions"), *gpt, *order),
            ("descriptions_text_document.bin",),
        ),
        Step(
            "sentences",
            (pre, "--input", corpus, described, "--output-prefix", str(data / "sentences"), *bert)
            + ("--split-sentences", "--shuffle-documents", "1", "--overwrite"),
            ("sentences_text_sentence.bin",),
        ),
        Step(
            "sentences-difficulty",
            (ana, "--task", "bert", "--data-path", str(data / "sentences_text_sentence"), "--split", SPLIT)
            + ("--seq-length", str(LENGTHS["sentences"]), "--bert-passes", "5")
            + ("--metrics", "vocab_rarity", "--output-dir", str(data / "sentences_difficulty")),
            ("sentences_difficulty",),
        ),
        Step("digits", ("tools/collect_images.py", "--output", str(data / "digits")), ("digits",)),
    ]
    return {step.name: step for step in found}


def _is_there(path: str) -> bool:
    return Path(path).is_dir()
