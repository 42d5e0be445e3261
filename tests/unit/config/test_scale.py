"""A recipe as a smaller run: the rule of docs/recipes.md, by hand, and what wins over it."""

from pathlib import Path
from typing import Any

import pytest

from megatron.config.arguments import understand
from megatron.config.config import Config
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.scale import scale_notes, scaled

RECIPE = """\
num_layers: 24
hidden_size: 2048
num_attention_heads: 16
ffn_hidden_size: 8192
seq_length: 2048
init_method_std: 0.013
micro_batch_size: 8
global_batch_size: 512
train_tokens: 300e9
lr_warmup_tokens: 3e9
lr: 2e-4
min_lr: 1e-6
eval_interval: 100
save_interval: 30000
fp16: true
initial_loss_scale: 2048
tensor_model_parallel_size: 4
pipeline_model_parallel_layout: Et*12|t*12L
recompute_granularity: full
rampup_batch_size: [64, 64, 1000000]
num_experts: 64
moe_layer_freq: ([0]+[1])*12
random_ltd: true
random_ltd_duration: 200000
curriculum:
  - vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=110000
  - seqlen_truncate:min=80,max=2048,duration=110000,quantum=8
"""


def values(tmp_path: Path, *words: str, text: str = RECIPE) -> dict[str, Any]:
    """Values of a recipe by flag name."""
    found, told = result(tmp_path, *words, text=text)
    assert not told
    return found


def result(tmp_path: Path, *words: str, text: str = RECIPE) -> tuple[dict[str, Any], list[str]]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return understand(Config, ["--config", str(path), *words], foreign=FOREIGN_FLAGS)


def test_mini_by_hand(tmp_path: Path) -> None:
    """√(2048·8) = 128, √(24·1.5) = 6, 2048/8 = 256, 512/64 = 8, and steps are a 200th: tokens are divided by
    8·64·200 = 102,400. The 16th of the width has 16^(5/6) = 10.08 times the rate, and four times the std."""
    found = values(tmp_path, "--scale", "mini")
    assert found == {
        "config": found["config"],
        "scale": "mini",
        "num_layers": 6,
        "hidden_size": 128,
        "num_attention_heads": 8,
        "ffn_hidden_size": 512,
        "seq_length": 256,
        "init_method_std": 0.052,
        "micro_batch_size": 4,
        "global_batch_size": 8,
        "train_tokens": 2_929_688,
        "lr_warmup_tokens": 29_297,
        "lr": 0.00202,
        "min_lr": 1.01e-5,
        "eval_interval": 50,
        "save_interval": 150,
        "rampup_batch_size": (1, 1, 78),
        "num_experts": 8,
        "moe_layer_freq": "[0,1,0,1,0,1]",
        "random_ltd": True,
        "random_ltd_min": 16,
        "random_ltd_quantum": 2,
        "random_ltd_duration": 1000,
        "curriculum": (
            "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=550",
            "seqlen_truncate:min=10,max=256,duration=550,quantum=1",
        ),
    }


def test_small_by_hand(tmp_path: Path) -> None:
    """√(2048·128) = 512 in heads of 64, √(24·6) = 12, half the length, an eighth of the batch, a tenth of the
    steps, and bf16."""
    found = values(tmp_path, "--scale", "small")
    names = ("hidden_size", "num_attention_heads", "num_layers", "seq_length", "global_batch_size", "bf16")
    assert [found[name] for name in names] == [512, 8, 12, 1024, 64, True]
    assert found["train_tokens"] == 300e9 / 160 and found["num_experts"] == 64
    assert found["micro_batch_size"] == 16  # of 1,024 tokens: 16,384
    assert found["curriculum"][1] == "seqlen_truncate:min=40,max=1024,duration=11000,quantum=4"


def test_the_command_line_wins_and_what_follows_follows_it(tmp_path: Path) -> None:
    words = ("--scale", "mini", "--seq-length", "512", "--hidden-size", "2048", "--lr", "1", "--fp16", "true")
    found = values(tmp_path, *words, "--global-batch-size", "16", "--train-iters", "7")
    assert (found["seq_length"], found["lr"], found["fp16"], found["train_iters"]) == (512, 1.0, True, 7)
    assert (found["random_ltd_min"], found["init_method_std"], found["num_attention_heads"]) == (
        32,
        0.013,
        128,
    )
    assert found["micro_batch_size"] == 2  # of 512 tokens: 1,024
    assert found["train_tokens"] == round(300e9 / 4 / 32 / 200)


def test_steps_are_divided_by_scale_steps(tmp_path: Path) -> None:
    found = values(tmp_path, "--scale", "mini", "--scale-steps", "1000")
    assert found["random_ltd_duration"] == 200 and found["train_tokens"] == 585_938
    assert (
        values(tmp_path, "--scale", "mini", text=RECIPE + "scale_steps: 1000\n")["random_ltd_duration"] == 200
    )


def test_full_scale_is_the_file_as_it_stands(tmp_path: Path) -> None:
    text = RECIPE + "scale: mini\n"
    assert values(tmp_path, text=text)["hidden_size"] == 128
    whole = values(tmp_path, "--scale", "full", text=text)
    assert whole | {"scale": None} == values(tmp_path) | {"scale": None}


def test_values_of_difficulty_and_lists_are_scaled(tmp_path: Path) -> None:
    text = RECIPE.partition("curriculum:")[0] + (
        "curriculum:\n  - seqlen:min=64,max=2048,pacing=fixed_root,root=2,duration=1e5\n"
        "  - seqlen_reshape:pacing=fixed_discrete,values=64/1024/2048,until=2000/4000,max=2048\n"
    )
    assert values(tmp_path, "--scale", "mini", text=text)["curriculum"] == (
        "seqlen:min=8,max=256,pacing=fixed_root,root=2,duration=500",
        "seqlen_reshape:pacing=fixed_discrete,values=8/128/256,until=10/20,max=256",
    )


@pytest.mark.parametrize(
    ("batch", "scaled", "micro"),
    [(4, 4, 2), (256, 4, 2), (1024, 16, 4), (1536, 24, 4), (4096, 64, 4), (1, 1, 1)],
)
def test_batches_keep_their_ratio_down_to_four(tmp_path: Path, batch: int, scaled: int, micro: int) -> None:
    text = RECIPE.replace("global_batch_size: 512", f"global_batch_size: {batch}")
    found = values(tmp_path, "--scale", "mini", text=text)
    assert (found["global_batch_size"], found["micro_batch_size"]) == (scaled, micro)


@pytest.mark.parametrize(
    ("old", "new", "words", "message"),
    [
        ("seq_length: 2048\n", "", (), "--scale mini scales --seq-length, which the file does not say"),
        ("seed", "seed", ("--data-efficiency-config", "x.json"), "--scale mini scales no DeepSpeed JSON"),
        ("lr: 2e-4", "lr: high", (), "--lr takes a number, not 'high'"),
    ],
)
def test_what_cannot_be_scaled_is_one_line(
    tmp_path: Path, old: str, new: str, words: tuple[str, ...], message: str
) -> None:
    _, (problem,) = result(tmp_path, "--scale", "mini", *words, text=RECIPE.replace(old, new))
    assert problem.startswith(message)


def test_without_a_file_nothing_is_scaled() -> None:
    _, (problem,) = understand(Config, ["--scale", "mini", "--num-layers", "3"])
    assert problem == "--scale mini scales what a --config file says, and none is given; give one"


def test_what_scaling_did_is_told_in_a_line_a_flag(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    (note,) = scale_notes(Config, ["--config", str(path), "--scale", "mini", "--lr", "3"], FOREIGN_FLAGS)
    lines = [" ".join(line.split()) for line in note.splitlines()]
    assert lines[0] == f"--scale mini changes what {path} says:"
    assert "hidden_size 2,048 → 128" in lines and "fp16 true → not given" in lines
    assert not [line for line in lines if line.startswith("lr ")]
    # 300e9 / (12 · 24 · 2048²), and 2,929,688 / (12 · 6 · 128²)
    assert lines[-1] == "tokens for a weight of the dense layers: 248 → 2.48"
    assert scale_notes(Config, ["--config", str(path)], FOREIGN_FLAGS) == []


def test_images_are_scaled_with_their_patches() -> None:
    """14 x 14 patches and one token more become 8 x 8 and one, and kept lengths follow."""
    sides = {"img_h": 224, "img_w": 224, "patch_dim": 16}
    recipe = {"num_layers": 12, "hidden_size": 768, "global_batch_size": 256, "micro_batch_size": 4, **sides}
    recipe |= {"config": "vit.yaml", "random_ltd": True, "random_ltd_min": 66, "random_ltd_quantum": 1}
    found, told = scaled(recipe, {"scale": "mini"})
    assert not told and "seq_length" not in found
    assert (found["img_h"], found["img_w"], found["patch_dim"]) == (32, 32, 4)
    assert (found["random_ltd_min"], found["random_ltd_quantum"]) == (round(66 * 65 / 197), 1)
    assert scaled(recipe, {"scale": "mini", "patch_dim": 8})[0]["random_ltd_min"] == round(66 * 17 / 197)
    assert scaled(recipe, {"scale": "small"})[0]["img_h"] == 112
