"""The configuration as a whole: its flags, what follows from them, and that all that is wrong is told at
once."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.config.arguments import parse, understand
from megatron.config.config import RULES, Config, complete, configure, resolve
from megatron.config.flags import flag, flags_of
from megatron.config.model import ModelConfig
from megatron.config.other_megatrons import FOREIGN_FLAGS
from tests.support.configurations import SMALL, STOP, make_config, problems_of

KEYWORDS = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": 128,
    "micro_batch_size": 2,
    "lr": 1e-3,
    "mock_data": True,
    "vocab_size": 100,
    "train_iters": 100,
}


def test_the_section_optimizer_may_hold_the_flag_optimizer(tmp_path: Path) -> None:
    """The section and one of its flags have the same name."""
    path = tmp_path / "run.yaml"
    path.write_text("optimizer:\n  optimizer: no-such\n  weight_decay: 0.5\n")
    with pytest.raises(UserError, match="--optimizer no-such: choose one of adam"):
        parse(Config, [*SMALL.split(), "--config", str(path)], description="")


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


def test_no_two_flags_share_a_spelling_and_every_flag_says_what_it_is() -> None:
    flags = flags_of(Config)
    spellings = [spelling for one in flags for spelling in one.spellings]
    assert len(set(spellings)) == len(spellings)
    assert all(one.field.metadata["help"] for one in flags)


def test_what_follows_from_other_flags_is_filled_in() -> None:
    full = make_config("--seed 7", 3)
    assert (full.model.ffn_hidden_size, full.model.kv_channels, full.model.num_query_groups) == (256, 16, 4)
    assert (full.model.max_position_embeddings, full.training.global_batch_size) == (128, 6)
    assert (full.data_efficiency.random_ltd_max, full.data_efficiency.data_efficiency_seed) == (128, 7)
    flags = (
        "--swiglu --use-rotary-position-embeddings --group-query-attention --num-query-groups 2 "
        "--data-efficiency-seed 0 "
    )
    full = make_config(flags + "--global-batch-size 12", 3)
    assert full.model.ffn_hidden_size == 128, "8/3 of 64 is 170.7, rounded down to a multiple of 64"
    assert full.model.position_embedding_type == "rope" and full.model.num_query_groups == 2
    assert full.data_efficiency.data_efficiency_seed == 0 and full.training.global_batch_size == 12


def test_resolve_fills_in_what_is_open_and_nothing_else() -> None:
    full = make_config("--seed 7", 3)
    training = dataclasses.replace(full.training, global_batch_size=None)
    open_config = dataclasses.replace(
        full, training=training, model=dataclasses.replace(full.model, kv_channels=None)
    )
    assert resolve(open_config, 3) == full == resolve(full, 3)
    assert open_config.model.kv_channels is None, "the configuration itself does not change"


def test_a_type_without_none_is_kept_after_resolution() -> None:
    config = make_config(STOP)
    for one in flags_of(Config):
        if one.field.metadata["follows"]:
            kind = tuple if one.many else one.kind
            allowed = (kind, type(None)) if "None" in str(one.field.type) else kind
            assert isinstance(getattr(getattr(config, one.group), one.name), allowed), one.name


def test_keywords_are_the_flags() -> None:
    assert configure(**KEYWORDS) == make_config(STOP)
    more = {
        "curriculum": ["voc:min=1,max=5,duration=9", "seqlen_truncate:min=8,max=64,duration=9"],
        "rampup_batch_size": (6, 6, 100),
        "global_batch_size": 12,
        "bf16": True,
        "swiglu": False,
        "min_lr": 1e-5,
        "save": None,
        "difficulty_path": (),
        "tensor_model_parallel_size": 1,
        "fp16": False,
    }
    flags = "--global-batch-size 12 --rampup-batch-size 6 6 100 --bf16 --min-lr 1e-5 --curriculum "
    assert configure(3, **KEYWORDS, **more) == make_config(STOP + flags + " ".join(more["curriculum"]), 3)


def test_mistakes_in_keywords_are_told_like_those_of_a_command_line() -> None:
    given = KEYWORDS | {"num_layers": 0, "lr": None, "hidden_dropuot": 0.1, "global_batch_size": 3}
    with pytest.raises(UserError) as caught:
        configure(**given)
    assert list(caught.value.problems) == [
        "unknown flag --hidden-dropuot; did you mean --hidden-dropout?",
        "--num-layers 0 must be at least 1",
        "--lr is required: peak learning rate",
        "--global-batch-size 3 is no multiple of --micro-batch-size 2 x 1 data-parallel ranks = 2; change "
        "one of them",
    ]


def test_what_is_missing_is_told_with_all_that_is_wrong() -> None:
    line = "--hidden-size 66 --num-attention-heads 4 --micro-batch-size x --clip-grad=-1 --finetune --gests"
    with pytest.raises(UserError) as caught:
        complete(Config, *understand(Config, line.split()), 1)
    told = caught.value.problems
    wanted = [
        "unknown flag --gests",
        "--micro-batch-size takes a whole number, not 'x'",
        "--clip-grad -1.0 must not be negative",
        "--num-layers is required",
        "--seq-length is required",
        "--lr is required",
        "--hidden-size 66 is no multiple of --num-attention-heads 4",
        "give the data once",
        "nothing says when to stop",
        "--finetune needs --load FOLDER",
    ]
    assert len(told) == len(wanted)
    assert all(problem.startswith(want) for problem, want in zip(told, wanted)), told


NUMBERS = [one for one in flags_of(Config) if one.kind in (int, float) and not one.many]


@given(
    st.lists(st.sampled_from(NUMBERS), unique_by=lambda one: one.name, max_size=8),
    st.lists(st.sampled_from(["x", "-1", "0", "1", "0.5", "3", "64"]), min_size=8, max_size=8),
    st.sets(st.sampled_from(sorted(KEYWORDS)), max_size=4),
)
@settings(deadline=None)
def test_no_rule_meets_a_value_that_is_missing_or_refused(flags, texts, left_out) -> None:
    """Whatever is given or missing: a configuration, or problems; and a refused flag is told but once."""
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in KEYWORDS.items() if name not in left_out]
    argv += [f"{one.spellings[0]}={text}" for one, text in zip(flags, texts)]
    values, problems = understand(Config, argv)
    try:
        complete(Config, values, problems, 1)
    except UserError as error:
        for one in flags_of(Config):
            if values.get(one.name, 0) is None:
                told = [line for line in error.problems if line.startswith(f"{one.spellings[0]} ")]
                assert len(told) == 1, told
        assert set(problems) <= set(error.problems)
    else:
        assert not problems


def test_every_rule_reads_groups_of_the_configuration() -> None:
    names = {field.name for field in dataclasses.fields(Config)} | {"data_parallel_size"}
    follows = [one.field.metadata["follows"] for one in flags_of(Config)]
    for function in [*RULES, *filter(None, follows)]:
        assert {*function.__code__.co_varnames[: function.__code__.co_argcount]} <= names


def test_a_rule_that_asks_for_what_is_no_flag_is_a_bug() -> None:
    def rule(model: ModelConfig) -> list[str]:
        return [model.number_of_layers]  # type: ignore[attr-defined]

    with pytest.raises(AttributeError):
        complete(Config, KEYWORDS, (), 1, [rule])
    with pytest.raises(UserError, match="is wrong"):
        complete(Config, KEYWORDS, ["another flag is wrong"], 1, [rule])


# broken rules that have nothing to do with each other
APART = [
    "--num-layers 0",
    "--global-batch-size 3",
    "--lr 0",
    "--lr-warmup-fraction 1",
    "--adam-beta1 1",
    "--clip-grad=-1",
    "--eval-iters -1",
    "--data-path prefix",
    "--finetune",
    "--save-interval 5",
    "--exit-interval 0",
]


@given(st.lists(st.sampled_from(APART), unique=True))
@settings(deadline=None)
def test_all_broken_rules_are_told_together(flags: list[str]) -> None:
    told = problems_of(STOP + " ".join(flags))
    assert len(told) == len(flags)
    for one in flags:
        assert sum(one.split()[0].split("=")[0] in problem for problem in told) >= 1


def test_what_follows_does_not_depend_on_the_order_of_the_flags() -> None:
    """A flag may follow from one of a later group, and that from yet another."""
    first = dataclasses.make_dataclass(
        "First", [("twice", int, flag(None, "x", follows=lambda second: second.once * 2))], frozen=True
    )
    second = dataclasses.make_dataclass(
        "Second",
        [
            ("once", int, flag(None, "x", follows=lambda second: second.base + 1)),
            ("base", int, flag(3, "x")),
        ],
        frozen=True,
    )
    options = dataclasses.make_dataclass("Options", [("first", first), ("second", second)], frozen=True)
    assert complete(options, {}, rules=()).first.twice == 8
    assert complete(options, {"base": 5}, rules=()).first.twice == 12


@pytest.mark.parametrize("ranks", [0, -1, 2.5, "2"])
def test_keywords_ask_for_a_number_of_ranks(ranks: object) -> None:
    with pytest.raises(UserError, match="must be a whole number of at least 1"):
        configure(ranks, **KEYWORDS)


def test_help_is_no_keyword() -> None:
    with pytest.raises(UserError, match="help: is no flag"):
        configure(**KEYWORDS, help=True)
