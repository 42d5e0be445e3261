"""Megatron's text of what lies on every stage."""

import pytest

from megatron.config.pipeline_layout import read_layout, text_problems


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("EttL", ["EttL"]),
        ("Et|t|L", ["Et", "t", "L"]),
        ("Et*3|t*2,L", ["Ettt", "ttL"]),
        ("Et|(tt|)*2 L", ["Et", "tt", "tt", "L"]),
        ("E|(t*2|t|)*2L", ["E", "tt", "t", "tt", "t", "L"]),
        ("E((t|)*2tt|)*2L", ["Et", "t", "tt", "t", "t", "tt", "L"]),
        ("E|*2tL", ["E", "", "tL"]),
        ("Et*3|(tt|)*29,L", ["Ettt", *["tt"] * 29, "L"]),
        ("Et*0t|L", ["Et", "L"]),
    ],
)
def test_repetitions_are_written_out(text: str, stages: list[str]) -> None:
    assert read_layout(text) == stages
    assert text_problems(text.replace("|*2", "|"), "".join(stages).count("t")) == []


@pytest.mark.parametrize("text", ["Et*99999|L", "E((((t*9999)*9999)*9999)*9999)*9999L", "Et*9999999999999|L"])
def test_a_layout_without_end_is_refused_and_not_written_out(text: str) -> None:
    assert text_problems(text, 4)
    assert sum(map(len, read_layout(text))) < 10**8


def test_all_that_is_wrong_with_a_text_is_told() -> None:
    assert text_problems("tE||t", 4) == [
        "--pipeline-model-parallel-layout tE||t: it has 2 layers (t), not --num-layers 4; write so many, or "
        "give --num-layers 2",
        "--pipeline-model-parallel-layout tE||t: the embedding E must stand first, and once",
        "--pipeline-model-parallel-layout tE||t: the head L must stand last, and once",
        "--pipeline-model-parallel-layout tE||t: stage 2 of 3 has nothing; give it a layer, or leave out a |",
    ]
