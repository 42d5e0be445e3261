"""Which layers lie on which stage, as the flags share them."""

import pytest
import torch

from megatron.parallel.layers import ONE_RANK
from megatron.parallel.stages import Stage, stages_of
from megatron.tasks.gpt import GPT_TASK
from tests.support.configurations import make_config

FIRST, LAST = "--decoder-first-pipeline-num-layers {} ", "--decoder-last-pipeline-num-layers {} "
EMBEDDING, LOSS = "--account-for-embedding-in-pipeline-split ", "--account-for-loss-in-pipeline-split "
LAYOUT = "--pipeline-model-parallel-layout "
RUNS = "--num-virtual-stages-per-pipeline-rank {} "


@pytest.mark.parametrize(
    ("layers", "ranks", "flags", "counts"),
    [
        (4, 1, "", [4]),
        (4, 2, "", [2, 2]),
        (8, 2, RUNS.format(2), [2, 2, 2, 2]),
        (12, 2, "--num-layers-per-virtual-pipeline-stage 2", [2] * 6),
        (4, 2, FIRST.format(1), [1, 3]),
        (4, 2, LAST.format(1), [3, 1]),
        (4, 2, FIRST.format(3) + LAST.format(1), [3, 1]),
        (10, 4, FIRST.format(1), [1, 3, 3, 3]),
        (10, 4, FIRST.format(1) + LAST.format(3), [1, 3, 3, 3]),
        (61, 16, FIRST.format(3) + LAST.format(2), [3, *[4] * 14, 2]),
        (10, 3, FIRST.format(2) + RUNS.format(2), [1, 2, 2, 1, 2, 2]),
        (16, 3, FIRST.format(2) + LAST.format(4) + RUNS.format(2), [1, 5, 2, 1, 5, 2]),
        (7, 4, EMBEDDING, [1, 2, 2, 2]),
        (7, 4, LOSS, [2, 2, 2, 1]),
        (6, 4, EMBEDDING + LOSS, [1, 2, 2, 1]),
        (14, 2, EMBEDDING + LOSS + RUNS.format(2), [3, 4, 4, 3]),
        (14, 2, EMBEDDING + LOSS + "--num-layers-per-virtual-pipeline-stage 4", [3, 4, 4, 3]),
        (2, 4, EMBEDDING + LOSS, [0, 1, 1, 0]),
        (4, 1, EMBEDDING + LOSS, [4]),
        (5, 2, LAYOUT + "'Etttt|tL'", [4, 1]),
        (61, 16, LAYOUT + "'Et*3|(tt|)*28t|t|L'", [3, *[2] * 28, 1, 1, 0]),
    ],
)
def test_layers_of_every_stage(layers: int, ranks: int, flags: str, counts: list[int]) -> None:
    config = make_config(f"--num-layers {layers} --pipeline-model-parallel-size {ranks} {flags}")
    stages = stages_of(config.parallel, config.model)
    assert [len(one.layers) for one in stages] == counts
    assert [layer for one in stages for layer in one.layers] == list(range(layers))
    assert [one.first for one in stages] == [True, *[False] * (len(stages) - 1)]
    assert [one.last for one in stages] == [*[False] * (len(stages) - 1), True]


def test_runs_of_layers_follow_from_a_layout() -> None:
    config = make_config("--pipeline-model-parallel-size 2 " + LAYOUT + "'Et|t|t|tL'")
    assert config.parallel.pipeline_schedule == "interleaved"


def test_a_stage_without_layers_has_a_precision() -> None:
    config = make_config("--bf16 false")
    model = GPT_TASK.build_model(config, 100, (), ONE_RANK, Stage(range(0), first=True, last=False))
    assert len(model.layers) == 0 and model.to(torch.float64).precision == torch.float64
