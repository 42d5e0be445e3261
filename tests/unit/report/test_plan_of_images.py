"""tools/plan_run.py of vision transformers: the layer tokens that random-LTD saves as published (arXiv
2211.11586), and parameters and FLOPs in closed form."""

import json
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from tools import plan_run

BASE = "--task vit --num-layers 12 --hidden-size 768 --num-attention-heads 12 --num-classes 1000 --lr 5e-5 "
RECIPES = {
    "ImageNet": (
        BASE + "--micro-batch-size 256 --train-samples 17936338 --random-ltd-min 66 --random-ltd-quantum 1 "
        "--random-ltd-duration 56051",
        0.223,
    ),
    "CIFAR": (
        "--task vit --num-layers 24 --hidden-size 1024 --num-attention-heads 16 --num-classes 10 --lr 1e-4 "
        "--micro-batch-size 128 --train-samples 700000 --random-ltd-min 32 --random-ltd-quantum 1 "
        "--random-ltd-duration 4375",
        0.309,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes_save_what_is_published(name: str, tmp_path: Path) -> None:
    flags, saved = RECIPES[name]
    plan_run.main([*flags.split(), "--random-ltd", "--output", str(tmp_path)])
    summary = json.loads((tmp_path / "plan.json").read_text())
    assert summary["layer_tokens_saved"] == pytest.approx(saved, abs=5e-4)


def test_parameters_and_flops_of_vit_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """86,567,656 parameters, as transformers counts them; and FLOPs of one image by hand."""
    plan_run.main([*BASE.split(), "--micro-batch-size", "1", "--train-iters", "1", "--output", str(tmp_path)])
    assert "model: 86,567,656 parameters" in capsys.readouterr().out
    tokens, hidden = 197, 768
    layer = 6 * 12 * hidden**2 * tokens + 12 * hidden * tokens**2
    wanted = 12 * layer + 6 * hidden * 1000 + 4 * hidden * 768 * 196
    assert json.loads((tmp_path / "plan.json").read_text())["flops"] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("--curriculum seqlen_truncate:min=16,max=197,duration=2,quantum=8", "is of texts"),
        ("--sequence-parallel --tensor-model-parallel-size 2", "are no number that ranks could share"),
    ],
)
def test_mistakes_are_told(more: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        plan_run.main([*BASE.split(), "--micro-batch-size", "4", "--train-iters", "9", *more.split()])


def test_suggestions_share_no_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--micro-batch-size 4 --global-batch-size 64 --train-iters 9 --suggest-layout 8 80GiB"
    plan_run.main([*BASE.split(), *words.split()])
    assert "layouts fit" in capsys.readouterr().out
