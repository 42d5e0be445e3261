"""A DeepSpeed JSON against the flags: what it says of batches, precision, optimizer and learning rate."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron.config.config import RULES
from megatron.schedule.data_efficiency_flags import RULES as SCHEDULE_RULES
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.deepspeed_training import CHANGING, clipping_notes
from tests.support.configurations import make_config, problems_of

FLAGS = (
    "--micro-batch-size 2 --global-batch-size 8 --train-iters 100 --lr 1e-3 --min-lr 1e-5 --weight-decay 0.1 "
    "--adam-beta2 0.95 --adam-eps 1e-8 --clip-grad 0.5 --lr-warmup-iters 10 --lr-decay-style linear "
)
AGREED = {
    "train_batch_size": 8,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 4,
    "gradient_clipping": 0.5,
    "fp16": {"enabled": False},
    "bf16": {"enabled": False},
    "optimizer": {
        "type": "Adam",
        "params": {"lr": 0.001, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "adam_w_mode": True},
    },
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 10, "total_num_steps": 100},
    },
}


def told(path: Path, content: dict[str, Any], flags: str = FLAGS, ranks: int = 1) -> list[str]:
    """What is wrong with these flags and this JSON."""
    (path / "run.json").write_text(json.dumps(content))
    return problems_of(
        f"{flags} --data-efficiency-config {path / 'run.json'}", ranks, (*RULES, *SCHEDULE_RULES)
    )


def changed(place: str, value: Any) -> dict[str, Any]:
    """The JSON that agrees, with another value in one place."""
    content: dict[str, Any] = json.loads(json.dumps(AGREED))
    *sections, name = place.split(".")
    section = content
    for one in sections:
        section = section[one]
    section[name] = value
    return content


def test_equal_and_automatic_values_are_silent(tmp_path: Path) -> None:
    assert told(tmp_path, AGREED) == []
    automatic = {"train_batch_size": "auto", "fp16": {"enabled": "auto"}, "gradient_clipping": "auto"}
    automatic["optimizer"] = {"type": "AdamW", "params": {"lr": "auto", "betas": "auto"}}  # type: ignore
    automatic["scheduler"] = {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto"}}  # type: ignore
    assert told(tmp_path, automatic) == []
    few = {"train_batch_size": 8, "gradient_clipping": 0.5}
    assert told(tmp_path, few) == [], "what is not said does not differ"
    notes = describe(make_config(f"{FLAGS} --data-efficiency-config {tmp_path / 'run.json'}"))[1]
    assert notes == []


def test_loss_scaling_is_compared_where_the_run_has_it(tmp_path: Path) -> None:
    recipe = {"enabled": True, "loss_scale": 0, "initial_scale_power": 11, "loss_scale_window": 500}
    recipe |= {"hysteresis": 2, "min_loss_scale": 1, "consecutive_hysteresis": False}
    content = AGREED | {"fp16": recipe}
    scaling = FLAGS + "--fp16 --initial-loss-scale 2048 --loss-scale-window 500 "
    assert told(tmp_path, content, scaling) == []
    assert len(told(tmp_path, content, FLAGS + "--fp16 ")) == 2
    (window,) = told(tmp_path, content, scaling + "--loss-scale-window 1000 ")
    assert "fp16.loss_scale_window 500 and --loss-scale-window 1000 differ" in window
    (power,) = told(tmp_path, content, scaling + "--initial-loss-scale 4096 ")
    assert "initial_scale_power 11 and --initial-loss-scale as a power of 2, 12.0 differ" in power
    (renewed,) = told(tmp_path, AGREED | {"fp16": recipe | {"consecutive_hysteresis": True}}, scaling)
    assert "fp16.consecutive_hysteresis true" in renewed


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("train_micro_batch_size_per_gpu", 1, ["train_micro_batch_size_per_gpu 1", "--micro-batch-size 2"]),
        ("gradient_clipping", 1.0, ["gradient_clipping 1.0", "--clip-grad 0.5"]),
        ("fp16.enabled", True, ["fp16.enabled true", "--fp16 false"]),
        ("bf16.enabled", True, ["bf16.enabled true", "--bf16 false"]),
        ("optimizer.type", "Lamb", ['optimizer.type "Lamb"', "--optimizer adam"]),
        ("optimizer.params.lr", 6e-5, ["optimizer.params.lr 6e-05", "--lr 0.001"]),
        ("optimizer.params.lr", "6e-5", ['optimizer.params.lr "6e-5"', "--lr 0.001"]),
        ("optimizer.params.betas", [0.9, 0.999], ["[0.9, 0.999]", "--adam-beta2 [0.9, 0.95]"]),
        ("optimizer.params.eps", 1e-6, ["eps 1e-06", "--adam-eps 1e-08"]),
        ("optimizer.params.weight_decay", 0, ["weight_decay 0", "--weight-decay 0.1"]),
        ("optimizer.params.adam_w_mode", False, ["adam_w_mode false", "AdamW's true"]),
        ("scheduler.type", "WarmupLR", ['scheduler.type "WarmupLR"', "--lr-decay-style linear"]),
        ("scheduler.type", "OneCycle", ['scheduler.type "OneCycle"', "--lr-decay-style linear"]),
        ("scheduler.params.warmup_max_lr", 2e-3, ["warmup_max_lr 0.002", "--lr 0.001"]),
        ("scheduler.params.warmup_num_steps", 20, ["warmup_num_steps 20", "10"]),
        ("scheduler.params.total_num_steps", 200, ["total_num_steps 200", "100"]),
        ("scheduler.params.warmup_min_lr", 0, ["warmup_min_lr 0", "--min-lr 1e-05"]),
        ("scheduler.params.warmup_type", "log", ['warmup_type "log"', "linear"]),
        ("fp16", True, ["fp16 must be a section"]),
        ("zero_optimization", {"stage": 3}, ["zero_optimization.stage 3", "--zero-stage 0"]),
    ],
)
def test_another_value_is_one_problem_that_names_both(
    tmp_path: Path, place: str, value: Any, words: list[str]
) -> None:
    content = changed(place, value)
    content.pop("gradient_accumulation_steps")
    (problem,) = told(tmp_path, content)
    assert problem.startswith(f"--data-efficiency-config {tmp_path / 'run.json'}: ")
    assert all(word in problem for word in words), problem


def test_batches_of_a_json_against_flags_ranks_and_themselves(tmp_path: Path) -> None:
    own, flags = told(tmp_path, changed("train_batch_size", 16))
    assert "train_batch_size 16 is not" in own and "2 x gradient_accumulation_steps 4 x 1" in own
    assert "train_batch_size 16 and --global-batch-size 8 differ" in flags
    assert len(told(tmp_path, AGREED, ranks=2)) == 2, "four steps of two ranks are sixteen samples"
    assert told(tmp_path, changed("gradient_accumulation_steps", 2), ranks=2) == []
    own, flags = told(tmp_path, changed("gradient_accumulation_steps", 2))
    assert "gradient_accumulation_steps 2 and" in flags and "= 4 differ" in flags


def test_the_stage_of_zero_is_that_of_the_flags(tmp_path: Path) -> None:
    content = AGREED | {"zero_optimization": {"stage": 1}}
    assert told(tmp_path, content, FLAGS + "--use-distributed-optimizer ") == []
    (problem,) = told(tmp_path, AGREED | {"zero_optimization": {"stage": 2}}, FLAGS + "--zero-stage 1 ")
    assert "zero_optimization.stage 2 and --zero-stage 1 differ; make them agree" in problem


@pytest.mark.parametrize("name", CHANGING)
def test_a_section_that_would_change_the_numbers_is_refused(tmp_path: Path, name: str) -> None:
    assert told(tmp_path, AGREED | {name: {"enabled": False}}) == []
    (problem,) = told(tmp_path, AGREED | {name: {"enabled": True}})
    assert f"{name} is enabled" in problem


def test_sparse_attention_and_compression_are_refused(tmp_path: Path) -> None:
    """They have no switch of their own: the first counts where it is given, the second by its parts."""
    quantized = {"weight_quantization": {"shared_parameters": {"enabled": True}}}
    for name, off, on in (
        ("sparse_attention", {}, {"mode": "fixed", "block": 16}),
        (
            "compression_training",
            {"weight_quantization": {"shared_parameters": {"enabled": False}}},
            quantized,
        ),
    ):
        assert told(tmp_path, AGREED | {name: off}) == []
        (problem,) = told(tmp_path, AGREED | {name: on})
        assert f"{name} is enabled" in problem


def test_a_warm_up_in_another_unit(tmp_path: Path) -> None:
    """Eight samples a step: eighty are ten steps. Of tokens no number of steps follows."""
    assert told(tmp_path, AGREED, FLAGS.replace("--lr-warmup-iters 10", "--lr-warmup-samples 80")) == []
    (problem,) = told(tmp_path, AGREED, FLAGS.replace("--lr-warmup-iters 10", "--lr-warmup-tokens 900"))
    assert "warmup_num_steps 10" in problem and "900 tokens" in problem


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (AGREED, False),
        ({key: value for key, value in AGREED.items() if key != "gradient_clipping"}, True),
        ({"train_batch_size": 8}, True),
        ({"data_efficiency": {}}, False),
        ({"optimizer": {"type": "Adam", "params": {"max_grad_norm": 0.5}}, "train_batch_size": 8}, False),
    ],
)
def test_a_whole_json_that_clips_nothing_is_noted(tmp_path: Path, content, told: bool) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    notes = clipping_notes(make_config(f"{FLAGS} --data-efficiency-config {path}").data_efficiency)
    assert [f"{path}: without gradient_clipping" in note for note in notes] == [True] * told


def test_what_is_not_compared_is_noted(tmp_path: Path) -> None:
    content = AGREED | {"steps_per_print": 1, "zero_optimization": {"stage": 0, "overlap_comm": True}}
    content["optimizer"] = {"type": "Adam", "params": {"torch_adam": True}}
    content |= {"tensorboard": {"enabled": True}, "wandb": {"enabled": False}}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    notes = describe(make_config(f"{FLAGS} --data-efficiency-config {path}"))[1]
    assert [note.removeprefix(f"{path}: ") for note in notes] == [
        "optimizer.params.torch_adam is not used",
        "steps_per_print is not used",
        "tensorboard is not used; give --tensorboard-dir",
        "wandb is not used",
        "without a warmup_type DeepSpeed's warm-up is logarithmic; here it is linear",
    ]


def test_what_a_section_asks_for_beside_its_stage_or_precision_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    sharing = {"stage": 0, "offload_optimizer": {"device": "cpu"}, "overlap_comm": True}
    fp16 = {"enabled": False, "type": "bfloat16"}
    batch = {"train_batch_size": 8, "gradient_clipping": 1.0}
    path.write_text(json.dumps(batch | {"zero_optimization": sharing, "fp16": fp16}))
    notes = describe(make_config(f"{FLAGS} --data-efficiency-config {path}"))[1]
    assert notes == [f"{path}: zero_optimization.offload_optimizer is not used"]
    path.write_text(json.dumps(batch | {"fp16": fp16 | {"enabled": True}}))
    notes = describe(make_config(f"{FLAGS} --data-efficiency-config {path}"))[1]
    assert notes == [f"{path}: fp16.type is not used"]
