"""What resuming asks of every flag: its own policy, and equality where nobody has thought of one."""

import dataclasses
import typing
from types import SimpleNamespace
from typing import Any

import pytest

from megatron.checkpoint import compare
from megatron.checkpoint.compare import resume_problems
from megatron.checkpoint.manifest import Manifest, as_read
from megatron.config.config import Config
from megatron.config.flags import RESUME, Flag, flag, flags_of
from megatron.data.vocabulary import Vocabulary
from tests.support.configurations import STOP, make_config

FLAGS = flags_of(Config)
GROUPS = sorted({one.group for one in FLAGS} - {""})
PLAN: Any = SimpleNamespace(steps=100, totals=lambda step: {}, digest=lambda step: 1)
FREE = {
    "bert_group_lengths",
    "bert_pack",
    "moe_per_layer_logging",
    "moe_token_dispatcher_type",
    "moe_pad_expert_input_to_capacity",
    "initial_loss_scale",
    "apex",
    "compile",
    "attention_backend",
    "allow_trailing_bytes",
    "micro_batch_size",
    "train_iters",
    "train_samples",
    "train_tokens",
    "exit_interval",
    "exit_duration_in_mins",
    "recompute_granularity",
    "recompute_method",
    "recompute_num_layers",
    "deterministic_mode",
    "distributed_backend",
    "distributed_timeout_minutes",
    "skip_train",
    "dry_run",
    "ignore_memory_estimate",
    "classifier_head",
    "on_bad_image",
    "image_workers",
    "pretrained_checkpoint",
}
WRITTEN_OTHERWISE = {
    *("data_path", "train_data_path", "valid_data_path", "test_data_path", "split"),
    *("group_query_attention", "use_rotary_position_embeddings", "rotary_base", "rotary_percent"),
    *("max_position_embeddings", "add_qkv_bias", "rampup_batch_size", "local_rotary_base"),
    *("rope_scaling_factor", "num_classes", "valid_labels"),
}
IN_EFFECT = {"max_position_embeddings", "rampup_batch_size"}
"""Of these the ones that do something in the configuration of these tests."""


def told(saved: dict[str, Any], mine: dict[str, Any], override: bool = False) -> list[str]:
    """What is said where a checkpoint's configuration and a run's differ, and nothing else does."""
    left = dataclasses.replace(manifest(saved), iteration=5, plan=1)
    return resume_problems(left, manifest(mine), PLAN, override)


def manifest(config: dict[str, Any]) -> Manifest:
    return as_read(Manifest("gpt", config, Vocabulary(100, None, None), [], [], {}, {}, {}))


def changed(config: dict[str, Any], one: Flag) -> dict[str, Any]:
    if not one.group:
        return config | {one.name: "another"}
    return config | {one.group: config[one.group] | {one.name: "another"}}


@pytest.mark.parametrize("one", FLAGS, ids=lambda one: one.name)
def test_every_flag_does_on_resuming_what_its_policy_says(one: Flag) -> None:
    policy = one.field.metadata["resume"]
    assert policy in RESUME
    policy = "same" if one.name in IN_EFFECT else policy
    saved = dataclasses.asdict(make_config(STOP))
    found, overridden = (told(saved, changed(saved, one), override) for override in (False, True))
    assert [len(found), len(overridden)] == {"same": [1, 1], "schedule": [1, 0]}.get(policy, [0, 0])
    assert all(f"{one.spellings[0]} was" in line and "and is another" in line for line in found)


def test_which_flags_may_change() -> None:
    whole = {"": "free", "checkpoint": "free", "logging": "free", "parallel": "free", "optimizer": "schedule"}
    whole |= {"tokenizer": "meaning", "data_efficiency": "meaning"}
    for one in FLAGS:
        policy = whole.get(one.group, "same")
        if one.name in FREE:
            policy = "free"
        elif one.name in WRITTEN_OTHERWISE:
            policy = "meaning"
        assert one.field.metadata["resume"] == policy, one.name


def with_a_new_flag(group: str) -> type:
    """Config with the flag --novelty in a group, or in none."""
    new = ("novelty", int, flag(0, "something new"))
    if not group:
        return dataclasses.make_dataclass("Wider", [new], bases=(Config,), frozen=True, kw_only=True)
    inner = typing.get_type_hints(Config)[group]
    wider = dataclasses.make_dataclass("WiderGroup", [new], bases=(inner,), frozen=True)
    return dataclasses.make_dataclass(
        "Wider",
        [(group, wider)],
        bases=(Config,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": "wider"},
    )


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_a_new_flag_is_compared_unless_it_says_otherwise(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "Config", with_a_new_flag(group))
    config = dataclasses.asdict(make_config(STOP))
    saved, mine = (
        config | ({group: config[group] | {"novelty": value}} if group else {"novelty": value})
        for value in (0, 1)
    )
    assert told(saved, saved) == []
    (problem,) = told(saved, mine)
    assert "--novelty was 0 and is 1" in problem


def test_a_new_group_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    group = dataclasses.make_dataclass("Group", [("novelty", int, flag(0, "something new"))], frozen=True)
    wider = dataclasses.make_dataclass("Wider", [("news", group)], bases=(Config,), frozen=True, kw_only=True)
    monkeypatch.setattr(compare, "Config", wider)
    config = dataclasses.asdict(make_config(STOP))
    (problem,) = told(config | {"news": {"novelty": 0}}, config | {"news": {"novelty": 1}})
    assert "--novelty was 0 and is 1" in problem


def test_what_a_checkpoint_says_of_a_flag_that_is_gone() -> None:
    mine = dataclasses.asdict(make_config(STOP))
    for group, count in {"model": 1, "optimizer": 1, "logging": 0, "checkpoint": 0}.items():
        saved = mine | {group: mine[group] | {"former": 3}}
        assert len(told(saved, mine)) == count, group


def changes(old: str, new: str, ranks: int = 1) -> list[str]:
    """What is said of a checkpoint of the flags `old` on one rank, resumed by `new` on so many."""
    saved, mine = (
        manifest(dataclasses.asdict(make_config(STOP + flags, on))) for flags, on in ((old, 1), (new, ranks))
    )
    found = resume_problems(dataclasses.replace(saved, iteration=5, plan=1), mine, PLAN, False, ranks)
    return [line.removeprefix("the checkpoint of step 5: ").split("; use the flags")[0] for line in found]


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ("--hidden-size 32", ["--hidden-size was 64 and is 32"]),
        (
            "--hidden-size 32 --kv-channels 16",
            ["--hidden-size was 64 and is 32"],
        ),  # which it was without that flag, too
        (
            "--hidden-size 32 --ffn-hidden-size 100",
            ["--ffn-hidden-size was 256 and is 100", "--hidden-size was 64 and is 32"],
        ),
        ("--num-attention-heads 2", ["--num-attention-heads was 4 and is 2"]),
        ("--swiglu", ["--swiglu was False and is True"]),
        ("--seq-length 64", ["--seq-length was 128 and is 64"]),
        ("--kv-channels 8", ["--kv-channels was 16 and is 8"]),
        (
            "--use-rotary-position-embeddings",
            ["--position-embedding-type was learned_absolute and is rope"],
        ),
    ],
)
def test_what_follows_from_a_flag_that_is_told_is_left_out(flags: str, lines: list[str]) -> None:
    assert changes("", flags) == lines


@pytest.mark.parametrize(
    ("old", "new", "ranks", "way"),
    [
        ("--micro-batch-size 8", "--micro-batch-size 8", 2, "--global-batch-size 8 --micro-batch-size 4"),
        ("--micro-batch-size 2 --global-batch-size 8", "--micro-batch-size 2", 2, "--global-batch-size 8"),
        ("--global-batch-size 12", "--micro-batch-size 4", 2, "--global-batch-size 12 --micro-batch-size 3"),
        ("--global-batch-size 8", "", 3, "--global-batch-size 8, on a number of ranks that divides it"),
    ],
)
def test_another_number_of_ranks_is_told_the_way_out(old: str, new: str, ranks: int, way: str) -> None:
    (line,) = changes(old, new, ranks)
    assert line.endswith(f" (give {way})")
    if ranks == 2:
        assert changes(old, f"{new} {way}", ranks) == []


def test_steps_that_follow_from_another_batch_are_no_second_mistake() -> None:
    saved, mine = (
        manifest(dataclasses.asdict(make_config(STOP + flags))) for flags in ("", "--global-batch-size 8")
    )
    late = dataclasses.replace(saved, iteration=196, plan=1)
    (line,) = resume_problems(late, mine, PLAN, False)
    assert "--global-batch-size was 2 and is 8 (give --global-batch-size 2)" in line
    (line,) = resume_problems(late, saved, PLAN, False)
    assert "is past the run's 100 steps" in line
