"""The data that tables share, made once from what this machine has: commands, and what they write."""

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from megatron.base.errors import UserError
from megatron.base.files import checksum

SPLIT = "949,50,1"


class Step(NamedTuple):
    """A command, the files or folders that it writes, and where it runs."""

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]


class Order(NamedTuple):
    """Of samples that a run draws by their difficulty: tokens of a sample, and the run's seed, by which
    sentences are joined to samples."""

    length: int
    seed: int


class Kind(NamedTuple):
    """Steps to the data of a kind of table, in their order, and the flags that name it. `difficulty`: the
    folder of difficulties, by the order of a run; `analysis`: words of the command that writes it.
    `identity`: the file by which one machine's data is told from another's."""

    steps: tuple[str, ...]
    flags: tuple[str, ...]
    difficulty: str = ""
    analysis: tuple[str, ...] = ()
    identity: str = ""


KINDS = {
    "text": Kind(
        ("collect", "tokenizer", "text"),
        ("--data-path", "{data}/text_text_document"),
        "text_difficulty_{order.length}",
        ("--metrics", "vocab_rarity"),
        "text_text_document.bin",
    ),
    # 2,048 pieces, so that a small model's head computes as small a part of it as a large one's
    "small_vocabulary": Kind(
        ("collect", "small_tokenizer", "small_vocabulary"),
        ("--data-path", "{data}/small_vocabulary_text_document"),
        "small_vocabulary_difficulties_{order.length}",
        ("--metrics", "vocab_rarity", "distinct_tokens"),
        "small_vocabulary_text_document.bin",
    ),
    "sentences": Kind(
        ("collect", "packages", "wordpiece", "sentences"),
        ("--data-path", "{data}/sentences_text_sentence"),
        "sentences_difficulty_{order.length}_seed{order.seed}",
        ("--task", "bert", "--bert-passes", "5", "--seed", "{order.seed}")
        + ("--metrics", "seqlen", "vocab_rarity", "seqlen_vocab_rarity"),
        "sentences_text_sentence.bin",
    ),
    # 19 % of Debian 12's short descriptions are 133,000 tokens, which the scaled recipe passes five times
    "descriptions": Kind(
        ("collect", "packages", "tokenizer", "descriptions"),
        ("--data-path", "{data}/descriptions_text_document", "--split", "19,5,76"),
        identity="descriptions_text_document.bin",
    ),
    "digits": Kind(("digits",), ("--data-path", "{data}/digits")),
    "letters": Kind(("letters",), ("--data-path", "{data}/letters")),
    "mock": Kind((), ("--mock-data", "--vocab-size", "256")),
}


def steps_of(kind: str, data: Path, order: Order | None) -> list[Step]:
    """What is to be done for a run on a kind of data, with full paths."""
    every = [_steps(data)[name] for name in KINDS[kind].steps]
    every += [_analysis(kind, data, order)] if order else []
    return [Step(name, words, tuple(str(data / one) for one in outputs)) for name, words, outputs in every]


def _analysis(kind: str, data: Path, order: Order) -> Step:
    """The difficulty of every sample of a run. UserError where a kind of data has none."""
    found = KINDS[kind]
    if not found.difficulty:
        raise UserError(f"data {kind}: has no difficulties; leave rows that order samples by them out")
    folder = found.difficulty.format(order=order)
    words = [word.format(data=data, order=order) for word in (*found.flags, *found.analysis)]
    words += ["--split", SPLIT, "--seq-length", str(order.length), "--output-dir", str(data / folder)]
    return Step(folder.replace("_", "-"), ("tools/analyze_data.py", *words), (folder,))


def is_done(step: Step) -> bool:
    """Whether all that a step writes is there; its files appear whole or not at all."""
    return all(Path(one).exists() for one in step.outputs)


def identity(kinds: Iterable[str], data: Path) -> str:
    """A few letters that differ where the data does."""
    paths = [data / KINDS[kind].identity for kind in kinds if KINDS[kind].identity]
    return "-".join(checksum(path)[:12] for path in paths if path.is_file())


def flags_of(kind: str, data: Path, order: Order | None) -> list[str]:
    """Flags of training on this data."""
    found = KINDS[kind]
    words = [word.format(data=data) for word in found.flags]
    folder = found.difficulty.format(order=order) if order else ""
    return [*words, *(("--difficulty-path", str(data / folder)) if folder else ())]


def _steps(data: Path) -> dict[str, Step]:
    corpus, packages, words = (str(data / name) for name in ("corpus.jsonl", "packages", "wordpiece.json"))
    described = f"{packages}/text.jsonl"
    bert = ("--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", words)
    paths = sysconfig.get_paths()
    folders = (paths["stdlib"], paths["purelib"], *filter(_is_there, ("/usr/share/doc",)))
    found = [
        Step(
            "collect",
            ("tools/collect_corpus.py", "--output", corpus, "--min-size", "50", "--max-size", "80")
            + ("--input", *folders),
            ("corpus.jsonl",),
        ),
        Step("packages", ("tools/collect_labelled.py", "--output", packages), ("packages",)),
        _tokenizer("tokenizer", corpus, 8192, data),
        _tokenizer("small_tokenizer", corpus, 2048, data),
        Step(
            "wordpiece",
            ("tools/train_tokenizer.py", "--model", "wordpiece", "--input", corpus, described)
            + ("--vocab-size", "4096", "--output", words),
            ("wordpiece.json",),
        ),
        _tokens("text", corpus, "tokenizer", data),
        _tokens("small_vocabulary", corpus, "small_tokenizer", data),
        _tokens("descriptions", described, "tokenizer", data),
        Step(
            "sentences",
            ("tools/preprocess_data.py", "--input", corpus, described)
            + ("--output-prefix", str(data / "sentences"), *bert)
            + ("--split-sentences", "--shuffle-documents", "1", "--overwrite"),
            ("sentences_text_sentence.bin",),
        ),
        *(_images(name, data) for name in ("digits", "letters")),
    ]
    return {step.name: step for step in found}


def _tokenizer(name: str, corpus: str, size: int, data: Path) -> Step:
    words = ("--input", corpus, "--vocab-size", str(size), "--output", str(data / f"{name}.json"))
    return Step(name, ("tools/train_tokenizer.py", *words), (f"{name}.json",))


def _tokens(name: str, text: str, tokenizer: str, data: Path) -> Step:
    """The tokens of a GPT's text, by the tokenizer of that step."""
    places = ("--input", text, "--output-prefix", str(data / name))
    pieces = (
        "--tokenizer-type",
        "HuggingFaceTokenizer",
        "--tokenizer-model",
        str(data / f"{tokenizer}.json"),
    )
    order = ("--append-eod", "--shuffle-documents", "1", "--max-sequence-length", "512", "--overwrite")
    words = ("tools/preprocess_data.py", *places, *pieces, *order)
    return Step(name, words, (f"{name}_text_document.bin",))


def _images(name: str, data: Path) -> Step:
    words = ("tools/collect_images.py", "--images", name, "--output", str(data / name))
    return Step(name, words, (name,))


def _is_there(path: str) -> bool:
    return Path(path).is_dir()
