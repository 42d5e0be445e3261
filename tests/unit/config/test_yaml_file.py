"""YAML files of flags, alone and beside a command line."""

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.config.arguments import parse
from tests.support.kitchen import Kitchen, Options, problems, read, yaml_file

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["oven-size", "heat", "fan", "cook", "style", "pans", "guests", "wish", "kitchen", "tables"]
) | VALUES.filter(lambda key: not isinstance(key, list | dict))


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
        (["--pans", "[20,30]"], ["--pans takes a whole number", "a word of its own: 20 30; or in a YAML"]),
        (["--pans", "20, 30"], ["as a list: [20, 30]"]),
        (["--no-fan"], ["unknown flag --no-fan; to turn it off, give --fan false"]),
        (["--no_fan"], ["unknown flag --no_fan; to turn it off, give --fan false"]),
        (["--no-guests"], ["unknown flag --no-guests; did you mean --guests?"]),
        (["--pans", "20", "9"], ["--pans 9 must be at least 10"]),
        (["--salt", "1"], ["--salt 1.0 must be in [0, 1)"]),
        (["--salt=-0.1"], ["--salt -0.1 must be in [0, 1)"]),
        (["--hours", "0"], ["--hours 0.0 must be above 0"]),
        (["--plates=-1"], ["--plates -1 must not be negative"]),
        (["--gests", "3"], ["unknown flag --gests", "did you mean --guests?"]),
        (["--gests=3"], ["unknown flag --gests", "did you mean --guests?"]),
        (["--napkin", "1"], ["unknown flag --napkin", "did you mean --napkins?"]),
        (["--tabels", "1"], ["unknown flag --tabels", "--help lists all flags"]),
        (["--fork-fre"], ["unknown flag --fork-fre", "--help lists all flags"]),
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


@pytest.mark.parametrize(
    "text", ["[kitchen]\nheat = 200\n", "guests = 3\n", "# rest\n[a]\nb = [1, 2]\n", "[a]\n"]
)
def test_toml_is_told_alone(tmp_path: Path, text: str) -> None:
    """Nothing is known of what it holds, so nothing is missing."""
    path = yaml_file(tmp_path, text)
    with pytest.raises(UserError) as caught:
        parse(Options, ["--config", path], description="")
    (problem,) = caught.value.problems
    assert problem.startswith(f"--config {path}: is TOML, and YAML is read: write 'flag: value'")


@pytest.mark.parametrize("key", ["cook", "chef", "--chef"])
def test_yaml_keys_may_be_any_spelling_of_a_flag(tmp_path: Path, key: str) -> None:
    assert read("--config", yaml_file(tmp_path, f"{key}: Ada\n")).kitchen.cook == "Ada"


def test_flags_win_over_yaml_and_null_is_no_value(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "guests: 7\nheat: 200\nfan: true\ncook: null\nwish: [soup]\n")
    options = read("--guests", "2", "--config", path, "--fan", "false", "--wish", "bread")
    assert options.guests == 2 and options.kitchen.fan is False and options.wish == ("bread",)
    assert options.kitchen.heat == 200 and options.kitchen.cook is None


@pytest.mark.parametrize(
    "text, words",
    [
        ("no_fan: true\n", ["unknown key no_fan; to turn it off, say fan: false"]),
        ("pans: 20,30\n", ["--pans takes a whole number", "in a YAML file as a list: [20, 30]"]),
        ("gests: 3\n", ["unknown key gests", "did you mean guests?"]),
        ("kitchn:\n  heat: 200\n", ["unknown section kitchn", "did you mean kitchen?"]),
        ("garden: {heat: 200}\n", ["unknown section garden", "sections are kitchen"]),
        ("kitchen: {gests: 3}\n", ["unknown key gests", "did you mean guests?"]),
        (
            "kitchen:\n  kitchen:\n    heat: 200\n",
            ["the section kitchen stands inside another one; sections stand side by side"],
        ),
        (
            "data_efficiency: {enabled: true, data_sampling: {enabled: true}}\n",
            ["data_efficiency is a section of DeepSpeed's JSON; move it into a file of --data-"],
        ),
        (
            "optimizer: {type: Adam, params: {lr: 1e-3}}\nfp16: {enabled: true}\n",
            ["optimizer, fp16 are sections of DeepSpeed's JSON; move them into a file"],
        ),
        (
            "deepspeed: {zero: 1}\n",
            ["deepspeed is a section of DeepSpeed's JSON; move it into a file of --data-efficiency-config"],
        ),
        (
            "deepspeed_config: {zero_stage: 2, gradient_clipping: 1.0}\n",
            ["deepspeed_config is a section of DeepSpeed's JSON; move it into a file"],
        ),
        ("heat: ${HEAT}\n", ["--heat takes a number, not '${HEAT}'; variables are read in paths alone"]),
        ("heat: warm\n", ["--heat takes a number", "'warm'"]),
        ("fan: 3\n", ["--fan takes true or false", "3"]),
        ("style: fried\n", ["--style fried", "baked"]),
        ("guests: [1, 2]\n", ["--guests takes one value, not 2"]),
        ("- guests\n", ["'flag: value' lines"]),
        ("guests: [1\n", ["cannot be read as YAML"]),
        ("guests: 1\nkitchen: {fan: true}\nguests: 2\n", ["the key guests stands twice, line 3"]),
        ("\x00", ["cannot be read as YAML"]),
        ("oven-size: 1\noven_size: 1\n", ["oven-size and oven_size are one flag, given 2 times"]),
        ("guests: 1\n--guests: 2\n", ["guests and --guests are one flag"]),
        ("guests: 1\nkitchen: {guests: 2}\n", ["guests and kitchen.guests are one flag"]),
        ("heat: 1\nkitchen: {heat: 2}\n", ["heat and kitchen.heat are one flag"]),
        ("napkins: 1\nkitchen: {--napkins: 2}\n", ["napkins and kitchen.--napkins are one flag"]),
        ("wish: {soup: {salt: 1, salt: 2}}\n", ["the key salt stands twice"]),
        ("pans: []\n", ["--pans needs a value"]),
        ("cook: ''\n", ["--cook is given an empty text"]),
        ("wish: ['']\n", ["--wish is given an empty text"]),
        ("heat: ''\n", ["--heat takes a number, not ''"]),
        ("cook: [null]\n", ["--cook takes a text, not None"]),
        ("wish: [null]\n", ["--wish takes a text, not None"]),
    ],
)
def test_every_mistake_in_a_yaml_file_is_one_problem(tmp_path: Path, text: str, words: list[str]) -> None:
    (problem,) = problems("--config", yaml_file(tmp_path, text))
    assert all(word in problem for word in words), problem


def test_mistakes_of_yaml_and_flags_are_told_together(tmp_path: Path) -> None:
    assert len(problems("--config", yaml_file(tmp_path, "gests: 3\nheat: warm\n"), "--tables", "2")) == 3


@pytest.mark.parametrize("text", ["wish: []\n", "wish: {}\n", "wish:\n", "kitchen:\n", "kitchen: {}\n"])
def test_an_empty_list_and_null_are_no_value(tmp_path: Path, text: str) -> None:
    path = yaml_file(tmp_path, text)
    options = read("--config", path)
    assert (options.kitchen, options.guests, options.wish) == (read().kitchen, 4, ())
    assert read("--config", path, "--wish", "soup").wish == ("soup",)


def test_an_empty_yaml_file_says_nothing(tmp_path: Path) -> None:
    assert read("--config", yaml_file(tmp_path, "")).guests == 4


@pytest.mark.parametrize(
    "text, value", [("012", 12), ("1_000", 1000), ("1e2", 100), ("100", 100), ("'7'", 7), ("3.0", 3)]
)
def test_numbers_mean_what_they_mean_on_the_command_line(tmp_path: Path, text: str, value: int) -> None:
    assert read("--config", yaml_file(tmp_path, f"guests: {text}\n")).guests == value
    assert read("--guests", text.strip("'")).guests == value


@pytest.mark.parametrize("text", ["1:30", "0x10", "0b11", "12:30:45"])
def test_what_only_yaml_takes_for_a_number_is_refused(tmp_path: Path, text: str) -> None:
    (problem,) = problems("--config", yaml_file(tmp_path, f"guests: {text}\n"))
    assert problem == f"--guests takes a whole number, not '{text}'"
    assert problems("--guests", text) == (problem,)


def test_a_text_that_looks_like_a_number_of_base_60_stays_as_it_is(tmp_path: Path) -> None:
    assert read("--config", yaml_file(tmp_path, "cook: 90:5:5\n")).kitchen.cook == "90:5:5"


@pytest.mark.parametrize(("encoding", "byte"), [("utf-16", "byte 1 is"), ("cp1252", "byte 9 is")])
def test_files_of_windows_are_told_the_way(tmp_path: Path, encoding: str, byte: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("cook: Zoé # two\r\n".encode(encoding))
    (problem,) = problems("--config", str(path))
    assert byte in problem and f"iconv -f {encoding.upper()} -t UTF-8" in problem
    path.write_bytes("\ufeffcook: Zoé\r\nfan: true\r\n".encode())
    kitchen = read("--config", str(path)).kitchen
    assert (kitchen.cook, kitchen.fan) == ("Zoé", True)
