import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.config.arguments import build, known, missing, parse, understand, unused_flags
from megatron.config.config import Config
from megatron.config.foreign import Foreign
from megatron.config.values import Unknown
from tests.support.kitchen import FOREIGN, Kitchen, Options, problems, read


def test_a_file_whose_name_begins_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-a.jsonl").touch()
    assert "-a.jsonl is read as a flag; give the file as ./-a.jsonl" in problems("--chef", "-a.jsonl")


def test_defaults_and_groups() -> None:
    options = read()
    assert options.kitchen == Kitchen(
        oven_size=60,
        heat=180.0,
        fan=False,
        cook=None,
        style="baked",
        pans=(20, 24),
        salt=0.5,
        hours=1.0,
        plates=2,
    )
    assert (options.guests, options.wish, options.config) == (4, (), None)


@pytest.mark.parametrize(
    "argv, field, value",
    [
        (["--heat", "1.5e2"], "heat", 150.0),
        (["--heat=-3"], "heat", -3.0),
        (["--fan"], "fan", True),
        (["--fan", "false"], "fan", False),
        (["--fan", "True"], "fan", True),
        (["--chef", "Ada"], "cook", "Ada"),
        (["--cook=Ada = Eve"], "cook", "Ada = Eve"),
        (["--style", "boiled"], "style", "boiled"),
        (["--pans", "10", "20", "30"], "pans", (10, 20, 30)),
        (["--salt", "0"], "salt", 0.0),
        (["--plates", "0"], "plates", 0),
        (["--heat", "1", "--heat", "2"], "heat", 2.0),
    ],
)
def test_every_kind_of_value(argv: list[str], field: str, value: object) -> None:
    mine = getattr(read(*argv).kitchen, field)
    assert mine == value and type(mine) is type(value)


@pytest.mark.parametrize(
    "text, value",
    [
        ("12", 12),
        ("1_000", 1000),
        ("300e9", 300 * 10**9),
        ("3E2", 300),
        ("2.0", 2),
        ("1.5e3", 1500),
        ("-7", -7),
        ("1e12", 10**12),
    ],
)
def test_whole_numbers_may_be_written_as_people_write_them(text: str, value: int) -> None:
    mine = read("--guests", text).guests
    assert mine == value and type(mine) is int


@pytest.mark.parametrize("text", ["1.5", "1e-3", "many", "", "1e999", "inf", "nan", "0x10"])
def test_what_is_no_whole_number_is_told(text: str) -> None:
    assert problems("--guests", text) == (f"--guests takes a whole number, not {text!r}",)


@pytest.mark.parametrize(
    "flag, text, way",
    [
        ("--guests", "1,000", "1000"),
        ("--guests", "12k", "12e3"),
        ("--guests", "1.5B", "1.5e9"),
        ("--guests", "0.5", ""),
        ("--guests", "10%", ""),
        ("--heat", "10%", "10e-2"),
        ("--heat", "0,1", ""),
    ],
)
def test_a_number_as_people_write_it_elsewhere_is_shown_as_it_is_written_here(
    flag: str, text: str, way: str
) -> None:
    (problem,) = problems(flag, text)
    assert problem.partition(f"not {text!r}")[2] == (f"; write {way}" if way else "")


def test_the_last_of_several_values_counts_and_is_told() -> None:
    given = ["--oven-size", "9", "--heat", "7", "--fan", "--oven-size=60", "--heat", "7"]
    assert read(*given).kitchen.oven_size == 60
    told = "of --oven-size 9 and --oven-size=60 the last one counts"
    assert unused_flags(Options, given, FOREIGN) == [told]
    assert unused_flags(Options, ["--wish", "a:b=1", "--wish", "c:d=2"], FOREIGN) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--fan --fan true", False),
        ("--fan --fan=False", True),
        ("--heat 1e2 --heat=100.0", False),
        ("--pans 20 24 --pans 2e1 24", False),
        ("--pans 20 24 --pans 24 20", True),
        ("--style baked --style BAKED", False),
    ],
)
def test_one_value_in_two_spellings_is_no_conflict(words: str, told: bool) -> None:
    assert bool(unused_flags(Options, words.split(), FOREIGN)) == told


def test_values_that_add_up_are_not_lost_silently() -> None:
    problem, _ = problems("--config", "a.yml", "--config=b.yml")
    assert problem == (
        "--config a.yml and --config=b.yml: only the last of them would count; include one in the other, or "
        "keep one"
    )


def test_a_file_of_flags_alone_is_told_where_it_belongs() -> None:
    (problem,) = understand(Options, ["run.yml"])[1]
    assert problem == "'run.yml' stands where no value is expected; give it by --config"


@given(st.integers(-(10**15), 10**15))
@settings(deadline=None)
def test_every_whole_number_is_read_back(number: int) -> None:
    for text in (str(number), f"{number:_}", f"{number}.0"):
        assert read(f"--guests={text}").guests == number


WORDS = st.sampled_from(
    [
        "--guests",
        "--heat",
        "--fan",
        "--pans",
        "--wish",
        "--style=baked",
        "--tables",
        "--gests",
        "--",
        "-",
        "-1",
        "1",
        "2.5",
        "true",
        "--=",
        "=",
    ]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(WORDS | TEXTS, max_size=6))
@settings(deadline=None)
def test_every_command_line_ends_in_options_or_in_a_mistake_of_the_user(words: list[str]) -> None:
    try:
        assert isinstance(read(*words), Options)
    except UserError as error:
        assert error.problems and all(error.problems)
    except SystemExit:
        assert any(word[:2] == "-h" or word == "--help" for word in words)


def test_a_flag_that_repeats_gathers_its_values_in_order() -> None:
    assert read("--wish", "soup:salt=1", "--guests", "2", "--wish", "bread").wish == ("soup:salt=1", "bread")


def test_a_required_flag_that_is_missing_is_told_with_its_meaning() -> None:
    with pytest.raises(UserError, match="--oven-size is required: litres of the oven"):
        parse(Options, [], description="")


def test_several_mistakes_are_told_together() -> None:
    found = problems("--gests", "3", "--heat", "warm", "--style", "fried", "--tables", "2", "--cook")
    assert len(found) == 5
    for name in ("--gests", "--heat", "--style", "--tables", "--cook"):
        assert sum(name in problem for problem in found) == 1


def test_foreign_flags_that_change_nothing_are_accepted_and_said_to_be_unused() -> None:
    argv = ["--tables", "1", "--napkins", "red", "blue", "--heat", "5"]
    assert read(*argv).kitchen.heat == 5
    assert unused_flags(Options, argv, FOREIGN) == ["not used here: --napkins (nobody uses them)"]
    for silent in ("--tables=1", "--tables 1.0", "--napkins false", "--heat 5"):
        assert unused_flags(Options, silent.split(), FOREIGN) == []


def test_help_of_a_small_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert (
        "--cook NAME, --chef NAME" in text
        and re.search(r"--fan +100% air\n", text)
        and "(default: 20 24)" in text
    )


def test_a_command_line_is_understood_as_far_as_it_goes() -> None:
    values, told = understand(Options, ["--heat", "warm", "--plates", "-1", "--guests", "7", "--gests", "1"])
    assert values == {"heat": None, "plates": None, "guests": 7} and len(told) == 3
    assert missing(Options, values) == ["--oven-size is required: litres of the oven"]
    groups = known(Options, values)
    assert (groups.guests, groups.kitchen.hours, groups.kitchen.cook) == (7, 1.0, None)
    for name in ("oven_size", "heat", "plates"):
        with pytest.raises(Unknown):
            getattr(groups.kitchen, name)
    assert build(Options, known(Options, {"oven_size": 60})) == read()


def test_a_flag_of_our_own_wins_over_one_of_another_megatron() -> None:
    foreign = {**FOREIGN, "heat": Foreign((), "it is cold"), "chef": Foreign((), "nobody cooks")}
    argv = ["--oven-size", "60", "--heat", "5", "--chef", "Ada"]
    kitchen = parse(Options, argv, description="", foreign=foreign).kitchen
    assert (kitchen.heat, kitchen.cook) == (5.0, "Ada")
    assert unused_flags(Options, [*argv, "--napkins"], foreign) == [
        "not used here: --napkins (nobody uses them)"
    ]


def test_a_value_that_is_no_utf8_is_one_problem() -> None:
    (problem,) = problems("--cook", os.fsdecode(b"Z\xfcrich"))
    assert problem.startswith(r"--cook 'Z\udcfcrich' is no UTF-8; rename what it names")


@pytest.mark.parametrize("words", [["--save=~/runs"], ["--save", "$SCRATCH"], ["--config"]])
def test_a_path_may_begin_at_home_or_with_a_variable(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a folder would come to be that is named ~."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/home/me/runs")
    (tmp_path / "run.yaml").write_text("save: ~/runs\n")
    words = [*words, str(tmp_path / "run.yaml")] if words == ["--config"] else words
    assert understand(Config, words)[0]["save"] == "/home/me/runs"


@pytest.mark.parametrize("place", ["$NOBODY_HAS_THIS/my", "${oc.env:SCRATCH}/my"])
def test_a_path_of_no_variable_is_refused(place: str) -> None:
    values, told = understand(Config, ["--save", place, "--wandb-exp-name", place])
    assert len(told) == 1 and told[0].startswith(
        f"--save {place}: names a variable that is not in the environment"
    )
    assert values["wandb_exp_name"] == place


def test_a_path_below_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell leaves `--larder=~/a` as it is, and so does a file: a folder named ~ would be made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("--larder=~/a/b").kitchen.larder == f"{tmp_path}/a/b"
    assert read("--larder", "~Ada").kitchen.larder == "~Ada"
    (tmp_path / "menu.yaml").write_text("larder: ~/c\nguests: 3\n")
    options = read("--config=~/menu.yaml")
    assert (options.kitchen.larder, options.guests) == (f"{tmp_path}/c", 3)
