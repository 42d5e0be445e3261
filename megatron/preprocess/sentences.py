"""Documents into sentences, by libraries that carry what they know of a language: nothing is downloaded.

English is nupunkt's, which is Punkt (Kiss and Strunk 2006, Unsupervised Multilingual Sentence Boundary
Detection) with parameters of its own, inside paragraphs: a blank line ends a sentence, too. The other
languages are sentencex's, which has rules and abbreviations of each.
"""

import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

import numpy as np

ENGLISH = "english"
CODES = {
    "amharic": "am",
    "arabic": "ar",
    "armenian": "hy",
    "bengali": "bn",
    "bulgarian": "bg",
    "burmese": "my",
    "catalan": "ca",
    "chinese": "zh",
    "danish": "da",
    "dutch": "nl",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "greek": "el",
    "gujarati": "gu",
    "hindi": "hi",
    "italian": "it",
    "japanese": "ja",
    "kannada": "kn",
    "kazakh": "kk",
    "malayalam": "ml",
    "marathi": "mr",
    "polish": "pl",
    "portuguese": "pt",
    "punjabi": "pa",
    "russian": "ru",
    "slovak": "sk",
    "spanish": "es",
    "tamil": "ta",
    "telugu": "te",
    "ukrainian": "uk",
}
"""The languages that sentencex has rules for, and Chinese, whose marks it knows; others it takes for one of
these."""
LANGUAGES = (ENGLISH, *CODES)

MAY_END = re.compile(r"""[.?!…][\s)";}\]*:@({\[?!”»'’]""")
"""Signs that end sentences, before what they end one before."""
ELSEWHERE = re.compile(r"[。！？｡।॥؟։።][^\w\n]*\w")
"""Signs that end sentences in other languages than English, amid a text."""
LONG_SENTENCE = 2000
"""Bytes of a sentence that is none: its end was not seen."""
WIDE_SPACE = re.compile(r"[^\S\x00-\x7f](?=\.)")
Split = Callable[[str], list[str]]


def sentence_splitter(language: str, keep_newlines: bool = False) -> Split:
    """A text to its sentences, without the white space around them; a text of white space has none. With
    `keep_newlines` each but the last keeps the white space behind it, as in Megatron."""
    split = _nupunkt() if language == ENGLISH else _sentencex(CODES[language])
    return _with_spaces(split) if keep_newlines else split


def _with_spaces(split: Split) -> Split:
    """Nothing but white space lies between sentences, so each begins where its text is found next."""

    def split_with_spaces(text: str) -> list[str]:
        sentences, starts, end = split(text), list[int](), 0
        for sentence in sentences:
            starts.append(text.index(sentence, end))
            end = starts[-1] + len(sentence)
        return [text[start:stop] for start, stop in zip(starts, [*starts[1:], end])]

    return split_with_spaces


def describe_splitter(language: str, keep_newlines: bool) -> dict[str, Any]:
    """What must be equal for two datasets to hold the same sentences of a text."""
    library = "nupunkt" if language == ENGLISH else "sentencex"
    return {
        "splitter": library,
        "version": importlib.metadata.version(library),
        "language": language,
        "keep_newlines": keep_newlines,
    }


def is_unsplit(sentence: str, size: int) -> bool:
    """Whether the end of a sentence of `size` UTF-8 bytes was not seen, as where its language is another."""
    return size > LONG_SENTENCE or (not sentence.isascii() and ELSEWHERE.search(sentence) is not None)


def split_all(texts: list[str], split: Split) -> tuple[list[str], np.ndarray]:
    """The sentences of all texts, and how many each has; int64 [texts]."""
    sentences = [split(text) for text in texts]
    counts = np.array([len(some) for some in sentences], np.int64)
    return [one for some in sentences for one in some], counts


def _nupunkt() -> Split:
    """As its `sentences` does, without the spans, and without asking it where nothing could end a sentence:
    both cost a sixth of the time."""
    import nupunkt
    from nupunkt.layout import iter_blocks

    punkt = nupunkt.load_default_model().tokenize

    def split(text: str) -> list[str]:
        sentences = []
        for start, stop in iter_blocks(text):
            if MAY_END.search(text, start, stop):
                sentences += [one.strip() for one in punkt(text[start:stop])]
            else:
                sentences.append(text[start:stop].strip())
        return sentences

    return split


def _sentencex(code: str) -> Split:
    """It gives up on a wide space before a period, of which it takes one byte: there it sees a plain one."""
    import sentencex

    def split(text: str) -> list[str]:
        parts, end = sentencex.segment(code, WIDE_SPACE.sub(" ", text)), 0
        sentences = []
        for part in parts:
            sentences.append(text[end : end + len(part)].strip())
            end += len(part)
        return [one for one in sentences if one]

    return split
