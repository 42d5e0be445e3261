"""A tokenizer as a value, and what all kinds of tokenizers need to make one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import lfs_problem
from megatron.base.folders import or_nearest
from megatron.data.token_engines import Encode, first_difference

TextSizes = Callable[[Sequence[np.ndarray]], np.ndarray]


class EndOfDocument(NamedTuple):
    """The token that ends documents: its id, its name, and why it is this one."""

    id: int
    name: str
    reason: str


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as a value. `encode_batch` gives the ids of all texts back to back and the length of
    each. `reference` does the same by the library that defines the tokenizer. `files`: by the flag that
    names each."""

    kind: str
    files: dict[str, Path]
    engine: str
    encode_batch: Encode
    reference: Encode
    decode: Callable[[Sequence[int] | np.ndarray], str]
    vocab_size: int
    end: EndOfDocument
    pad: int | None
    special_tokens: dict[str, int]
    text_sizes: TextSizes
    """UTF-8 bytes of the text of every row of ids, each from the beginning of a document; int64 [rows]."""
    vocabulary: Mapping[str, int]
    """The ids of tokens by name: of all, but of TikTokenizer's special ones alone, whose others are bytes."""
    continues: Callable[[], np.ndarray | None]
    """Whether each token continues the word of the token before it; bool [vocab_size]. None where tokens do
    not tell."""
    around: tuple[str, ...] = ()
    """Tokens that the files put around a text, and that are left out here."""
    settings: tuple[Any, ...] = ()
    """Values of flags, besides the files, that change ids."""
    sha256: tuple[str, ...] = ()
    """Of every file, as it was when the tokenizer was built."""

    @property
    def eod(self) -> int:
        return self.end.id

    def identity(self) -> dict[str, Any]:
        """What must be equal for two datasets to hold the same ids."""
        settings = {"settings": list(self.settings)} if self.settings else {}
        return {"type": self.kind, "sha256": list(self.sha256), "vocab_size": self.vocab_size, **settings}


def given_path(options: Any, name: str) -> Path:
    """The path in an option, which must exist on this machine."""
    flag = "--" + name.replace("_", "-")
    value = getattr(options, name)
    if not value:
        raise UserError(f"{flag} is missing: --tokenizer-type {options.tokenizer_type} needs it")
    if not Path(value).exists():
        raise UserError(
            f"{flag} {value}: does not exist; it must be a local path, tokenizers are never fetched from "
            f"a hub{or_nearest(str(value))}"
        )
    if problem := lfs_problem(value):
        raise UserError(problem)
    return Path(value)


def given_file(path: Path, hint: str = "give the file itself") -> Path:
    if not path.is_file():
        raise UserError(f"{path}: is no file; {hint}")
    if problem := lfs_problem(path):
        raise UserError(problem)
    return path


GIGATOKEN, WORD_TABLE = FAST = ("gigatoken", "a table of words")
"""Engines that are compared with the reference."""


def choose_engine(
    engine: str,
    reference: Encode,
    fast: Callable[[], Encode],
    texts: list[str],
    name: str = "tokenizers",
    fast_name: str = GIGATOKEN,
) -> tuple[str, Encode]:
    """The name and function of the engine to use; the fast one only where it encodes the probe as the
    reference does. `name`: of the reference."""
    if engine == "tokenizers":
        return name, reference
    try:
        if engine == GIGATOKEN != fast_name:
            raise ValueError("it knows no WordPiece")
        candidate = fast()
        different = first_difference(candidate(texts), reference(texts))
        if different is None:
            return fast_name, candidate
        why = f"it encodes {texts[different][:60]!r} otherwise"
    except ValueError as error:
        why = str(error)
    if engine == "gigatoken":
        raise UserError(
            f"--tokenizer-engine gigatoken: gigatoken cannot do this tokenizer ({why}); leave the flag out"
        )
    return name, reference


def continuing(vocabulary: Mapping[str, int], size: int, continues: Callable[[str], bool]) -> np.ndarray:
    """The tokens for whose names `continues` holds; bool [size]."""
    out = np.zeros(size, bool)
    out[[number for token, number in vocabulary.items() if continues(token)]] = True
    return out


def sizes_by_table(counts: np.ndarray) -> TextSizes:
    """For tokens that stand for the same bytes everywhere; `counts`: of every token, int64 [vocab_size]."""
    return lambda rows: np.array([int(counts[row].sum()) for row in rows], np.int64)


def sizes_by_decoding(decode: Callable[[list[list[int]]], list[str]], byte_tokens: set[int]) -> TextSizes:
    """For tokens whose text depends on their neighbours. A row may end inside a character that is written
    as `byte_tokens`, each of one byte; what is left of it is counted, not decoded."""

    def sizes(rows: Sequence[np.ndarray]) -> np.ndarray:
        wholes, rests = [], []
        for row in rows:
            ids = row.tolist()
            end = len(ids)
            while end and ids[end - 1] in byte_tokens:
                end -= 1
            wholes.append(ids[:end])
            rests.append(len(ids) - end)
        texts = decode(wholes) if wholes else []
        return np.array([len(text.encode()) + rest for text, rest in zip(texts, rests)], np.int64)

    return sizes
