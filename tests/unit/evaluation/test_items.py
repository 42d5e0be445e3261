"""Questions made of held-out texts: what they consist of, and that they follow from texts and seed alone."""

import random
import re

import pytest

from megatron.base.errors import UserError
from megatron.evaluation.held_out import Texts
from megatron.evaluation.items import (
    CLOZE_WORDS,
    CONTINUATION_WORDS,
    OTHERS,
    PASSAGE_WORDS,
    choice_items,
    cloze_items,
)

WORDS = [
    "river",
    "mountain",
    "forest",
    "letter",
    "garden",
    "window",
    "silver",
    "morning",
    "the",
    "and",
    "of,",
    "is",
    "12",
    "x_y",
    "Größe",
]


def made_up(seed: int, words: int) -> str:
    """A document in lines, each of whose words stands in it many times."""
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice([" ", " ", " ", "\n", ". "]) for _ in range(words))


DOCUMENTS = [made_up(seed, 200) for seed in range(12)] + ["short", "", "x " * 300]
TEXTS = Texts(len(DOCUMENTS), DOCUMENTS.__getitem__)


def test_the_last_word_of_a_passage_stands_in_it_before() -> None:
    items = cloze_items(TEXTS, 60, 5)
    assert len(items) == 60 == len(set(items))
    for passage, word in items:
        assert any(passage + word in text for text in DOCUMENTS)
        assert re.fullmatch(r" [^\W\d_]{4,}", word)
        assert re.search(rf"(?<!\w){word[1:]}(?!\w)", passage)
        assert CLOZE_WORDS[0] <= len(passage.split()) <= CLOZE_WORDS[1] + 1
        following = {
            text[text.index(passage + word) + len(passage + word) :][:1]
            for text in DOCUMENTS
            if passage + word in text
        }
        assert not any(re.match(r"\w", one) for one in following)


def test_a_continuation_stands_behind_its_passage_and_others_in_other_documents() -> None:
    items = choice_items(TEXTS, 60, 5)
    assert len(items) == 60 == len(set(items))
    for passage, continuations in items:
        true, *others = continuations
        (source,) = [text for text in DOCUMENTS if passage + true in text]
        assert len(passage.split()) == PASSAGE_WORDS and len(others) == OTHERS
        between = true[: len(true) - len(true.lstrip())]
        assert between and len({*continuations}) == 1 + OTHERS
        found = set()
        for one in continuations:
            assert len(one.split()) == CONTINUATION_WORDS and one.startswith(between)
            found |= {text for text in DOCUMENTS if one[len(between) :] in text}
        assert len(found) == 1 + OTHERS and source in found


@pytest.mark.parametrize("make", [cloze_items, choice_items])
def test_items_follow_from_texts_and_seed(make) -> None:
    items = make(TEXTS, 40, 5)
    assert make(TEXTS, 40, 5) == items and make(TEXTS, 10, 5) == items[:10]
    assert make(TEXTS, 40, 6) != items
    copy = Texts(len(DOCUMENTS), list(DOCUMENTS).__getitem__)
    assert make(copy, 40, 5) == items


@pytest.mark.parametrize("make, flag", [(cloze_items, "--cloze 7"), (choice_items, "--multiple-choice 7")])
@pytest.mark.parametrize("documents", [[], ["too short"], ["one alone " * 2]])
def test_texts_without_items_are_refused(make, flag: str, documents: list[str]) -> None:
    with pytest.raises(
        UserError, match=f"{flag}: none of {len(documents)} held-out documents gives a passage"
    ):
        make(Texts(len(documents), documents.__getitem__), 7, 1)


def test_fewer_items_than_asked_for_are_all_there_are() -> None:
    text = " ".join(f"word{number}" for number in range(30)) + " river and a river end"
    texts = Texts(1, [text].__getitem__)
    ((passage, word),) = cloze_items(texts, 50, 1)
    assert word == " river" and passage.endswith("river and a")
