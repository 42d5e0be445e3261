import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.config.arguments import build, flag, known, missing, parse, understand, unused_flags
from megatron.config.other_megatrons import Foreign
from megatron.config.values import Unknown


@dataclass(frozen=True)
class Kitchen:
    oven_size: int = flag(help="litres of the oven")
    heat: float = flag(180.0, "degrees")
    fan: bool = flag(False, "100% air")
    cook: str | None = flag(None, "name of the cook", aliases=("--chef",), metavar="NAME")
    style: str = flag("baked", "way to cook", choices=("baked", "boiled"))
    pans: tuple[int, ...] = flag((20, 24), "diameters of the pans", at_least=10)
    salt: float = flag(0.5, "share of the salt", at_least=0, below=1)
    hours: float = flag(1.0, "time in the oven", above=0)
    plates: int = flag(2, "clean plates", at_least=0)


@dataclass(frozen=True)
class Options:
    kitchen: Kitchen
    guests: int = flag(4, "people to feed")
    wish: tuple[str, ...] = flag((), "DISH:key=value,...", repeat=True, metavar="SPEC")
    config: str | None = flag(None, "YAML file", metavar="FILE")


FOREIGN = {
    "tables": Foreign(("1",), "there is one table"),
    "napkins": Foreign(None, "nobody uses them"),
    "fork-free": Foreign((), "forks are needed"),
}


def read(*argv: str) -> Options:
    return parse(
        Options,
        ["--oven-size", "60", *argv],
        description="Cook.",
        examples="  cook --oven-size 60",
        foreign=FOREIGN,
    )


def problems(*argv: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        read(*argv)
    return caught.value.problems


def yaml_file(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


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


@pytest.mark.parametrize("text", ["1.5", "1e-3", "many", "", "1e999", "inf", "nan", "0x10", "1,000", "12k"])
def test_what_is_no_whole_number_is_told(text: str) -> None:
    assert problems("--guests", text) == (f"--guests takes a whole number, not {text!r}",)


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
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["oven-size", "heat", "fan", "cook", "style", "pans", "guests", "wish", "kitchen", "tables"]
) | VALUES.filter(lambda key: not isinstance(key, list | dict))


@given(st.lists(WORDS | TEXTS, max_size=6))
@settings(deadline=None)
def test_every_command_line_ends_in_options_or_in_a_mistake_of_the_user(words: list[str]) -> None:
    try:
        assert isinstance(read(*words), Options)
    except UserError as error:
        assert error.problems and all(error.problems)
    except SystemExit:
        assert "-h" in [word[:2] for word in words]


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(deadline=None)
def test_every_yaml_file_ends_in_options_or_in_a_mistake_of_the_user(content: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = yaml_file(Path(folder), yaml.safe_dump(content, allow_unicode=True))
        try:
            assert isinstance(read("--config", path), Options)
        except UserError as error:
            assert error.problems and all(error.problems)


@pytest.mark.parametrize("value", ["2020-01-01", "[null]", "{}", "[]", "yes", ".nan", "[[1, 2]]"])
def test_a_yaml_value_that_is_no_number_is_one_problem(tmp_path: Path, value: str) -> None:
    (problem,) = problems("--config", yaml_file(tmp_path, f"heat: {value}\n"))
    assert "--heat" in problem


def test_a_flag_that_repeats_gathers_its_values_in_order() -> None:
    assert read("--wish", "soup:salt=1", "--guests", "2", "--wish", "bread").wish == ("soup:salt=1", "bread")


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--heat", "warm"], ["--heat takes a number", "'warm'"]),
        (["--heat", "nan"], ["--heat takes a number", "'nan'"]),
        (["--heat", "inf"], ["--heat takes a number", "'inf'"]),
        (["--fan", "on"], ["--fan takes true or false", "'on'"]),
        (["--style", "fried"], ["--style fried", "baked", "boiled"]),
        (["--cook"], ["--cook needs a value", "name of the cook"]),
        (["--guests"], ["--guests needs a value", "people to feed"]),
        (["--guests", "1", "2"], ["--guests takes one value, not 2", "1 2"]),
        (["--pans"], ["--pans needs a value"]),
        (["--guests", "1e30"], ["--guests takes a whole number"]),
        (["--pans", "20", "big"], ["--pans takes a whole number", "'big'"]),
        (["--pans", "20", "9"], ["--pans 9 must be at least 10"]),
        (["--salt", "1"], ["--salt 1.0 must be in [0, 1)"]),
        (["--salt=-0.1"], ["--salt -0.1 must be in [0, 1)"]),
        (["--hours", "0"], ["--hours 0.0 must be above 0"]),
        (["--plates=-1"], ["--plates -1 must not be negative"]),
        (["--gests", "3"], ["unknown flag --gests", "did you mean --guests?"]),
        (["--gests=3"], ["unknown flag --gests", "did you mean --guests?"]),
        (["--tabels", "1"], ["unknown flag --tabels", "did you mean --tables?"]),
        (["--xyzzyx"], ["unknown flag --xyzzyx", "--help lists all flags"]),
        (["--guest", "3"], ["unknown flag --guest"]),
        (["--fan", "true", "false"], ["'false' stands where no value is expected"]),
        (["--tables", "2"], ["--tables 2 is refused", "there is one table"]),
        (["--fork-free"], ["--fork-free is refused", "forks are needed"]),
        (["--config", "/no/such/file.yaml"], ["--config /no/such/file.yaml", "No such file"]),
        (["--config"], ["--config needs a value"]),
    ],
)
def test_every_mistake_alone_is_one_problem_that_names_the_flag(argv: list[str], words: list[str]) -> None:
    (problem,) = problems(*argv)
    assert all(word in problem for word in words), problem


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
    assert unused_flags(Options, argv, FOREIGN) == [
        "--napkins is accepted and not used: nobody uses them",
        "--tables is accepted and not used: there is one table",
    ]
    assert unused_flags(Options, ["--tables=1"], FOREIGN) == [
        "--tables is accepted and not used: there is one table"
    ]
    assert unused_flags(Options, ["--heat", "5"], FOREIGN) == []


@pytest.mark.parametrize(
    "text",
    [
        "heat: 200\nfan: true\nguests: 7\npans: [10, 20]\nwish: [soup, bread]\n",
        "kitchen:\n  heat: 200\n  fan: true\n  pans: [10, 20]\nguests: 7\nwish:\n- soup\n- bread\n",
        "kitchen: {heat: 2e2, fan: 'TRUE', pans: ['10', 20.0]}\n--guests: 7\nwish: [[soup], bread]\n",
    ],
)
def test_yaml_files_flat_or_in_sections(tmp_path: Path, text: str) -> None:
    options = read("--config", yaml_file(tmp_path, text))
    assert options.kitchen == Kitchen(oven_size=60, heat=200.0, fan=True, pans=(10, 20))
    assert options.guests == 7 and options.wish == ("soup", "bread")


@pytest.mark.parametrize("key", ["oven-size", "oven_size", "--oven-size"])
def test_yaml_keys_are_written_with_dashes_or_underscores(tmp_path: Path, key: str) -> None:
    path = yaml_file(tmp_path, f"{key}: 1e2\n")
    assert parse(Options, ["--config", path], description="").kitchen.oven_size == 100


def test_a_nested_mapping_becomes_specs(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "wish:\n  soup: {salt: 1, heat: low}\n  bread: {flour: 2}\n")
    assert read("--config", path).wish == ("soup:salt=1,heat=low", "bread:flour=2")
    path = yaml_file(tmp_path, "wish:\n- soup: {salt: 1}\n- bread: {flour: 2}\n- plain\n")
    assert read("--config", path).wish == ("soup:salt=1", "bread:flour=2", "plain")


def test_flags_win_over_yaml_and_null_is_no_value(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "guests: 7\nheat: 200\nfan: true\ncook: null\nwish: [soup]\n")
    options = read("--guests", "2", "--config", path, "--fan", "false", "--wish", "bread")
    assert options.guests == 2 and options.kitchen.fan is False and options.wish == ("bread",)
    assert options.kitchen.heat == 200 and options.kitchen.cook is None


@pytest.mark.parametrize(
    "text, words",
    [
        ("gests: 3\n", ["unknown key gests", "did you mean guests?"]),
        ("heat: warm\n", ["--heat takes a number", "'warm'"]),
        ("fan: 3\n", ["--fan takes true or false", "3"]),
        ("style: fried\n", ["--style fried", "baked"]),
        ("guests: [1, 2]\n", ["--guests takes one value, not 2"]),
        ("- guests\n", ["'flag: value' lines"]),
        ("guests: [1\n", ["cannot be read as YAML"]),
        ("guests: 1\nkitchen: {fan: true}\nguests: 2\n", ["the key guests stands twice, line 3"]),
        ("\x00", ["cannot be read as YAML"]),
    ],
)
def test_every_mistake_in_a_yaml_file_is_one_problem(tmp_path: Path, text: str, words: list[str]) -> None:
    (problem,) = problems("--config", yaml_file(tmp_path, text))
    assert all(word in problem for word in words), problem


def test_mistakes_of_yaml_and_flags_are_told_together(tmp_path: Path) -> None:
    assert len(problems("--config", yaml_file(tmp_path, "gests: 3\nheat: warm\n"), "--tables", "2")) == 3


def test_an_empty_yaml_file_says_nothing(tmp_path: Path) -> None:
    assert read("--config", yaml_file(tmp_path, "")).guests == 4


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
        "--napkins is accepted and not used: nobody uses them"
    ]
