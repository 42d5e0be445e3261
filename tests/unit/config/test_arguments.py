import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.command import run_command
from megatron.base.errors import UserError
from megatron.config.arguments import Foreign, flag, flags_of, parse, parse_list, unused_flags
from megatron.config.config import Config, resolve
from megatron.config.other_megatrons import FOREIGN_FLAGS
from tests.support.configurations import SMALL, make_config


@dataclass(frozen=True)
class Kitchen:
    oven_size: int = flag(help="litres of the oven")
    heat: float = flag(180.0, "degrees")
    fan: bool = flag(False, "100% air")
    cook: str | None = flag(None, "name of the cook", aliases=("--chef",), metavar="NAME")
    style: str = flag("baked", "way to cook", choices=("baked", "boiled"))
    pans: tuple[int, ...] = flag((20, 24), "diameters of the pans")


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
        oven_size=60, heat=180.0, fan=False, cook=None, style="baked", pans=(20, 24)
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
        (["--pans", "1", "2", "3"], "pans", (1, 2, 3)),
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
    assert unused_flags(argv, FOREIGN) == [
        "--napkins is accepted and not used: nobody uses them",
        "--tables is accepted and not used: there is one table",
    ]
    assert unused_flags(["--tables=1"], FOREIGN) == ["--tables is accepted and not used: there is one table"]
    assert unused_flags(["--heat", "5"], FOREIGN) == []


@pytest.mark.parametrize(
    "text",
    [
        "heat: 200\nfan: true\nguests: 7\npans: [1, 2]\nwish: [soup, bread]\n",
        "kitchen:\n  heat: 200\n  fan: true\n  pans: [1, 2]\nguests: 7\nwish:\n- soup\n- bread\n",
        "kitchen: {heat: 2e2, fan: 'TRUE', pans: ['1', 2.0]}\n--guests: 7\nwish: [[soup], bread]\n",
    ],
)
def test_yaml_files_flat_or_in_sections(tmp_path: Path, text: str) -> None:
    options = read("--config", yaml_file(tmp_path, text))
    assert options.kitchen == Kitchen(oven_size=60, heat=200.0, fan=True, pans=(1, 2))
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


def test_the_section_optimizer_may_hold_the_flag_optimizer(tmp_path: Path) -> None:
    """The section and one of its flags have the same name."""
    path = yaml_file(tmp_path, "optimizer:\n  optimizer: no-such\n  weight_decay: 0.5\n")
    with pytest.raises(UserError, match="--optimizer no-such: choose one of adam"):
        parse(Config, [*SMALL.split(), "--config", path], description="")


def test_help_lists_every_flag_and_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(
            Config,
            ["--help"],
            description="Train.",
            examples="  python pretrain_gpt.py --lr 1",
            foreign=FOREIGN_FLAGS,
        )
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "Train." in text and "examples:\n  python pretrain_gpt.py --lr 1" in text
    shown = set(re.findall(r"(?<![\w-])--[\w-]+", text))
    flags = flags_of(Config)
    assert {spelling for one in flags for spelling in one.spellings} <= shown
    assert not {f"--{name}" for name in FOREIGN_FLAGS} & shown
    for group in ("model", "data", "training", "optimizer", "data efficiency", "checkpoint", "logging"):
        assert f"\n{group}:\n" in text
    assert "(default: 969,30,1)" in text and "(required)" in text and "[LayerNorm | RMSNorm]" in text


def test_help_of_a_small_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    assert (
        "--cook NAME, --chef NAME" in text
        and re.search(r"--fan +100% air\n", text)
        and "(default: 20 24)" in text
    )


def test_no_two_flags_share_a_spelling_and_every_flag_says_what_it_is() -> None:
    flags = flags_of(Config)
    spellings = [spelling for one in flags for spelling in one.spellings]
    assert len(set(spellings)) == len(spellings)
    assert all(one.field.metadata["help"] for one in flags)
    assert not {f"--{name}" for name in FOREIGN_FLAGS} & set(spellings)


@pytest.mark.parametrize(
    "text",
    [
        "--tensor-model-parallel-size 1 --pipeline-model-parallel-size 1 --context-parallel-size 1",
        "--transformer-impl local --use-flash-attn --no-masked-softmax-fusion --num-workers 8",
        "--deepspeed --zero-stage 1 --no-pipeline-parallel --data-efficiency-curriculum-learning",
        "--dataloader-type single --weight-decay-incr-style constant",
        "--data-cache-path /cache --exit-signal-handler --tensorboard-queue-size 1 --local_rank=0",
        "--DDP-impl local --sequence-parallel --use-distributed-optimizer --checkpoint-activations "
        "--no-query-key-layer-scaling",
        "--fp16 false --num-experts 1 --loss-scale 0 --use-torch-fsdp2 false",
        "--override-opt_param-scheduler --deepspeed_config run.json --yaml-cfg",
    ],
)
def test_flags_of_other_megatrons_that_change_nothing(text: str, tmp_path: Path) -> None:
    argv = text.replace("--yaml-cfg", "--yaml-cfg " + yaml_file(tmp_path, "lr: 1\n")).split()
    assert isinstance(parse(Config, [*SMALL.split(), *argv], description="", foreign=FOREIGN_FLAGS), Config)


@pytest.mark.parametrize(
    "text",
    [
        "--tensor-model-parallel-size 2",
        "--pipeline-model-parallel-size 4",
        "--fp16",
        "--num-experts 8",
        "--use-torch-fsdp2",
        "--dataloader-type cyclic",
        "--qk-layernorm",
        "--no-load-optim",
        "--use-checkpoint-opt_param-scheduler",
    ],
)
def test_flags_of_other_megatrons_that_change_the_numbers(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Config, [*SMALL.split(), *text.split()], description="", foreign=FOREIGN_FLAGS)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{text} is refused: ")


@pytest.mark.parametrize(
    "text, numbers", [("3", [3]), ("1-4", [1, 2, 3, 4]), ("0,3-5", [0, 3, 4, 5]), ("7-7,1", [7, 1])]
)
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert parse_list(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1,", "1-2-3", "-1", "1-", "5-3"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        parse_list(text)


def test_resolve_fills_in_what_follows_from_other_flags() -> None:
    config = parse(Config, [*SMALL.split(), "--seed", "7"], description="")
    full = resolve(config, 3)
    assert (full.model.ffn_hidden_size, full.model.kv_channels, full.model.num_query_groups) == (256, 16, 4)
    assert (full.model.max_position_embeddings, full.training.global_batch_size) == (128, 6)
    assert (full.data_efficiency.random_ltd_max, full.data_efficiency.data_efficiency_seed) == (128, 7)
    assert config.model.ffn_hidden_size is None, "the configuration itself does not change"
    flags = (
        "--swiglu --use-rotary-position-embeddings --group-query-attention --num-query-groups 2 "
        "--data-efficiency-seed 0 "
    )
    flags += "--global-batch-size 12"
    full = resolve(parse(Config, [*SMALL.split(), *flags.split()], description=""), 3)
    assert full.model.ffn_hidden_size == 128, "8/3 of 64 is 170.7, rounded down to a multiple of 64"
    assert full.model.position_embedding_type == "rope" and full.model.num_query_groups == 2
    assert full.data_efficiency.data_efficiency_seed == 0 and full.training.global_batch_size == 12


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error, status, text",
    [
        (UserError("one is wrong", "two is wrong"), 2, "error: one is wrong\nerror: two is wrong\n"),
        (
            OSError(28, "No space left on device", "/data/x.bin"),
            2,
            "error: /data/x.bin: No space left on device\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_command_ends_with_a_message_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    text: str,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: fail(error))
    assert caught.value.code == status and capsys.readouterr().err == text


def test_a_bug_is_no_mistake_of_the_user() -> None:
    for error in (ValueError("a bug"), OSError("a bug without a file")):
        with pytest.raises(type(error), match="a bug"):
            run_command(lambda error=error: fail(error))
    run_command(lambda: None)


def test_flags_of_another_megatron_may_stand_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("tensor_model_parallel_size: 1\nfp16: false\nnum-workers: 4\n")
    assert make_config(f"--config {path} --train-iters 1").training.train_iters == 1
    path.write_text("tensor_model_parallel_size: 2\nfp16: true\n")
    with pytest.raises(UserError) as caught:
        make_config(f"--config {path} --train-iters 1")
    assert len(caught.value.problems) == 2
