from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import flags_of, parse
from megatron.config.config import Config
from megatron.config.other_megatrons import FOREIGN_FLAGS
from tests.support.configurations import SMALL, make_config


def test_no_flag_of_ours_stands_in_the_table() -> None:
    spellings = {spelling for one in flags_of(Config) for spelling in one.spellings}
    assert not {f"--{name}" for name in FOREIGN_FLAGS} & spellings


@pytest.mark.parametrize(
    "text",
    [
        "--tensor-model-parallel-size 1 --pipeline-model-parallel-size 1 --context-parallel-size 1",
        "--transformer-impl local --use-flash-attn --no-masked-softmax-fusion --num-workers 8",
        "--deepspeed --zero-stage 1 --no-pipeline-parallel --data-efficiency-curriculum-learning",
        "--dataloader-type single --weight-decay-incr-style constant",
        "--data-cache-path /cache --exit-signal-handler --tensorboard-queue-size 1 --local_rank=0",
        "--DDP-impl local --sequence-parallel --use-distributed-optimizer --checkpoint-activations "
        "--no-query-key-layer-scaling",
        "--fp16 false --num-experts 1 --loss-scale 0 --use-torch-fsdp2 false",
        "--override-opt_param-scheduler --deepspeed_config run.json --yaml-cfg",
    ],
)
def test_flags_of_other_megatrons_that_change_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("lr: 1\n")
    argv = text.replace("--yaml-cfg", f"--yaml-cfg {path}").split()
    assert isinstance(parse(Config, [*SMALL.split(), *argv], description="", foreign=FOREIGN_FLAGS), Config)


@pytest.mark.parametrize(
    "text",
    [
        "--tensor-model-parallel-size 2",
        "--pipeline-model-parallel-size 4",
        "--fp16",
        "--num-experts 8",
        "--use-torch-fsdp2",
        "--dataloader-type cyclic",
        "--qk-layernorm",
        "--no-load-optim",
        "--use-checkpoint-opt_param-scheduler",
    ],
)
def test_flags_of_other_megatrons_that_change_the_numbers(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Config, [*SMALL.split(), *text.split()], description="", foreign=FOREIGN_FLAGS)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{text} is refused: ")


def test_flags_of_another_megatron_may_stand_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("tensor_model_parallel_size: 1\nfp16: false\nnum-workers: 4\n")
    assert make_config(f"--config {path} --train-iters 1").training.train_iters == 1
    path.write_text("tensor_model_parallel_size: 2\nfp16: true\n")
    with pytest.raises(UserError) as caught:
        make_config(f"--config {path} --train-iters 1")
    assert len(caught.value.problems) == 2
