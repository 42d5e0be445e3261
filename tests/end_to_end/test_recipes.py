"""Recipes at --scale mini really train, and resume as what they came to."""

import json
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.tasks.bert import BERT_TASK
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Task
from megatron.train.pretrain import pretrain
from tests.end_to_end.conftest import Prepared, records
from tests.support.commands import ROOT, run_command

SHORT = ["--scale", "mini", "--exit-interval", "3", "--log-interval", "1", "--eval-iters", "0"]
MADE_UP = ["--mock-data", "--vocab-size", "200"]


def train(task: Task, recipe: str, folder: Path, *flags: str) -> list[float]:
    """The losses of three steps of a recipe."""
    words = ["--config", str(ROOT / "recipes" / f"{recipe}.yaml"), *SHORT, *flags]
    pretrain([*words, "--save", str(folder), "--load", str(folder)], task, "", "")
    return [one["lm_loss"] for one in records(folder) if one["kind"] == "train"]


def analyze(folder: Path, data: Prepared, *flags: str) -> list[str]:
    """The difficulty of samples as long as those of a recipe at --scale mini; the flags that name it."""
    words = ["--data-path", data.prefix, "--split", "90,5,5", "--metrics", "vocab_rarity", *flags]
    run_command("tools/analyze_data.py", *words, "--output-dir", str(folder))
    return ["--data-path", data.prefix, "--split", "90,5,5", "--difficulty-path", str(folder)]


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [("gpt2_117m/warmup_bs4k", []), ("gpt2_350m_ptb/composed", ["--finetune", "false"])],
)
def test_recipes_of_gpt2_train_on_made_up_tokens(tmp_path: Path, recipe: str, flags: list[str]) -> None:
    assert len(train(GPT_TASK, recipe, tmp_path, *MADE_UP, *flags)) == 3


def test_recipes_of_gpt3_train_resume_and_say_what_they_came_to(
    tmp_path: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    data = analyze(tmp_path / "difficulty", prepared, "--seq-length", "256")
    dense, mixture, recipe = tmp_path / "dense", tmp_path / "mixture", "gpt3_1.3b/composed_150b"
    assert len(train(GPT_TASK, "gpt3_moe_6.7b/composed_300b", mixture, *data)) == 3
    assert len(train(GPT_TASK, recipe, dense, *data)) == 3
    text = capsys.readouterr().out
    assert "hidden_size                2,048 → 128" in text and "note: --scale mini changes what" in text
    config = json.loads((dense / "run.json").read_text())["config"]
    found = config["scale"], config["model"]["hidden_size"], config["optimizer"]["lr"]
    assert found == ("mini", 128, 0.00403)
    assert len(train(GPT_TASK, recipe, dense, *data, "--exit-interval", "4")) == 4
    with pytest.raises(UserError) as caught:
        train(GPT_TASK, recipe, dense, *data, "--num-layers", "8")
    assert "--num-layers" in str(caught.value)


def test_recipes_of_bert_train(tmp_path: Path, prepared_sentences: Prepared) -> None:
    flags = ["--task", "bert", "--seq-length", "64", "--bert-passes", "5"]
    data = analyze(tmp_path / "difficulty", prepared_sentences, *flags)
    assert len(train(BERT_TASK, "bert_large/composed_524b", tmp_path / "run", *data)) == 3
