"""YAML files of flags that include others."""

from pathlib import Path

import pytest

from megatron.config.arguments import understand
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.reproduce.plans import RECIPES, Options
from tests.support.kitchen import problems, read


def files(folder: Path, **contents: str) -> str:
    """YAML files by name, of which `run` is the one to read."""
    for name, text in contents.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return str(folder / "run.yaml")


def test_a_file_wins_over_what_it_includes_and_the_command_line_over_both(tmp_path: Path) -> None:
    path = files(
        tmp_path,
        run="include: base.yaml\nguests: 3\nkitchen:\n  cook: Ada\n",
        base="guests: 2\ncook: Bea\nwish: [soup, bread]\nheat: 1.5\n",
    )
    options = read("--config", path, "--heat", "2")
    assert (options.guests, options.kitchen.cook, options.kitchen.heat) == (3, "Ada", 2.0)
    assert options.wish == ("soup", "bread")


def test_paths_are_relative_to_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    files(tmp_path, base="include: inner/deep.yaml\nguests: 2\n")
    (tmp_path / "inner" / "deep.yaml").write_text("heat: 3\n", encoding="utf-8")
    (tmp_path / "inner" / "run.yaml").write_text("include: ../base.yaml\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "inner")
    assert (read("--config", "run.yaml").guests, read("--config", "run.yaml").kitchen.heat) == (2, 3.0)


def test_a_home_folder_is_read_as_a_shell_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    files(tmp_path / "home", base="guests: 7\n")
    assert read("--config", files(tmp_path, run="include: ~/base.yaml\n")).guests == 7


def test_files_side_by_side_may_share_a_base(tmp_path: Path) -> None:
    path = files(
        tmp_path,
        run="include: [one.yaml, two.yaml]\n",
        one="include: base.yaml\nheat: 1\n",
        two="include: base.yaml\ncook: Ada\n",
        base="guests: 7\n",
    )
    options = read("--config", path)
    assert (options.guests, options.kitchen.heat, options.kitchen.cook) == (7, 1.0, "Ada")


def test_files_side_by_side_that_contradict_are_told_unless_the_file_says_which(tmp_path: Path) -> None:
    sides = {"one": "guests: 1\n", "two": "guests: 2\n"}
    path = files(tmp_path, run="include: [one.yaml, two.yaml]\n", **sides)
    (problem,) = problems("--config", path)
    words = f"{tmp_path}/one.yaml says guests: 1, and {tmp_path}/two.yaml says 2; say here which it is"
    assert problem == f"--config {path}: {words}"
    path = files(tmp_path, run="include: [one.yaml, two.yaml]\nguests: 3\n", **sides)
    assert read("--config", path).guests == 3


def test_an_empty_value_takes_a_flag_back(tmp_path: Path) -> None:
    path = files(tmp_path, run="include: base.yaml\nguests:\nwish: []\n", base="guests: 9\nwish: soup\n")
    assert (read("--config", path).guests, read("--config", path).wish) == (4, ())


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"run": "include: base.yaml\n"}, ["include {}/base.yaml: cannot be read as YAML: No such file"]),
        ({"run": "include: run.yaml\n"}, ["include {}/run.yaml: includes itself; leave one of them out"]),
        (
            {"run": "include: base.yaml\n", "base": "include: run.yaml\n"},
            ["include {}/run.yaml: includes itself by way of {}/base.yaml"],
        ),
        ({"run": "include: [base.yaml, base.yaml]\n", "base": ""}, ["base.yaml: stands twice; keep one"]),
        ({"run": "include: {a: 1}\n"}, ["include must be the name of a file, or a list of names"]),
        ({"run": "include: ['']\n"}, ["include must be the name of a file"]),
        (
            {"run": "include: base.yaml\n", "base": "guests: 1\nguests: 2\n"},
            ["guests stands twice"],
        ),
        ({"run": "include: base.yaml\n", "base": "gests: 1\n"}, ["--config {}/base.yaml: unknown key gests"]),
    ],
)
def test_what_is_wrong_with_included_files_is_one_line(
    tmp_path: Path, contents: dict[str, str], words: list[str]
) -> None:
    (problem,) = problems("--config", files(tmp_path, **contents))
    assert problem.startswith(f"--config {tmp_path}/")
    assert all(part.replace("{}", str(tmp_path)) in problem for part in words), problem


def test_a_mistake_in_a_shared_base_is_told_once(tmp_path: Path) -> None:
    path = files(
        tmp_path,
        run="include: [one.yaml, two.yaml]\n",
        one="include: base.yaml\n",
        two="include: base.yaml\n",
        base="gests: 7\n",
    )
    assert len(problems("--config", path)) == 1


@pytest.mark.parametrize("where", ["above", "command line"])
def test_a_switch_that_is_turned_off_takes_what_belongs_to_it_along(tmp_path: Path, where: str) -> None:
    base = RECIPES / "gpt3_1.3b" / "composed_300b.yaml"
    path = files(tmp_path, run=f"include: {base}\n" + "random_ltd: false\n" * (where == "above"))
    words = ["--scale", "mini", *(("--random-ltd", "false") if where == "command line" else ())]
    off = understand(Options, ["--config", path, *words], "", "", FOREIGN_FLAGS)
    assert "random_ltd_min" in understand(Options, ["--config", str(base)], "", "", FOREIGN_FLAGS)[0]
    assert off[0]["random_ltd"] is False and off[1] == []
    assert not [name for name in off[0] if name.startswith("random_ltd_")] and off[0]["curriculum"]
