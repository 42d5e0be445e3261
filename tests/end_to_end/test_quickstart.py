"""The quickstart: its commands for any corpus and budget, and the script itself on a small corpus."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Prepared
from tests.support.commands import ROOT
from tests.support.quickstarts import commands, copy_of_the_tree, folder_of, quickstart
from tools import plan_run

Stop = Callable[["subprocess.Popen[str]", Path], None]
INTERVALS = ("--eval-interval", "--save-interval", "--log-interval")


@pytest.mark.parametrize(
    ("tokens", "curriculum", "dropping", "intervals"),
    [
        ("800000", 160, 280, [50, 100, 25]),
        ("80_000", 16, 28, [5, 10, 3]),
        ("8000000", 1600, 2800, [500, 1000, 250]),
        ("2000", 1, 1, [1, 1, 1]),
    ],
)
def test_all_schedules_follow_the_tokens(
    tmp_path: Path, tokens: str, curriculum: int, dropping: int, intervals: list[int]
) -> None:
    """What ends a schedule lies at the same share of every run: 1/3, 3/5, and 1/20 for the warm-up."""
    planned, *trained = [
        words
        for words in commands(QUICKSTART_TOKENS=tokens)
        if "tools/plan_run.py" in words or words[0] == "torchrun"
    ]
    for words in trained:
        assert [int(words[words.index(flag) + 1]) for flag in INTERVALS] == intervals
    assert int(planned[planned.index("--random-ltd-duration") + 1]) == dropping
    assert re.findall(r"duration=(\d+)", " ".join(planned)) == 2 * [str(curriculum)]
    plan_run.main([*planned[2 : planned.index("--output")], "--output", str(tmp_path)])
    rows = [line.split(",") for line in (tmp_path / "plan.csv").read_text().splitlines()]
    columns = {name: [float(value) for value in values] for name, *values in zip(*rows)}
    steps, budget = len(columns["step"]), int(tokens.replace("_", ""))
    assert budget <= columns["consumed_tokens"][-1] < budget + 2048
    assert columns["sequence_length"][-1] == columns["kept_length"][-1] == 256 or steps == 1
    assert columns["cap.vocab_rarity"][-1] == 100 or steps == 1
    if steps > 10:
        assert 0.3 < (columns["sequence_length"].index(256) + 1) / steps < 0.36
        assert 0.55 < (columns["kept_length"].index(256) + 1) / steps < 0.62
        peak = columns["learning_rate"].index(max(columns["learning_rate"]))
        assert columns["consumed_tokens"][peak] == pytest.approx(budget / 20, abs=2048)
        assert columns["learning_rate"][-1] == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize("tokens", ["1e6", "0", "-5", "many", "007", "9" * 20])
def test_a_budget_that_is_none_is_told(tokens: str) -> None:
    done = quickstart("--dry-run", QUICKSTART_TOKENS=tokens)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        f"error: QUICKSTART_TOKENS={tokens} must be a whole number of tokens, such as 80000\n"
    )


def test_a_script_that_sh_starts_goes_on_in_bash() -> None:
    for name in ("quickstart", "quickstart_bert", "quickstart_moe"):
        words = [f"scripts/{name}.sh", "--help"]
        told = [
            subprocess.run([shell, *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for shell in ("sh", "bash")
        ]
        assert told[0] == told[1] != ""


def test_every_corpus_has_a_folder_of_its_own(tmp_path: Path) -> None:
    first, second = tmp_path / "my.jsonl", tmp_path / "other" / "my.jsonl"
    second.parent.mkdir()
    first.write_text('{"text": "one"}\n')
    second.write_text('{"text": "two"}\n')
    folders = [folder_of(str(first)), folder_of(str(second)), folder_of(str(first), str(second)), folder_of()]
    assert len(set(folders)) == 4 and folders[3] == "runs/quickstart/this_machine"
    assert all(re.fullmatch(r"runs/quickstart/my-\d+", folder) for folder in folders[:3])
    os.utime(first, (1, 1))
    assert folder_of(str(first)) == folders[0]
    first.write_text('{"text": "six"}\n')
    os.utime(first, (1, 1))
    assert folder_of(str(first)) not in folders


def test_a_link_keeps_its_name_and_is_followed(tmp_path: Path) -> None:
    """As in the cache of Hugging Face: files without an ending, and links that have one."""
    (tmp_path / "it's a blob").write_text('{"text": "one"}\n')
    (tmp_path / "my corpus").mkdir()
    for link in (tmp_path / "my.jsonl", tmp_path / "my corpus" / "part.jsonl"):
        link.symlink_to(tmp_path / "it's a blob")
    tokenizer = commands(str(tmp_path / "my.jsonl"), str(tmp_path / "it's a blob"))[0]
    assert tokenizer[3:5] == [str(tmp_path / "my.jsonl"), str(tmp_path / "it's a blob")]
    before = [folder_of(str(tmp_path / name)) for name in ("my.jsonl", "my corpus")]
    (tmp_path / "it's a blob").write_text('{"text": "two"}\n')
    after = [folder_of(str(tmp_path / name)) for name in ("my.jsonl", "my corpus")]
    assert not set(before) & set(after)


def test_a_corpus_that_would_hold_its_own_results_is_refused() -> None:
    for corpus in (".", ".."):
        done = quickstart("--dry-run", corpus)
        assert done.returncode == 2 and "holds runs/quickstart" in done.stderr


def interrupt(process: subprocess.Popen[str], tree: Path) -> None:
    process.send_signal(signal.SIGINT)


def terminate_ranks(process: subprocess.Popen[str], tree: Path) -> None:
    """Ask the training alone to stop, as a scheduler's warning does."""
    for rank in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (rank / "cmdline").read_bytes()
            if (
                (rank / "cwd").resolve() == tree
                and b"pretrain_gpt.py" in command
                and b"torchrun" not in command
            ):
                os.kill(int(rank.name), signal.SIGTERM)


def stop_where(
    said: str, words: list[str], tree: Path, environment: dict[str, str], stop: Stop = interrupt
) -> tuple[int, str, str]:
    """Start a command, stop it once it says something, and give its status and outputs."""
    process = subprocess.Popen(
        words, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if said in line:
            stop(process, tree)
            break
    rest, errors = process.communicate(timeout=120)  # whoever holds the pipes must be gone
    return process.returncode, "".join(lines) + rest, errors


def test_a_stop_takes_the_job_and_what_it_started_along(tmp_path: Path) -> None:
    script = (
        ". scripts/environment.sh; python=python3; doing='the installation'\n"
        "watched bash -c 'sleep 600 & echo begun; sleep 600'; echo never"
    )
    status, said, errors = stop_where("begun", ["bash", "-c", script], ROOT, dict(os.environ))
    assert (status, said) == (130, "begun\n")
    assert errors == "\nStopped during the installation. The same command goes on from there.\n"


def test_quickstart_stops_goes_on_reuses_and_mends(prepared: Prepared, tmp_path: Path) -> None:
    """The script itself, on a copy of the tree with a small corpus and budget."""
    tree = copy_of_the_tree(tmp_path / "tree")
    corpus = tmp_path / "my.jsonl"
    corpus.write_text(Path(prepared.text).read_text() + "no document\n")
    environment = {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SKIP_INSTALL": "1",
        "QUICKSTART_TOKENS": "30000",
    }

    def again(*words: str) -> subprocess.CompletedProcess[str]:
        return quickstart(str(corpus), *words, tree=tree, **environment)

    words = ["bash", "scripts/quickstart.sh", str(corpus)]
    stop = "\nStopped during the step {}. The same command goes on from there.\n"
    ends = {"analyze": "+ python tools/analyze_data.py", "train-efficient": "+ torchrun"}
    for step, said in (*ends.items(), ("train-efficient", " iteration        3/")):
        status, told, errors = stop_where(said, words, tree, environment)
        assert status == 130, told[-2000:] + errors[-2000:]
        assert errors.endswith(stop.format(step)) and "Traceback" not in errors and "ailed" not in errors
        if step == "analyze":
            assert "left out 1 lines that hold no document" in told and f"{corpus}, line 41" in told
    status, told, errors = stop_where(" iteration        6/", words, tree, environment, terminate_ranks)
    assert status == 143 and errors.endswith(stop.format("train-efficient")), told[-2000:] + errors[-2000:]
    folder = next((tree / "runs" / "quickstart").iterdir())
    with open(folder / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no process is left that holds it
        held = again()
    assert held.returncode == 2 and "another quickstart is writing" in held.stderr

    first = again()
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    assert re.search(r"going on after step \d+ of ", first.stdout)
    report = (folder / "report.html").read_text(encoding="utf-8")
    for word in ("baseline", "efficient", "bits per byte", "vocab_rarity", "data:image/png"):
        assert word in report
    second = again()
    assert second.returncode == 0 and second.stdout.count("done before") == 11 and "\n+ " not in second.stdout

    (folder / "report.html").unlink()
    (folder / "steps" / "train-baseline.done").unlink()
    latest = (folder / "baseline" / "latest_checkpointed_iteration.txt").read_text().strip()
    third = again()
    assert third.stdout.count("done before") == 9
    assert f"going on after step {latest}" in third.stdout and (folder / "report.html").is_file()

    checkpoint = next((folder / "efficient").glob("iter_*"))
    shutil.rmtree(checkpoint)
    (folder / "corpus_text_document.bin").unlink()
    mended = again()
    assert mended.returncode == 0 and mended.stdout.count("is missing, so this is done again") == 2
    assert checkpoint.is_dir() and (folder / "corpus_text_document.bin").is_file()
    (kept,) = folder.glob("efficient.until-*")
    assert f"note: the run that was here is kept in {kept.relative_to(tree)}\n" in mended.stdout
    assert (kept / "metrics.jsonl").is_file() and not (kept / checkpoint.name).exists()

    kept = shutil.copy(corpus, tree / "runs" / "quickstart" / "mine.jsonl")
    words = ["bash", "scripts/quickstart.sh", "--clean", str(corpus)]
    assert stop_where("+ python tools/train_tokenizer.py", words, tree, environment)[0] == 130
    assert os.path.isfile(kept) and (folder / "report.html").is_file()
    assert [path.name for path in (folder / "steps").iterdir()] == ["tokenizer.begun"]
