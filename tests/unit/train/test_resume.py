"""Which runs a checkpoint may be taken up by: what flags mean counts, not how they are written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from megatron.checkpoint.compare import resume_problems
from megatron.checkpoint.manifest import Manifest
from megatron.checkpoint.save import clear_unfinished
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.mesh import Mesh
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.resume import describe_run
from megatron.train.setup import build, join
from tests.support.configurations import make_config
from tests.support.corpora import make_analysis, make_corpus

FLAGS = (
    "--num-layers 4 --hidden-size 16 --seq-length 32 --global-batch-size 4 --train-iters 20 "
    "--lr-warmup-iters 2 "
)
CURRICULUM = (
    "--curriculum vocab_rarity:difficulty=percentile,min=20,max=100,pacing=fixed_root,root=2,duration=10 "
)
LENGTH = "--curriculum seqlen_truncate:min=8,max=32,duration=10,quantum=4 "
DROPPING = "--random-ltd --random-ltd-min 8 --random-ltd-duration 10 "
VOCABULARY = Vocabulary(50, 0, None)
EFFICIENT = FLAGS + CURRICULUM + LENGTH + DROPPING


def described(flags: str, analysis: Path, vocabulary: Vocabulary = VOCABULARY) -> tuple[Manifest, Plan]:
    """What a checkpoint of the run says of it, and its plan. `analysis`: its folder, made where it is
    missing."""
    corpus = make_corpus(64, 32)
    if not analysis.exists():
        make_analysis(corpus, analysis)
    config = make_config(
        f"{flags} --difficulty-path {analysis}" if "vocab_rarity" in flags or "json" in flags else flags
    )
    efficiency, _ = describe(config)
    data = Data({"train": [(None, corpus)], "valid": [], "test": []}, vocabulary)
    run = build(join(GPT_TASK, config, efficiency, data), Mesh())
    return describe_run(run), run.plan


def checkpoint_of(mine: Manifest, plan: Plan, step: int = 5) -> Manifest:
    """What the checkpoint of a step says."""
    return dataclasses.replace(mine, iteration=step, totals=plan.totals(step), plan=plan.digest(step))


def problems(old: str, new: str, folder: Path, **more: Any) -> list[str]:
    saved = checkpoint_of(*described(old, folder / "analysis"))
    return resume_problems(saved, *described(new, folder / "analysis", **more), False)


def write_json(path: Path, **schedule: int) -> str:
    """The curriculum and random-LTD of EFFICIENT as a DeepSpeed configuration."""
    rarity = {
        "difficulty_type": "percentile",
        "min_difficulty": 20,
        "max_difficulty": 100,
        "schedule_type": "fixed_root",
        "schedule_config": {"total_curriculum_step": 10, "difficulty_step": 1, "root_degree": 2},
    }
    length = {
        "min_difficulty": 8,
        "max_difficulty": 32,
        "schedule_type": "fixed_linear",
        "schedule_config": {"total_curriculum_step": 10, "difficulty_step": 4} | schedule,
    }
    ltd = {
        "enabled": True,
        "random_ltd_layer_id": [1, 2],
        "random_ltd_schedule": {
            "min_value": 8,
            "max_value": 32,
            "schedule_type": "fixed_linear",
            "schedule_config": {"require_steps": 10, "seq_per_step": 16},
        },
    }
    learning = {"enabled": True, "curriculum_metrics": {"seqlen_truncate": length, "vocab_rarity": rarity}}
    section = {
        "enabled": True,
        "seed": 1234,
        "data_sampling": {"enabled": True, "curriculum_learning": learning},
        "data_routing": {"enabled": True, "random_ltd": ltd},
    }
    path.write_text(json.dumps({"data_efficiency": section}))
    return f"{FLAGS} --data-efficiency-config {path} "


def test_the_same_run_in_other_words_goes_on(tmp_path: Path) -> None:
    other_order = (
        FLAGS
        + DROPPING
        + LENGTH
        + CURRICULUM.replace("min=20,max=100", "max=100,min=20")
        + "--random-ltd-layers 1,2 --split 1,0,0"
    )
    assert not problems(EFFICIENT, other_order, tmp_path)
    assert not problems(EFFICIENT, write_json(tmp_path / "efficiency.json"), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (CURRICULUM.replace("min=20", "min=25"), "its curriculum of difficulties was"),
        ("--random-ltd-duration 12", "its random-LTD was"),
        ("--data-efficiency-seed 7", "its seed of the order of samples was 1234 and is 7"),
        ("--hidden-dropout 0.2", "--hidden-dropout was 0.1 and is 0.2"),
        ("--lr-warmup-iters 3", "the warm-up was"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: str, said: str) -> None:
    new = EFFICIENT.replace(CURRICULUM, change) if "vocab_rarity" in change else EFFICIENT + change
    found = problems(EFFICIENT, new, tmp_path)
    assert any(said in line for line in found), found


def test_a_changed_json_is_refused(tmp_path: Path) -> None:
    old = write_json(tmp_path / "efficiency.json")
    saved = checkpoint_of(*described(old, tmp_path / "analysis"))
    mine, plan = described(
        write_json(tmp_path / "efficiency.json", total_curriculum_step=12), tmp_path / "analysis"
    )
    assert any("its curriculum of lengths was" in line for line in resume_problems(saved, mine, plan, False))


def test_other_difficulties_of_the_same_data_are_refused(tmp_path: Path) -> None:
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = dataclasses.replace(checkpoint_of(mine, plan), analyses=[{"vocab_rarity": "another"}])
    found = resume_problems(saved, mine, plan, False)
    assert any("another analysis" in line for line in found)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    found = problems(FLAGS, FLAGS, tmp_path, vocabulary=Vocabulary(60, 1, None))
    assert [line.split(": ")[1].split(";")[0] for line in found] == [
        "its end-of-document token was 0 and is 1",
        "its vocabulary was 50 and is 60",
    ]


def test_a_changed_pacing_function_is_refused(tmp_path: Path) -> None:
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = dataclasses.replace(checkpoint_of(mine, plan), plan=1)
    assert "it came of steps that differ" in resume_problems(saved, mine, plan, False)[0]


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = dataclasses.replace(checkpoint_of(mine, plan), task="bert")
    assert "it is of the task bert, and this is gpt" in resume_problems(saved, mine, plan, False)[0]


def test_what_a_killed_save_left_is_cleared(tmp_path: Path) -> None:
    for name in (
        ".iter_0000008.aaaa.partial",
        ".iter_0000004.bbbb.old",
        ".iter_0000006.cccc.old",
        "iter_0000006",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(name)
    clear_unfinished(tmp_path)
    assert {path.name: (path / "index.json").read_text() for path in tmp_path.iterdir()} == {
        "iter_0000004": ".iter_0000004.bbbb.old",
        "iter_0000006": "iter_0000006",
    }
