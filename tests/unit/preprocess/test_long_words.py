"""Words that no trainer of tokenizers takes as a whole are cut, and nothing else is."""

import pytest

from megatron.preprocess.long_words import LONGEST_WORD, cut_long_words


@pytest.mark.parametrize("letter", ["x", " ", "\u4f60", "7", "="])
@pytest.mark.parametrize("before", ["", "a 1 " * 333])
def test_long_words_are_cut(letter: str, before: str) -> None:
    whole = before + letter * LONGEST_WORD + "\nb!"
    assert cut_long_words(whole)[0] == whole or letter == " "
    text = before + letter * (3 * LONGEST_WORD - 7) + "b!"
    parts = cut_long_words(text)
    assert "".join(parts) == text
    assert len(parts) == 3 and max(map(len, parts)) <= LONGEST_WORD + len(before)


def test_other_texts_are_whole() -> None:
    for text in ("", "a", "some words, " * 5000, ("y" * (LONGEST_WORD - 1) + " ") * 3):
        assert cut_long_words(text) == [text]
