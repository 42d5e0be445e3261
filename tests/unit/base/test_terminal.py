"""What long work tells of itself where nothing is a terminal."""

import pytest
from rich.table import Table

from megatron.base import terminal
from megatron.base.units import count_of


def test_progress_tells_what_is_left_once_it_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 20.0, 25.0, 30.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with terminal.progress("finetuning", 6, "steps") as advance:
        advance(0)  # at 10 s
        advance(2)  # at 20 s: 0.1 a second, and 4 are left
        advance(1)  # too soon for a line
        advance(1)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "finetuning: 0%, 0.0 steps/s"
    assert second == "finetuning: 33%, 0.1 steps/s, 40 s left"
    assert third == "finetuning: 67%, 0.1 steps/s, 15 s left"


@pytest.mark.parametrize(("rank", "told"), [(None, "note: one\n"), ("0", "note: one\n"), ("1", "")])
def test_notes_of_what_all_ranks_find_come_once(
    rank: str | None, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank:
        monkeypatch.setenv("RANK", rank)
    terminal.print_note("one")
    terminal.print_note("one", error=True)
    assert capsys.readouterr() == (told, told)


def test_one_thing_is_no_several() -> None:
    assert [count_of(number, "step") for number in (0, 1, 1000)] == ["0 steps", "1 step", "1,000 steps"]


def test_brackets_and_colons_of_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[head]", title="/data/[v1]/:100:")
    table.add_row("[/news] [bold]a")
    terminal.show(table, "[red]b")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("[head]", "/data/[v1]/:100:", "[/news] [bold]a", "[red]b"))
