"""Words so long that trainers of tokenizers, whose time grows with the square of a word's length, would not
come to an end."""

import regex

LONGEST_WORD = 10_000
"""Letters of a word that is learned from as a whole, in some tenths of a second."""
RUN = regex.compile(r"\p{L}+|\p{N}+|\s+|[^\s\p{L}\p{N}]+")
"""Characters of one kind, as words are to byte-level tokenizers."""


def cut_long_words(text: str) -> list[str]:
    """A text in parts, which end inside words that are longer; in one where there are none."""
    if not _has_long_words(text):
        return [text]
    words = (one.span() for one in RUN.finditer(text))
    cuts = [cut for start, end in words for cut in range(start + LONGEST_WORD, end, LONGEST_WORD)]
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)])]


def _has_long_words(text: str) -> bool:
    """Whether some words may be too long: such a word fills one of the blocks of half its length."""
    block = LONGEST_WORD // 2
    return any(RUN.fullmatch(text, at, at + block) for at in range(0, len(text) - block + 1, block))
