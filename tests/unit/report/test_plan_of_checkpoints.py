"""tools/plan_run.py and tools/show_batch.py of a command that takes the model's shape from a checkpoint."""

from pathlib import Path
from types import ModuleType

import pytest

from megatron.base.errors import UserError
from tests.support.checkpoints import trained
from tools import plan_run, show_batch

RUN = "--seq-length 16 --micro-batch-size 2 --train-iters 3 --lr 1e-3 --mock-data --vocab-size 90 "


@pytest.mark.parametrize(("tool", "more"), [(plan_run, ""), (show_batch, "--step 2")])
def test_a_command_that_takes_its_shape_from_a_checkpoint_is_told_as_the_one_that_gives_it(
    tool: ModuleType, more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = "--num-attention-heads 2 --swiglu --position-embedding-type rope "
    trained(tmp_path, more=shape)
    command = f"python pretrain_gpt.py {RUN} {more} "
    tool.main(f"{command} --num-layers 2 --hidden-size 16 --hidden-dropout 0.5 {shape}".split())
    given = capsys.readouterr()
    tool.main(f"{command} --load {tmp_path} --finetune --use-checkpoint-args".split())
    taken = capsys.readouterr()
    assert taken.out == given.out != ""
    note = f"note: the model's flags are those of {tmp_path / 'iter_0000003'}\n"
    assert note in taken.err and taken.err.replace(note, "") == given.err


@pytest.mark.parametrize(("tool", "more"), [(plan_run, ""), (show_batch, "--step 2")])
def test_the_task_of_an_encoder_in_a_checkpoint_is_asked_for(
    tool: ModuleType, more: str, tmp_path: Path
) -> None:
    trained(tmp_path, task="bert", more="--bert-no-binary-head --embedding-norm ")
    with pytest.raises(
        UserError, match=r"embedding-norm, .*: belongs to pretrain_bert\.py; give --task bert"
    ):
        tool.main(f"{RUN} {more} --load {tmp_path} --finetune --use-checkpoint-args".split())
