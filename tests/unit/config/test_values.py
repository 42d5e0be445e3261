import os
import pwd

import pytest

from megatron.config.flags import flag
from megatron.config.values import Known, Unknown, bounds, flatten, parse_list, with_home, within


def test_a_list_in_a_mapping_is_its_values_apart_by_slashes():
    """As --curriculum takes them: a comma parts its keys."""
    raw = {"voc": {"pacing": "fixed_discrete", "values": ["8", "16"], "until": ["100"]}}
    assert flatten(raw) == flatten([raw]) == ["voc:pacing=fixed_discrete,values=8/16,until=100"]


@pytest.mark.parametrize(
    "text, numbers", [("3", [3]), ("1-4", [1, 2, 3, 4]), ("0,3-5", [0, 3, 4, 5]), ("7-7,1", [7, 1])]
)
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert parse_list(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1,", "1-2-3", "-1", "1-", "5-3"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        parse_list(text)


@pytest.mark.parametrize(
    "limits, words, inside, outside",
    [
        ({}, "", [-1, 0, 1e9], []),
        ({"at_least": 1}, "at least 1", [1, 2], [0, -1]),
        ({"above": 0}, "above 0", [0.1, 1], [0, -1]),
        ({"at_most": 3}, "at most 3", [3, -9], [4]),
        ({"below": 3}, "below 3", [2.9, -9], [3]),
        ({"at_least": 0, "below": 1}, "in [0, 1)", [0, 0.5], [-0.1, 1]),
        ({"above": 0, "at_most": 1}, "in (0, 1]", [0.1, 1], [0, 1.1]),
    ],
)
def test_bounds(limits: dict, words: str, inside: list[float], outside: list[float]) -> None:
    about = flag(0, "a number", **limits).metadata
    assert bounds(about) == words
    assert all(within(value, about) for value in inside)
    assert not any(within(value, about) for value in outside)


def test_what_is_unknown_cannot_be_read() -> None:
    values = Known(size=3, group=Known(name=None))
    assert values.size == 3 and values.group.name is None
    for read in (lambda: values.colour, lambda: values.group.colour):
        with pytest.raises(Unknown):
            read()


@pytest.mark.parametrize(
    "text, read",
    [
        ("~/runs/my", "/home/me/runs/my"),
        ("$SCRATCH/my", "/scratch/my"),
        ("${SCRATCH}", "/scratch"),
        ("~", "~"),
        ("~no-such-user/my", "~no-such-user/my"),
        ("~root/my", os.path.join(pwd.getpwnam("root").pw_dir, "my")),
        ("runs/~/$SCRATCH", "runs/~/$SCRATCH"),
        ("$NOBODY_HAS_THIS/my", "$NOBODY_HAS_THIS/my"),
        (r"(?:$|\s)", r"(?:$|\s)"),
    ],
)
def test_a_path_begins_as_a_shell_reads_it(text: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert with_home(text) == read
