"""What of a text is new to a process, and that all of it is verified, whatever came first."""

import unicodedata

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.preprocess import encoding
from megatron.preprocess.novelty import AROUND, CODE_POINTS, describe, find_new, new_memory
from megatron.preprocess.preprocess import preprocess
from tests.support.made_up_text import make_options, write_lines


def points(texts: list[str], memory) -> list[str]:
    """The new code points of texts, in the order of their first places."""
    passages = find_new(texts, memory)
    features = np.concatenate([passage.features for passage in passages]) if passages else np.empty(0, int)
    memory.verified[features] = True
    return [chr(feature) for feature in features if feature < CODE_POINTS]


def pairs(texts: list[str], memory) -> int:
    features = [one for passage in find_new(texts, memory) for one in passage.features.tolist()]
    memory.verified[features] = True
    return sum(feature >= CODE_POINTS for feature in features)


def test_a_code_point_is_new_once():
    memory = new_memory(0)
    assert points(["plain \x00\x1f text\n", "", "~"], memory) == []
    assert points(["naïve", "plain", "ï and é, é"], memory) == ["ï", "é"]
    assert points(["naïve é"], memory) == []
    assert points(["\U0001f600 é \U0001f601 \u200b"], memory) == ["\U0001f600", "\U0001f601", "\u200b"]


def test_kinds_side_by_side_are_new_once():
    memory = new_memory(0)
    assert pairs(["xकx"], memory) == 2  # letter and Devanagari, Devanagari and letter
    assert pairs(["xखx"], memory) == 0  # another letter of the same kinds
    assert pairs(["कख"], memory) == 3  # at a line's beginning, two of them, at a line's end
    assert pairs(["कि"], memory) == 2  # a letter and a mark, a mark and a line's end
    assert pairs(["漢語", "語漢"], memory) == 3
    assert pairs(["\u3400\u9fff"], memory) == 0  # Han is one block


def test_blocks_beyond_the_basic_plane_are_of_1024_code_points():
    memory = new_memory(0)
    assert pairs(["漢"], memory) == 2
    assert pairs(["\U00010000"], memory) == 2  # the first of a block, a letter
    assert pairs(["\U000103a0"], memory) == 0  # another letter of it
    assert pairs(["\U00010450"], memory) == 2  # a letter of the next block
    assert pairs(["\U00020000", "\U0003134a"], memory) == 0  # Han again


def test_passages_lie_around_what_is_new():
    texts = ["x" * 1000 + "é" + "y" * 1000 + "ñ" + "z" * 1000, "plain", "q" * 500 + "ж"]
    passages = find_new(texts, new_memory(0))
    assert [passage.text for passage in passages] == [
        "x" * AROUND + "é" + "y" * AROUND,
        "y" * AROUND + "ñ" + "z" * AROUND,
        "q" * (AROUND + 1) + "ж\n",  # the first new thing is the pair of q and ж
    ]
    assert [passage.number for passage in passages] == [0, 0, 2]
    assert "".join(texts).count("é") == 1


def test_categories_are_all_known():
    memory = new_memory(0)
    everything = "".join(chr(code) for code in range(CODE_POINTS) if unicodedata.category(chr(code)) != "Cs")
    assert len(points([everything], memory)) == len(everything) - 128
    assert memory.kinds.max() < 1 << 13


def test_words():
    assert (
        describe({233, 0x4E00, CODE_POINTS + 7})
        == "2 code points (U+00E9 U+4E00) and 1 pairs of kinds of them"
    )
    assert describe({233, 234, 235, 236}).startswith("4 code points (U+00E9 U+00EA U+00EB ...)")


def test_a_difference_behind_many_unusual_texts_is_found(tmp_path, monkeypatch, wrong_gigatoken):
    """One rare letter behind so much of a script that a budget for unusual texts was spent on it."""
    monkeypatch.setattr(encoding, "SAMPLE_BYTES", 0)
    monkeypatch.setattr(encoding, "NEW_BYTES", 5000)
    texts = ["हिन्दी भाषा " * 20] * 400 + ["a ḧ"] + ["हिन्दी भाषा " * 20] * 40
    path = write_lines(tmp_path / "a.jsonl", texts)
    with pytest.raises(UserError, match=r"line 401 differently: 'a ḧ'"):
        preprocess(make_options(tmp_path, path, tokenizer_engine="gigatoken"))


def test_what_was_not_verified_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoding, "NEW_BYTES", 200)
    path = write_lines(tmp_path / "a.jsonl", ["é", "x" * 200 + "".join(map(chr, range(0x4E00, 0x4F00)))])
    totals = preprocess(make_options(tmp_path, path, tokenizer_engine="gigatoken"))
    assert {0xE9} <= totals.verified and set(range(0x4E00, 0x4F00)) <= totals.unverified
    printed = capsys.readouterr().out
    assert "not verified: 256 code points (U+4E00 U+4E01 U+4E02 ...) and " in printed
    monkeypatch.setattr(encoding, "NEW_BYTES", 1 << 22)
    totals = preprocess(make_options(tmp_path, path, tokenizer_engine="gigatoken"))
    assert not totals.unverified and len([one for one in totals.verified if one < CODE_POINTS]) == 257
    assert "not verified" not in capsys.readouterr().out
