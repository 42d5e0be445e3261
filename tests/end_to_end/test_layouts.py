"""Commands on several ranks: other layouts print the losses of one rank, go on from each other's checkpoints,
and refuse what they cannot do before a rank starts."""

from pathlib import Path

import pytest

from tests.end_to_end.conftest import records
from tests.support.commands import run_command

FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --micro-batch-size 2 "
    "--global-batch-size 8 --lr 1e-3 --mock-data --vocab-size 100 --train-iters 10 --log-interval 1 "
    "--eval-iters 2 --eval-interval 5 --random-ltd --random-ltd-min 16 --random-ltd-duration 8 "
)
TENSOR_PIPELINE = "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 "


def train(folder: Path, flags: str, ranks: int = 1) -> str:
    words = [*FLAGS.split(), "--save", str(folder), "--load", str(folder), *flags.split()]
    return run_command("pretrain_gpt.py", *words, ranks=ranks).stdout


def losses(folder: Path) -> list[tuple[str, int, float]]:
    return [(one["kind"], one["iteration"], one["lm_loss"]) for one in records(folder)]


def test_a_run_goes_on_on_other_layouts(tmp_path: Path) -> None:
    """Four ranks, then two, then one, against one rank throughout; fp32 rounds the last digits."""
    train(tmp_path / "one", "")
    out = train(tmp_path / "many", TENSOR_PIPELINE + "--exit-interval 4", 4)
    for place in ("(0, 0)", "(1, 0)", "(0, 1)", "(1, 1)"):
        assert f"(tensor, pipeline) model parallel rank {place}:" in out
    train(tmp_path / "many", "--context-parallel-size 2 --exit-interval 7", 2)
    train(tmp_path / "many", "")
    wanted, found = losses(tmp_path / "one"), losses(tmp_path / "many")
    assert [one[:2] for one in found] == [one[:2] for one in wanted]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in wanted], rel=1e-5)


def test_what_ranks_cannot_do_is_told_together() -> None:
    flags = "--tensor-model-parallel-size 3 --pipeline-model-parallel-size 3 --num-attention-heads 4"
    done = run_command("pretrain_gpt.py", *FLAGS.split(), *flags.split(), status=2)
    lines = done.stderr
    for words in (
        "1 rank was started, which is no multiple of --tensor-model-parallel-size 3 x",
        "--num-attention-heads 4 is no multiple of --tensor-model-parallel-size 3",
        "--num-layers 4",
    ):
        assert words in lines
    assert "Traceback" not in lines
