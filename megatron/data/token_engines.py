"""How texts become ids: one function per library, `encode(texts) -> (ids, lengths)`, which all give the same
ids.

The reference of a tokenizer is the library that defines it (HF tokenizers, sentencepiece or tiktoken).
gigatoken is some fifty times faster and is used only where it agrees with the reference on a probe;
`tools/preprocess_data.py` goes on comparing.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import regex

from megatron.base.errors import UserError

Encoding = tuple[np.ndarray, np.ndarray]
"""The ids of some texts back to back, and how many each text has."""
Encode = Callable[[list[str]], Encoding]

PROBE = (
    "The 3rd child's don't-care bits, they'LL say: 1234567890 x=3.14e-2;\r\n\tif a<b && c>=d:\n\n\n    "
    "return {'k': [1, 2]}  # ok   ",
    "  leading, trailing  and   inner   spaces \n \n\t\t mixed\u00a0kinds\u2003of\u3000them\n",
    "Größe déjà vu naïve coöperate Straße, ¡señor! Ελληνικά русский язык עברית العربية हिन्दी ไทย 中文字符 "
    "日本語カナ 한국어",
    "e\u0301 a\u0308\u0323 \u200bzero\u200dwidth \ufeffmark \U0001f469\u200d\U0001f4bb \U0001f1e9\U0001f1ea",
    "\u2460 \u00bd \u2167 \ufb01 \u0130\u0131",
    "",
    " ",
    "\n",
)


def tokenizers_engine(tokenizer: Any) -> Encode:
    """By HF's `tokenizers`. Nothing is added, cut or padded. UserError where it refuses a text."""

    def encode(texts: list[str]) -> Encoding:
        try:
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library has no class of its own for it
            raise UserError(
                f"the tokenizer has no token for something in the text ({error}); name its unknown token in "
                "its file, or use a tokenizer that has a token for every byte"
            ) from None
        return _join([encoding.ids for encoding in encodings])

    return encode


def sentencepiece_engine(processor: Any) -> Encode:
    """By sentencepiece itself, on one thread: preprocessing has a process for every core."""

    def encode(texts: list[str]) -> Encoding:
        return _join(processor.encode(texts, out_type=int, num_threads=1))

    return encode


def tiktoken_engine(encoding: Any) -> Encode:
    """By OpenAI's tiktoken, on one thread. The name of a special token inside a text is plain text. Where its
    regex engine gives up, as on a million spaces in a row, `regex` finds the words."""

    def of_text(text: str) -> list[int]:
        try:
            ids: list[int] = encoding.encode(text, allowed_special=set(), disallowed_special=())
        except ValueError:
            words = regex.findall(encoding._pat_str, text)
            ids = [number for word in words for number in encoding._encode_single_piece(word)]
        return ids

    def encode(texts: list[str]) -> Encoding:
        return _join(list(map(of_text, texts)))

    return encode


def numbers_engine(vocab_size: int) -> Encode:
    """Texts that are ids already, parted by white space. UserError where one is none."""

    def encode(texts: list[str]) -> Encoding:
        return _join([_numbers(text, vocab_size) for text in texts])

    return encode


def gigatoken_engine(tokenizer_json: str | None = None, sentencepiece_model: str | None = None) -> Encode:
    """By gigatoken, from the content of a tokenizer.json or the path of a .model; ValueError where it
    knows no such tokenizer."""
    import gigatoken

    try:
        if tokenizer_json is not None:
            tokenizer = gigatoken.Tokenizer.from_json(tokenizer_json)
        else:
            tokenizer = gigatoken.Tokenizer.from_sentencepiece(str(sentencepiece_model))
    except (RuntimeError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0]) from None

    def encode(texts: list[str]) -> Encoding:
        layout: Any = tokenizer.encode_batch(texts).layout
        return np.asarray(layout.content.data), np.diff(np.asarray(layout.offsets.data))

    return encode


def apart(pattern: re.Pattern[str], fast: Encode, reference: Encode) -> Encode:
    """Encode by `fast`, but texts that hold `pattern` by `reference`."""

    def encode(texts: list[str]) -> Encoding:
        held = [number for number, text in enumerate(texts) if pattern.search(text)]
        if not held:
            return fast(texts)
        ids, lengths = fast(texts)
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for number in held:
            parts[number] = reference([texts[number]])[0]
        return np.concatenate(parts), np.array([len(part) for part in parts])

    return encode


def first_difference(one: Encoding, other: Encoding) -> int | None:
    """The number of the first text that was encoded differently; None where there is none."""
    if all(map(np.array_equal, one, other)):
        return None
    pairs = zip(*(np.split(ids, np.cumsum(lengths)[:-1]) for ids, lengths in (one, other)))
    return next(number for number, pair in enumerate(pairs) if not np.array_equal(*pair))


def probe(tokens: Iterable[str]) -> list[str]:
    """Texts that tell engines apart, among them every one of the given special or added tokens in several
    surroundings."""
    return [*PROBE, "".join(f"a {token} b{token}c  {token}\n{token}{token}." for token in tokens)]


def _join(rows: list[Any]) -> Encoding:
    lengths = np.array([len(row) for row in rows], np.int64)
    arrays = [np.asarray(row, np.uint32) for row in rows]
    return np.concatenate(arrays) if arrays else np.empty(0, np.uint32), lengths


def _numbers(text: str, vocab_size: int) -> np.ndarray:
    try:
        ids = np.array(text.split(), np.int64)
    except (ValueError, OverflowError):
        word = next(word for word in text.split() if not re.fullmatch(r"[+-]?\d{1,18}", word))
        raise UserError(
            f"NullTokenizer takes texts of numbers parted by spaces, not {word[:40]!r}; give such, or the "
            "--tokenizer-type of the text"
        ) from None
    if len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size:
        outside = int(ids.max() if ids.max() >= vocab_size else ids.min())
        raise UserError(
            f"NullTokenizer: the id {outside} is outside the vocabulary of {vocab_size}; raise --vocab-size"
        )
    return ids
