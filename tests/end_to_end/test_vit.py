"""Images from a folder to a trained vision transformer by the commands: resumed after a kill as if unbroken,
finetuned at another resolution, evaluated, shown and reported."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.end_to_end.conftest import records
from tests.end_to_end.test_resume import interrupt
from tests.support.commands import run_command

STEPS = 24
SHAPE = (
    "--img-h 8 --img-w 8 --patch-dim 2 --num-channels 1 --img-crop-scale 0.7 --img-flip 0 --img-eval-crop 1 "
    "--rand-augment 1 --num-layers 4 --hidden-size 32 --num-attention-heads 2 --init-method-std 0.1 "
)
LTD = "--random-ltd --random-ltd-min 6 --random-ltd-quantum 1 --random-ltd-duration 16 "
RUN = (
    f"--train-iters {STEPS} --micro-batch-size 16 --global-batch-size 32 --lr 3e-3 --eval-interval 12 "
    "--eval-iters 2 --log-interval 4 "
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "digits"
    run_command("tools/collect_images.py", "--output", str(folder), "--most", "500", "--val", "100")
    return folder


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_command(*training(digits, folder))
    return folder


def training(digits: Path, folder: Path, *more: str) -> list[str]:
    words = (SHAPE + LTD + RUN).split()
    places = ["--data-path", str(digits), "--save", str(folder), "--load", str(folder)]
    return ["pretrain_vit.py", *words, *places, "--save-interval", "4", *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / f"iter_{STEPS:07d}").glob("model*.safetensors")
    return load_file(path)


def test_a_killed_run_goes_on_to_the_bit(digits: Path, whole: Path, tmp_path: Path) -> None:
    words = training(digits, tmp_path, "--image-workers", "3")
    interrupt(words, tmp_path, 10, signal.SIGKILL)
    run_command(*words)
    assert records(tmp_path) == records(whole)
    one, other = weights(tmp_path), weights(whole)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_ranks_see_the_same_images(digits: Path, whole: Path, tmp_path: Path) -> None:
    run_command(*training(digits, tmp_path, "--use-distributed-optimizer"), ranks=2)
    for mine, theirs in zip(records(tmp_path), records(whole), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert mine["kind"] != "valid" or abs(mine["accuracy"] - theirs["accuracy"]) <= 0.021


def test_it_learns_and_tells_what_it_measures(whole: Path, digits: Path, tmp_path: Path) -> None:
    valid = [one for one in records(whole) if one["kind"] == "valid"]
    first, last = (one["loss"] for one in (valid[0], valid[-1]))
    assert last < first < 2.5 and valid[-1]["windows"] == 64
    assert 0 <= valid[-1]["accuracy"] <= valid[-1]["top5_accuracy"] <= 1
    output = tmp_path / "evaluation.json"
    run_command("tools/evaluate.py", "--load", str(whole), "--splits", "valid", "--output", str(output))
    (result,) = json.loads(output.read_text())["results"]
    assert result["windows"] == result["tokens"] == 100 and result["perplexity"] is None
    assert result["losses"].keys() == {"loss", "accuracy", "top5 accuracy"}
    page, evaluation = tmp_path / "report.html", f"run={output}"
    run_command(
        "tools/report.py", "--runs", f"run={whole}", "--output", str(page), "--evaluation", evaluation
    )
    text = page.read_text()
    assert "Classes of images" in text and "images whose class is the likeliest" in text
    assert "nats an image" not in text or "nats a token" not in text
    shown = run_command("tools/show_batch.py", *training(digits, whole), "--step", "3", "--rows", "2").stdout
    assert "class" in shown and "what layer 1 computes" in " ".join(shown.split())


def test_evaluation_takes_other_images_of_the_same_classes(whole: Path, digits: Path, tmp_path: Path) -> None:
    """A folder that has two of the ten classes, whose numbers are those of training."""
    for digit in ("3", "8"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / digit).symlink_to(digits / "val" / digit)
    words = ["tools/evaluate.py", "--load", str(whole), "--splits", "test", "--split", "0,0,1"]
    output = tmp_path / "two.json"
    run_command(*words, "--data-path", str(tmp_path / "two"), "--output", str(output))
    (result,) = json.loads(output.read_text())["results"]
    assert result["windows"] == sum(len(list((digits / "val" / one).iterdir())) for one in "38")
    (tmp_path / "two" / "x").symlink_to(digits / "val" / "1")
    done = run_command(*words, "--data-path", str(tmp_path / "two"), status=2)
    assert "has images of x, which training has none of" in done.stderr


def test_finetuning_at_another_resolution_with_a_new_head(whole: Path, digits: Path, tmp_path: Path) -> None:
    """Ours, then Hugging Face's weights; the first with half of the classes."""
    words = ["pretrain_vit.py", *f"{SHAPE}{RUN}".replace("--img-h 8", "--img-h 12").split()]
    words += ["--data-path", str(digits), "--lr", "1e-12", "--train-iters", "1", "--eval-iters", "0"]
    ours = ["--pretrained-checkpoint", str(whole), "--classes-fraction", "0.5"]
    done = run_command(*words, *ours, "--save", str(tmp_path / "ours"))
    assert "note: the head over 5 classes is new" in done.stdout
    assert "note: the positions of 4 x 4 patches are resized to 6 x 4" in done.stdout
    (path,) = (tmp_path / "ours").glob("iter_*/model*.safetensors")
    found, before = load_file(path), weights(whole)
    assert found["position_embeddings.weight"].shape == (25, 32) and found["head.weight"].shape == (5, 32)
    name = "layers.2.mlp.up.weight"
    torch.testing.assert_close(found[name], before[name], rtol=0, atol=1e-9)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
        layer_norm_eps=1e-5,
    )
    other = transformers.ViTForImageClassification(config).eval()
    other.save_pretrained(tmp_path / "theirs")
    square = [*" ".join(words).replace("--img-h 12", "--img-h 8").split()]
    square += ["--pretrained-checkpoint", str(tmp_path / "theirs"), "--hidden-dropout", "0"]
    beside = {"image_mean": [0.25] * 3, "image_std": [0.5] * 3}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(beside))
    done = run_command(*square, "--attention-dropout", "0", "--save", str(tmp_path / "converted"))
    assert "by --img-mean 0.25, and these are by --img-mean 0.5; give --img-mean 0.25" in done.stdout
    assert "--img-std" not in done.stdout
    output = tmp_path / "converted.json"
    load = ["--load", str(tmp_path / "converted")]
    run_command("tools/evaluate.py", *load, "--splits", "valid", "--output", str(output))
    (result,) = json.loads(output.read_text())["results"]
    assert result["loss"] == pytest.approx(loss_of(other, digits / "val"), rel=1e-5)
    done = run_command(*square, "--num-attention-heads", "4", status=2)
    assert "its --num-attention-heads is 2, and the flags' 4; give --num-attention-heads 2" in done.stderr


@torch.no_grad()
def loss_of(model: torch.nn.Module, folder: Path) -> float:
    """Their loss of all images of a folder."""
    from PIL import Image

    paths = sorted(folder.rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])[:, None]
    labels = torch.tensor([int(path.parent.name) for path in paths])
    return float(model((torch.from_numpy(pixels) / 255 - 0.5) / 0.5, labels=labels).loss)


def test_mistakes_get_one_line(digits: Path, tmp_path: Path) -> None:
    words = ["pretrain_vit.py", *f"{SHAPE}{RUN}".split(), "--data-path", str(digits)]
    for more, line in (
        (
            ["--curriculum", "seqlen_truncate:min=4,max=17,duration=5"],
            "is of texts: all images are equally long",
        ),
        (["--pretrained-checkpoint", str(tmp_path)], "holds no checkpoint and no config.json"),
        (["--num-classes", "3"], "--num-classes 3: the images are of 10 classes"),
    ):
        done = run_command(*words, *more, status=2)
        assert line in done.stderr and "Traceback" not in done.stderr
