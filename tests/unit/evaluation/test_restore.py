"""A model and its tokenizer from a checkpoint alone: which tokenizer is taken, and which is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch

from megatron.base.errors import UserError
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer_files import keep_tokenizer
from megatron.evaluation.restore import Restored, restore, tokenizer_of
from megatron.tasks.gpt import GPT_TASK
from tests.support.checkpoints import NONE, tokenizer_in, trained
from tests.support.made_up_text import write_tokenizer

CPU = torch.device("cpu")


def restored(root: Path) -> Restored:
    return restore(str(root), None, CPU)


def file_of(found: Restored, flags: TokenizerOptions) -> str:
    """The file of the tokenizer that is taken, which its options name, too."""
    taken = tokenizer_of(found, flags)
    assert taken is not None
    assert str(taken[0].files["tokenizer_model"]) == taken[1].tokenizer_model
    return taken[1].tokenizer_model


def test_a_model_comes_back_with_its_shape_and_weights(tmp_path: Path) -> None:
    model = trained(tmp_path, more="--swiglu --position-embedding-type rope --rotary-percent 0.5 ")
    found = restored(tmp_path)
    assert (found.task, found.folder, found.manifest.iteration) == (GPT_TASK, tmp_path / "iter_0000003", 3)
    assert not found.model.training and found.config.model.swiglu
    tokens = torch.arange(16).view(2, 8)
    assert torch.equal(found.model.logits(tokens), model.logits(tokens))
    assert found.model.logits(tokens).shape == (2, 8, 90)


def test_no_checkpoint_and_an_unknown_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--load {tmp_path}: holds no checkpoint; train first"):
        restored(tmp_path)
    trained(tmp_path, task="finetune")
    with pytest.raises(UserError, match=f"measure it with finetune.py --load {tmp_path} --skip-train"):
        restored(tmp_path)
    trained(tmp_path, task="ict")
    with pytest.raises(UserError, match="holds a model of the task ict, and known are gpt, bert"):
        restored(tmp_path)


def test_the_tokenizer_of_the_flags_must_be_that_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = tokenizer_in(tmp_path / "mine"), tokenizer_in(tmp_path / "other", 350)
    trained(tmp_path, mine)
    found = restored(tmp_path)
    assert file_of(found, mine) == mine.tokenizer_model
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"trained with a HuggingFaceTokenizer of .* and the flags name a"):
        tokenizer_of(found, other)
    ends = dataclasses.replace(mine, eod_token="x")
    assert tokenizer_of(found, ends)
    assert "documents that end with token 0, and with these flags they end with x" in capsys.readouterr().err
    with pytest.raises(UserError, match="--tokenizer-model and --eod-token: --tokenizer-type is missing"):
        tokenizer_of(found, dataclasses.replace(ends, tokenizer_type=None))


def test_of_data_without_a_tokenizer_any_may_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path)
    mine = tokenizer_in(tmp_path / "mine")
    assert tokenizer_of(restored(tmp_path), NONE) is None
    assert tokenizer_of(restored(tmp_path), mine) is not None
    assert "documents that end with token 7" in capsys.readouterr().err


def test_the_kept_tokenizer_comes_before_that_of_the_trainings_flags(tmp_path: Path) -> None:
    mine = tokenizer_in(tmp_path / "mine")
    trained(tmp_path, mine)
    found = restored(tmp_path)
    assert file_of(found, NONE) == mine.tokenizer_model
    keep_tokenizer(str(tmp_path), mine, [], found.manifest.vocabulary)
    assert file_of(found, NONE).startswith(f"{tmp_path}/tokenizer/")


def test_a_tokenizer_that_is_gone_or_another_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tokenizer_in(tmp_path / "mine")
    trained(tmp_path, mine)
    found = restored(tmp_path)
    other_end = found.manifest.vocabulary._replace(eod=5)
    other = dataclasses.replace(found.manifest, vocabulary=other_end)
    assert tokenizer_of(found._replace(manifest=other), NONE) is None
    assert "is no longer the tokenizer" in capsys.readouterr().err
    write_tokenizer(tmp_path / "mine", 350)
    assert tokenizer_of(found, NONE) is None
    note = f"note: {mine.tokenizer_model} is no longer the tokenizer of the training and is left out\n"
    assert capsys.readouterr().err == note
    Path(str(mine.tokenizer_model)).unlink()
    assert tokenizer_of(found, NONE) is None and capsys.readouterr().err == ""
