"""finetune.py as it is typed: after pretraining, in sweeps that go on, on two ranks, and with mistakes."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import ROOT, command, run_command
from tests.support.labelled import texts_of, write_huggingface, write_own
from tests.support.made_up_text import write_bert_vocabulary, write_lines

SIZES = ["--train-iters", "2", "--micro-batch-size", "4", "--global-batch-size", "8", "--lr", "1e-3"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("labelled")
    return ["finetune.py", *write_own(folder), *SIZES, "--load", str(write_huggingface(folder / "bert"))]


def test_a_sweep_goes_on_where_it_was_stopped(words: list[str], tmp_path: Path) -> None:
    save = tmp_path / "sweep"
    sweep = [*words, "--save", str(save), "--sweep-lr", "1e-3", "--seeds", "1-2", "--parallel", "2"]
    (tmp_path / "sweep").mkdir()
    (save / "lr0.001_seed2").write_text("in the way")
    failed = run_command(*sweep, status=2)
    assert "2 runs, of which 0 are done" in failed.stdout
    *_, one, last = failed.stderr.strip().split("\n")
    assert one.startswith("error: lr 0.001, seed 2: cannot write to the folder")
    assert last == "error: 1 of 2 runs failed; the same command goes on"
    assert json.loads((save / "sweep.json").read_text())["rates"]["0.001"]["dev accuracy"]["seeds"] == 1
    (save / "lr0.001_seed2").unlink()
    done = run_command(*sweep)
    assert "2 runs, of which 1 are done" in done.stdout and "best rate by the median" in done.stdout
    found = json.loads((save / "sweep.json").read_text())
    assert [run["seed"] for run in found["runs"]] == [1, 2]
    assert found["rates"]["0.001"]["dev accuracy"]["seeds"] == 2
    assert (save / "lr0.001_seed2" / "predictions" / "test.tsv").is_file()
    narrower = run_command(*sweep, "--sweep-lr", "2e-3", "--seeds", "1")
    assert "1 run, of which 0 are done" in narrower.stdout
    found = json.loads((save / "sweep.json").read_text())
    assert [(run["lr"], run["seed"]) for run in found["runs"]] == [(0.001, 1), (0.001, 2), (0.002, 1)]
    assert {rate: one["dev accuracy"]["seeds"] for rate, one in found["rates"].items()} == {
        "0.001": 2,
        "0.002": 1,
    }


@pytest.mark.parametrize("by", ["terminal", "kill"])
def test_a_sweep_that_is_stopped_says_so(words: list[str], tmp_path: Path, by: str) -> None:
    """Ctrl-C reaches its runs, too, and a signal to it alone ends them: none has failed."""
    sweep = [*words, "--train-iters", "100000", "--save", str(tmp_path), "--seeds", "1-2", "--parallel", "1"]
    process = subprocess.Popen(
        command(*sweep),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's job may ignore it
    )
    records, end = tmp_path / "lr0.001_seed1" / "metrics.jsonl", time.monotonic() + 120
    while not (records.is_file() and records.stat().st_size) and time.monotonic() < end:
        time.sleep(0.05)
    if by == "terminal":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    begun, stopped, last = out.strip().split("\n")
    assert begun == "2 runs, of which 0 are done" and stopped.startswith("lr 0.001, seed 1: stopped after ")
    assert last == "0 of 2 runs are done; the same command goes on"
    with pytest.raises(ProcessLookupError):  # nothing of it is left
        os.killpg(process.pid, 0)


def test_two_ranks_come_to_the_results_of_one(words: list[str], tmp_path: Path) -> None:
    results = []
    for ranks in (1, 2):
        run_command(*words, "--save", str(tmp_path / str(ranks)), ranks=ranks)
        results.append(json.loads((tmp_path / str(ranks) / "results.json").read_text()))
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["run"] == results[1]["run"]
    assert [one["world_size"] for one in results] == [1, 2]


def test_a_label_that_training_has_not_leaves_nothing(words: list[str], tmp_path: Path) -> None:
    path = Path(shutil.copy(words[words.index("--valid-file") + 1], tmp_path / "valid.tsv"))
    path.write_text(path.read_text() + "the fox\t2\n")
    done = run_command(*words, "--valid-file", str(path), "--save", str(tmp_path / "run"), status=2)
    way = "mend it, or leave the line out"
    assert done.stderr == f"error: {path}: line 22 has the label '2', and the task knows 0, 1; {way}\n"
    assert not (tmp_path / "run").exists()


def test_from_pretraining_to_predictions(words: list[str], tmp_path: Path) -> None:
    vocabulary, prefix = write_bert_vocabulary(tmp_path / "vocab.txt"), str(tmp_path / "my")
    texts = write_lines(tmp_path / "my.jsonl", texts_of(["0", "1"] * 40))
    named = ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", vocabulary, "--split-sentences"]
    data = ["--input", texts, "--output-prefix", prefix, "--workers", "1"]
    run_command("tools/preprocess_data.py", *data, *named)
    shape = "--num-layers 2 --hidden-size 32 --num-attention-heads 4 --seq-length 16 --bert-no-binary-head"
    run = [*shape.split(), "--save", str(tmp_path / "bert"), "--data-path", f"{prefix}_text_sentence"]
    run_command("pretrain_bert.py", *run, "--split", "100,0,0", "--eval-iters", "0", *SIZES)
    load = ["--load", str(tmp_path / "bert")]
    done = run_command(*words, *load, "--save", str(tmp_path / "run"))
    assert "which has no pooler: that begins anew" in done.stdout
    assert (tmp_path / "run" / "predictions" / "dev.tsv").is_file()
