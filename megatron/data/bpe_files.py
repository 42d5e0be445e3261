"""Whether the vocabulary and the merges of a BPE are of one tokenizer. With wrong merges a text becomes
single bytes, and nothing else shows it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError

Merges = list[tuple[str, str]]
WORD_END = "</w>"
"""What ends a word in the vocabularies of CLIP and of the first GPT."""
NO_TEXT = re.compile(r"<.*>|\[.*\]|madeupword\d+", re.DOTALL)
"""Names of tokens that stand beside a vocabulary: special tokens, bytes, and those that only fill it up."""
SHOWN = 3


def read_bpe(vocab_file: Path, merge_file: Path) -> tuple[dict[str, int], Merges]:
    """vocab.json and merges.txt. UserError with the difference where they are not of one BPE."""
    wrong = f"{vocab_file}, {merge_file}: are no vocab.json and merges.txt of one BPE: "
    vocabulary: dict[str, int] = {}
    try:
        vocabulary = _vocabulary(_json(vocab_file.read_text(encoding="utf-8-sig")))
        lines = merge_file.read_text(encoding="utf-8-sig").split("\n")
        merges = _merges(lines)
    except (ValueError, OSError) as error:
        raise UserError(f"{wrong}{error}{_way(vocabulary)}") from None
    if sum(right.endswith(WORD_END) for _, right in merges) > len(merges) / 10:
        raise UserError(
            f"{vocab_file}, {merge_file}: mark the ends of words with {WORD_END}, as those of CLIP do and "
            "those of GPT-2 do not; give the tokenizer.json of this tokenizer with --tokenizer-type "
            "HuggingFaceTokenizer"
        )
    if problem := _problem(vocabulary, merges):
        raise UserError(f"{wrong}{problem}{_way(vocabulary)}")
    return vocabulary, merges


def _way(vocabulary: Iterable[str]) -> str:
    """What to do about files that do not fit. In a merges.txt a line is a merge with a space in it."""
    texts = (one for one in vocabulary if len(one) > 1 and not NO_TEXT.fullmatch(one))
    if not (spaced := next((one for one in texts if set(" \n\r").intersection(one)), "")):
        return "; name both files of one tokenizer by --vocab-file and --merge-file"
    return (
        f"; tokens hold white space, such as {spaced!r}, which a merges.txt cannot keep: save this tokenizer "
        "whole as a tokenizer.json, and give that with --tokenizer-type HuggingFaceTokenizer"
    )


def made_by(merges: Iterable[Sequence[str]], prefix: str = "") -> set[str]:
    """The tokens that merges make. `prefix`: marks what continues a word, and is lost where it is joined."""
    return {left + right.removeprefix(prefix) for left, right in merges}


def unmade(
    vocabulary: Iterable[str], merges: Iterable[Sequence[str]], prefix: str = "", suffix: str = ""
) -> list[str]:
    """Tokens of text that no merge makes, though they have several characters beside the marks of what
    continues a word and of what ends one."""
    made = made_by(merges, prefix)
    long = (one for one in vocabulary if len(one.removeprefix(prefix).removesuffix(suffix)) > 1)
    return [one for one in long if one not in made and not NO_TEXT.fullmatch(one)]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        why = error if text.strip() else "it is empty"
        raise ValueError(f"the first is no JSON ({why})") from None


def _vocabulary(content: Any) -> dict[str, int]:
    if not isinstance(content, dict) or not all(isinstance(number, int) for number in content.values()):
        raise ValueError("the first is no object of tokens and their ids")
    if problem := shared_ids(content.items()):
        raise ValueError(f"the first {problem}")
    return content


def shared_ids(tokens: Iterable[tuple[str, int]]) -> str:
    """What is wrong where two tokens have one id, with a way out; empty where none have."""
    owner: dict[int, str] = {}
    for token, number in tokens:
        if owner.setdefault(number, token) != token:
            return (
                f"gives {owner[number]!r} and {token!r} the same id, {number}, so that one text would be "
                "read as the other; bring the file again, or train the tokenizer again"
            )
    return ""


def _merges(lines: list[str]) -> Merges:
    """The pairs of a merges.txt; a first line may name a version."""
    merges = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#version"):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"line {number} of the second, {line[:40]!r}, is no pair of tokens")
        merges.append((parts[0], parts[1]))
    return merges


def _problem(vocabulary: Mapping[str, int], merges: Merges) -> str | None:
    """What tells two tokenizers apart, or shows that one file is cut."""
    counts = f"{len(vocabulary):,} tokens and {len(merges):,} merges"
    for number, (left, right) in enumerate(merges, 1):
        if missing := [one for one in (left, right, left + right) if one not in vocabulary]:
            return f"of {counts}, merge {number} ({left} {right}) needs {missing[0]!r}, which is no token"
    from tokenizers import pre_tokenizers

    absent = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys())
    if absent:
        return f"{len(absent)} of the 256 bytes are no token of it, such as {absent[0]!r}"
    if lost := unmade(vocabulary, merges):
        return (
            f"of {counts}, {len(lost):,} tokens are made by no merge, such as "
            f"{' '.join(map(repr, lost[:SHOWN]))}; the merges are cut, or of another vocabulary"
        )
    return None
