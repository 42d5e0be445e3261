"""What is read of the files that tools/evaluate.py and sweeps of finetune.py write."""

import json
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.reproduce.measures import read_measures


def test_measures_of_a_gpt_of_images_and_of_a_sweep(tmp_path: Path) -> None:
    result = {"split": "valid", "loss": 2.0, "bits_per_byte": 1.5, "losses": {"accuracy": 0.9}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": [result]}))
    (tmp_path / "sections").mkdir()
    rates = {"0.003": {"valid accuracy": {"median": 0.7}}}
    told = {"rates": rates, "best_lr": 0.003, "score": "valid accuracy"}
    (tmp_path / "sections" / "sweep.json").write_text(json.dumps(told))
    names = ("bits_per_byte", "loss", "top1", "finetuned_accuracy")
    assert read_measures(tmp_path, names) == dict(zip(names, (1.5, 2.0, 0.9, 0.7)))


def test_a_measure_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": [{"loss": 2.0}]}))
    with pytest.raises(UserError, match="nothing tells bits_per_byte of this run"):
        read_measures(tmp_path, ("bits_per_byte",))
