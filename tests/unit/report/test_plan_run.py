"""tools/plan_run.py: the published schedules through the tool, its files, and what it asks for."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.launch import rank_notes, unwrap
from tools import plan_run

ROOT = Path(__file__).parents[3]
MODEL = (
    "--num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 2048 "
    "--micro-batch-size 8 --global-batch-size 512"
)
RATE = "--lr 2e-4 --min-lr 1e-6 --lr-warmup-tokens 3e9 --lr-decay-style cosine"
ORDER = (
    "--curriculum vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=110000"
)
CURRICULUM = f"{ORDER} --curriculum seqlen_truncate:min=80,max=2048,duration=110000,quantum=8"
DROPPING = "--random-ltd --random-ltd-min 128 --random-ltd-duration 200000"
SMALL = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 128 --micro-batch-size 2 --lr 1e-3"
)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("--num-layers 2", "--num-layers 2"),
        ("python pretrain_gpt.py --num-layers 2", "--num-layers 2 --data-parallel-size 1"),
        ("torchrun --nproc_per_node=4 --nnodes 2 pretrain_gpt.py --lr 1", "--lr 1 --data-parallel-size 8"),
        (
            "deepspeed --num_gpus 2 pretrain_gpt.py --lr 1 --data-parallel-size 3",
            "--lr 1 --data-parallel-size 3",
        ),
        (
            "torchrun --nproc_per_node=8 a.py --tensor-model-parallel-size 2 --context_parallel_size=2",
            "--tensor-model-parallel-size 2 --context_parallel_size=2 --data-parallel-size 2",
        ),
        ("--num-layers 2 --difficulty-path a.py", "--num-layers 2 --difficulty-path a.py"),
        (
            "--timeline --suggest-layout 8 80GiB /opt/bin/torchrun --nproc-per-node 4 pretrain_gpt.py --lr 1",
            "--timeline --suggest-layout 8 80GiB --lr 1 --data-parallel-size 4",
        ),
        ("--step 3 pretrain_gpt.py --lr 1", "--step 3 --lr 1 --data-parallel-size 1"),
    ],
)
def test_a_launch_command_is_taken_as_it_stands(words, flags):
    assert unwrap(words.split()) == flags.split()


@pytest.mark.parametrize(
    ("flags", "steps", "raw"),
    [
        ("", 286_103, 300.0),
        (CURRICULUM, 339_169, 300.0),
        (DROPPING, 372_789, 390.9),
        (f"{CURRICULUM} {DROPPING}", 377_264, 339.9),
    ],
)
def test_published_schedules(tmp_path, capsys, flags, steps, raw):
    plan_run.main([*f"{MODEL} {RATE} --train-tokens 300e9 {flags}".split(), "--output", str(tmp_path)])
    summary = json.loads((tmp_path / "plan.json").read_text())
    assert summary["steps"] == steps
    assert round(summary["totals"]["raw_tokens"] / 1e9, 1) == raw
    assert f"{steps:,}" in capsys.readouterr().out
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "plan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 9_000 < len(rows) <= 10_001
    lengths = np.array([int(row["sequence_length"]) for row in rows])
    assert set(np.diff(lengths)) <= {0, 8}
    assert (rows[0]["step"], rows[-1]["step"]) == ("1", str(steps))
    assert int(rows[-1]["consumed_tokens"]) == summary["totals"]["consumed_tokens"] >= 300e9
    assert int(rows[-2]["consumed_tokens"]) < 300e9


def test_summary_of_curriculum_and_dropping(tmp_path, capsys):
    plan_run.main(
        [*f"{MODEL} {RATE} --train-tokens 300e9 {CURRICULUM} {DROPPING}".split(), "--output", str(tmp_path)]
    )
    summary = json.loads((tmp_path / "plan.json").read_text())
    assert summary["sequence_length"] == {"first": 80, "last": 2048, "from_step": 110_000, "full": 2048}
    assert summary["kept_length"] == {
        "first": 80,
        "last": 2048,
        "from_step": 200_001,
        "full": 2048,
        "layers": 22,
    }
    assert summary["caps"]["vocab_rarity"] == {
        "first": 1,
        "last": 100,
        "from_step": 110_000,
        "full": 100,
        "difficulty": "percentile",
    }
    totals = summary["totals"]
    assert totals["drawn_tokens"] == 377_264 * 512 * 2048
    assert summary["layer_tokens_saved"] == pytest.approx(
        1 - totals["layer_tokens"] / (24 * totals["raw_tokens"])
    )
    assert summary["vocab_size"] is None
    assert [row["step"] for row in summary["milestones"]] == [1, 37_726, 94_316, 188_632, 282_948, 377_264]
    text = capsys.readouterr().out
    assert "80 to 2,048 tokens, full from step 110,000" in text
    assert "300.0 B (300,000,323,584)" in text
    assert "without the logits" in text


def test_a_short_run_has_every_step_and_needs_no_data(tmp_path, capsys):
    plan_run.main(
        [
            *f"{SMALL} --global-batch-size 8 --train-iters 50 --vocab-size 500".split(),
            "--output",
            str(tmp_path),
        ]
    )
    with open(tmp_path / "plan.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["raw_tokens"]) for row in rows] == [8 * 128 * step for step in range(1, 51)]
    weights, rows_of_step = 12 * 64 * 64 * 4, 8
    expected = rows_of_step * (6 * 128 * weights + 6 * 64 * 128**2 * 4 + 6 * 64 * 500 * 128)
    assert float(rows[0]["flops"]) == expected
    assert json.loads((tmp_path / "plan.json").read_text())["flops"] == pytest.approx(50 * expected)
    text = capsys.readouterr().out
    assert (
        "nothing is dropped" in text
        and "with the logits of 500 tokens" in text
        and "128 tokens in every step" in text
    )


def test_a_launch_command_can_be_pasted(capsys):
    launch = "--data-path corpus --save out --save-interval 10 --num-workers 4 --bf16 "
    launch += "--global-batch-size 64 --train-samples 640"
    plan_run.main(f"{SMALL} {launch} --data-parallel-size 8".split())
    told = capsys.readouterr()
    launch += " --profile --profile-step-start 9 --profile-step-end 3 --save-retain-interval 7 --ckpt-step 3"
    plan_run.main(f"{SMALL} {launch} --data-parallel-size 8".split())  # none of these shapes a plan
    assert capsys.readouterr().out == told.out
    assert "micro-batches of 2 on 8 data-parallel ranks" in told.out
    assert "not used here: --num-workers (" in told.err


def test_the_timeline_of_a_pipeline(capsys):
    flags = "--pipeline-model-parallel-size 4 --global-batch-size 32 --train-iters 5 --timeline"
    plan_run.main(f"torchrun --nproc-per-node 8 pretrain_gpt.py {SMALL} {flags}".split())
    told = capsys.readouterr().out
    assert "micro-batches of 2 on 2 data-parallel ranks" in told
    lines = told.splitlines()[-8:]
    assert lines[0] == "Step 5 by the schedule 1f1b: 8 micro-batches through Et | t | t | tL"
    assert lines[1].startswith("rank 0 |F0-F1-F2-F3-                  B0----F4-")
    assert lines[6:] == [
        "bubble: 27.3% of the ranks' time",
        "most micro-batches held at once, by rank: 4, 3, 2, 1",
    ]
    plan_run.main(f"{SMALL} {flags} --data-parallel-size 2 --pipeline-schedule zero-bubble".split())
    assert "bubble: 11.1% of the ranks' time" in capsys.readouterr().out


def test_stages_take_as_long_as_they_have_layers(capsys):
    flags = "--pipeline-model-parallel-size 2 --global-batch-size 4 --train-iters 5 --timeline "
    plan_run.main(f"{SMALL} {flags} --decoder-first-pipeline-num-layers 1".split())
    assert capsys.readouterr().out.splitlines()[-5:-3] == [
        "rank 0 |F0-F1-                        B0----                     B1----|",
        "rank 1 |   F0-------B0----------------F1-------B1----------------      |",
    ]
    layout = ["--pipeline-model-parallel-layout", "Ettt|tL"]
    plan_run.main([*f"{SMALL} {flags}".split(), *layout])  # E and L count, so that it is 4 to 2
    assert capsys.readouterr().out.splitlines()[-4].startswith("rank 1 |      F0-B0----")


def test_lengths_that_never_get_full_are_told(capsys):
    plan_run.main(
        f"{SMALL} --train-iters 20 --curriculum seqlen_reshape:min=16,max=128,duration=40,quantum=8".split()
    )
    assert "16 to 72 tokens, from step 20, short of the full 128" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "nothing says when to stop"),
        ("--train-iters 5 --data-parallel-size 0", "--data-parallel-size 0 must be at least 1"),
        ("--train-iters 5 --global-batch-size 12 --data-parallel-size 4", "is no multiple of"),
        (
            "--train-iters 5 --curriculum seqlen_truncate:min=64,max=256,duration=5",
            "maximum 256 is above --seq-length 128",
        ),
        ("--train-iters 5 --vocab-size 0", "--vocab-size 0 must be at least 1"),
        (
            "--train-iters 5 --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 "
            "--global-batch-size 6",
            "takes micro-batches in groups of --pipeline-model-parallel-size 2",
        ),
        ("--train-itres 5", "did you mean --train-iters"),
    ],
)
def test_mistakes_are_told(flags, message):
    with pytest.raises(UserError, match=message):
        plan_run.main(f"{SMALL} {flags}".split())


def test_all_mistakes_are_told_at_once_and_none_about_data():
    flags = "--data-parallel-size 0 --micro-batch-size 2 --lr 0 --data-path x --mock-data"
    with pytest.raises(UserError) as caught:
        plan_run.main(flags.split())
    assert [problem.split(" is required")[0] for problem in caught.value.problems] == [
        "--lr 0.0 must be above 0",
        "--data-parallel-size 0 must be at least 1",
        "--num-layers",
        "--hidden-size",
        "--num-attention-heads",
        "--seq-length",
        "nothing says when to stop; give --train-iters, --train-samples or --train-tokens",
    ]


def test_a_mistake_ends_the_command_with_status_2():
    command = [sys.executable, str(ROOT / "tools" / "plan_run.py"), *SMALL.split()]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing says when to stop") and "Traceback" not in done.stderr


def test_a_number_of_ranks_that_is_none_is_asked_for():
    words = "torchrun --nproc-per-node auto pretrain_gpt.py --lr 1"
    with pytest.raises(
        UserError,
        match="auto: is no number; the GPUs of this machine are not those of the run; write the number, or",
    ):
        unwrap(words.split())
    assert unwrap(f"{words} --data-parallel-size 3".split())[-1] == "3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("torchrun --nproc-per-node 3 a.py --tensor-model-parallel-size 2", (3, 2, 2)),
        ("torchrun --nproc-per-node 4 --nnodes 2 a.py --pipeline-model-parallel-size 3", (8, 3, 6)),
        ("torchrun --nproc-per-node 2 a.py --context-parallel-size=4", (2, 4, 4)),
        ("torchrun --nproc-per-node 4 a.py --tensor-model-parallel-size 2", None),
        ("torchrun --nproc-per-node 3 a.py --tensor-model-parallel-size 2 --data-parallel-size 2", None),
        ("python a.py --tensor-model-parallel-size 2", None),
        ("--tensor-model-parallel-size 2", None),
    ],
)
def test_a_command_that_starts_ranks_that_training_refuses_is_told(words, said):
    """Training says that 3 ranks are no multiple of 2, and the plan of 2 ranks would not be the command's."""
    notes = rank_notes(words.split())
    assert len(notes) == (said is not None)
    if said:
        started, each, planned = said
        assert notes[0].startswith(f"the command starts {started} ranks, which is no multiple of the {each} ")
        assert notes[0].endswith(f"this is the plan of {planned} ranks")


def test_the_plan_of_other_ranks_than_the_command_says_so(capsys):
    flags = f"{SMALL} --train-iters 4 --tensor-model-parallel-size 2"
    plan_run.main(f"torchrun --nproc-per-node 3 pretrain_gpt.py {flags}".split())
    assert "note: the command starts 3 ranks, which is no multiple of the 2" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["-1,1,0", "90,abc5,5", "0,0,0"])
def test_a_split_that_the_run_refuses_has_no_plan(split):
    with pytest.raises(UserError) as caught:
        plan_run.main(f"{SMALL} --train-iters 4 --split={split}".split())
    assert f"--split {split}: " in str(caught.value)
