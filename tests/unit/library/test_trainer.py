"""Random-LTD in a Trainer of transformers: its steps, its ranks and its log."""

from types import SimpleNamespace

import pytest
import transformers

from megatron.base.errors import UserError
from megatron.library.random_ltd import random_ltd_for
from megatron.library.trainer import RandomLTDCallback
from tests.support.huggingface_models import small_model, text_rows

ROWS = [{"input_ids": row, "labels": row} for row in text_rows(24, 32)]


def train(folder, steps: int, resume: bool = False):
    model = small_model("GPT2LMHead").float()
    dropping = random_ltd_for(model, maximum=32, minimum=8, duration=4, quantum=4)
    arguments = transformers.TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=1,
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        lr_scheduler_type="constant",
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=ROWS, callbacks=[RandomLTDCallback(dropping)]
    )
    trainer.train(resume_from_checkpoint=resume or None)
    return dropping, [entry for entry in trainer.state.log_history if "loss" in entry]


def test_a_trainer_drops_by_its_steps_and_goes_on_with_them(tmp_path) -> None:
    dropping, log = train(tmp_path / "whole", 6)
    assert [entry["kept_length"] for entry in log] == [8, 12, 20, 24, 32, 32]
    assert dropping.layer_tokens == sum(4 * 2 * (32 + entry["kept_length"]) for entry in log)
    train(tmp_path / "stopped", 2)
    _, resumed = train(tmp_path / "stopped", 6, resume=True)
    assert [entry["kept_length"] for entry in resumed] == [8, 12, 20, 24, 32, 32]
    for mine, theirs in zip(resumed, log):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_the_rank_is_that_of_the_trainer() -> None:
    dropping = random_ltd_for(small_model("GPT2LMHead"), maximum=32, minimum=8, duration=4)
    callback = RandomLTDCallback(dropping)
    callback.on_train_begin(SimpleNamespace(n_gpu=1, process_index=2, world_size=4), None, None)
    assert (dropping.rank, dropping.ranks) == (2, 4)
    with pytest.raises(UserError, match="torchrun"):
        callback.on_train_begin(SimpleNamespace(n_gpu=2, process_index=0, world_size=1), None, None)
