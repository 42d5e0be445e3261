"""Every mistake of a user ends with one clear message, before anything is written; through the real
commands."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.tasks.gpt import GPT_TASK
from megatron.train.pretrain import pretrain
from tests.end_to_end.conftest import EFFICIENT, MODEL, Prepared
from tests.support.commands import run_command

SHORT = [*MODEL, "--lr-warmup-iters", "0", "--lr-decay-iters", "10"]


@pytest.fixture
def damaged(prepared: Prepared, tmp_path: Path) -> Callable[..., str]:
    """A function that copies the dataset, changes one of its files, and returns the prefix."""

    def change(ending: str, how: Callable[[bytes], bytes | None]) -> str:
        prefix = tmp_path / "data" / "copy"
        prefix.parent.mkdir()
        for other in (".bin", ".idx", ".json"):
            shutil.copy(prepared.prefix + other, f"{prefix}{other}")
        path = Path(f"{prefix}{ending}")
        content = how(path.read_bytes())
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        return str(prefix)

    return change


def message(prefix: str, folder: Path, *flags: str) -> str:
    """What training says to these flags; nothing may be written."""
    words = [
        *MODEL,
        "--data-path",
        prefix,
        "--split",
        "90,5,5",
        "--train-iters",
        "3",
        "--save",
        str(folder / "run"),
        *flags,
    ]
    with pytest.raises(UserError) as caught:
        pretrain(words, GPT_TASK, "", "")
    assert not [
        path for path in (folder / "run").rglob("*") if path.is_file() and path.name not in (".lock",)
    ]
    return str(caught.value)


FILES = {
    "missing .bin": (".bin", lambda content: None, "copy.bin: does not exist"),
    "missing .idx": (".idx", lambda content: None, "copy.idx: does not exist"),
    "empty .bin": (".bin", lambda content: b"", "copy.bin: has 0 bytes"),
    "empty .idx": (".idx", lambda content: b"", "copy.idx"),
    "truncated .bin": (".bin", lambda content: content[:-10], "cut short"),
    "truncated .idx": (".idx", lambda content: content[:-10], "copy.idx"),
    "wrong magic": (".idx", lambda content: b"NOTMAGIC!" + content[9:], "no Megatron index"),
    "wrong dtype": (".idx", lambda content: content[:17] + b"\x07" + content[18:], "copy.idx"),
    "trailing bytes": (".bin", lambda content: content + b"\0\0", "--append-eod"),
    "damaged .json": (".json", lambda content: content[:20], "copy.json"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(damaged: Callable[..., str], tmp_path: Path, name: str) -> None:
    ending, how, wanted = FILES[name]
    assert wanted in message(damaged(ending, how), tmp_path)


def test_trailing_bytes_can_be_accepted(damaged: Callable[..., str], tmp_path: Path) -> None:
    prefix = damaged(".bin", lambda content: content + b"\0\0")
    flags = [
        "--data-path",
        prefix,
        "--split",
        "90,5,5",
        "--train-iters",
        "1",
        "--eval-iters",
        "0",
        "--allow-trailing-bytes",
    ]
    pretrain([*SHORT, *flags, "--save", str(tmp_path / "run")], GPT_TASK, "", "")
    assert (tmp_path / "run" / "iter_0000001" / "index.json").is_file()


FLAGS = {
    "unknown flag": (["--lr-decay-stile", "cosine"], "did you mean --lr-decay-style"),
    "heads": (["--num-attention-heads", "5"], "--hidden-size 32 is no multiple of --num-attention-heads 5"),
    "pacing": (
        ["--curriculum", "seqlen_truncate:min=64,max=16,duration=5"],
        "minimum 64 is above maximum 16",
    ),
    "kept length": (
        ["--random-ltd", "--random-ltd-duration", "5", "--random-ltd-max", "65"],
        "65 is above --seq-length 64",
    ),
    "short corpus": (["--seq-length", "1000000"], "a sample needs 1000001"),
    "empty training part": (["--split", "0,1,1"], "no data is left for training"),
    "empty validation part": (["--split", "1", "--eval-interval", "1"], "left for validation"),
    "no analysis": (EFFICIENT, "--difficulty-path"),
    "unwritable folder": (["--save", "/proc/nowhere"], "cannot write to the folder /proc"),
    "vocabulary": (["--vocab-size", "7"], "--vocab-size 7 contradicts"),
    "missing dataset": (["--data-path", "/nowhere/text_document"], "no dataset here"),
    "model parallelism": (["--tensor-model-parallel-size", "2"], "--tensor-model-parallel-size 2"),
    "blend weight": (["--data-path", "inf", "/nowhere/text_document"], "weights must be above 0 and finite"),
    "custom pacing": (
        ["--curriculum", "seqlen_truncate:pacing=custom,max=64,function=nowhere:f"],
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(prepared: Prepared, tmp_path: Path, name: str) -> None:
    flags, wanted = FLAGS[name]
    assert wanted in message(prepared.prefix, tmp_path, *flags)


def test_several_wrong_flags_are_told_together(prepared: Prepared, tmp_path: Path) -> None:
    text = message(
        prepared.prefix,
        tmp_path,
        "--num-attention-heads",
        "5",
        "--global-batch-size",
        "3",
        "--hidden-dropout",
        "2",
    )
    assert len(text.splitlines()) == 3


def test_an_empty_first_pool_names_the_smallest_minimum(prepared: Prepared, tmp_path: Path) -> None:
    flags = ["--difficulty-path", prepared.difficulty, "--curriculum", "vocab_rarity:min=1,max=9,duration=5"]
    easiest = int(np.load(prepared.difficulty + "/vocab_rarity.npy").min())
    assert f"min {easiest} admits its easiest sample" in message(prepared.prefix, tmp_path, *flags)


def test_an_analysis_of_other_data(prepared: Prepared, tmp_path: Path) -> None:
    flags = [*EFFICIENT, "--difficulty-path", prepared.difficulty]
    assert "sequences" in message(prepared.prefix, tmp_path, *flags, "--split", "80,10,10")
    shorter = ["--seq-length", "32", "--difficulty-path", prepared.difficulty, EFFICIENT[0]]
    assert "seq_length 64 against 32" in message(prepared.prefix, tmp_path, *shorter)


def test_documents_need_a_token_that_ends_them(damaged: Callable[..., str], tmp_path: Path) -> None:
    prefix = damaged(".json", lambda content: None)
    text = message(prefix, tmp_path, "--vocab-size", "1024", "--eod-mask-loss", "--reset-attention-mask")
    assert text.startswith(
        "--eod-mask-loss and --reset-attention-mask: which token ends a document is unknown"
    )


def test_a_full_disk_ends_with_one_line_and_keeps_the_older_checkpoint(
    prepared: Prepared, tmp_path: Path
) -> None:
    words = [
        *SHORT,
        "--data-path",
        prepared.prefix,
        "--save",
        str(tmp_path),
        "--load",
        str(tmp_path),
        "--save-interval",
        "2",
    ]
    run_command("pretrain_gpt.py", *words, "--train-iters", "2", "--eval-iters", "0")
    small = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, "
        "100_000)); sys.argv = sys.argv[1:]; "
    )
    small += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = run_command(
        "-c", small, "pretrain_gpt.py", *words, "--train-iters", "4", "--eval-iters", "0", status=2
    )
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and "iter_0000004: could not be written" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "2\n"
    assert sorted(path.name for path in tmp_path.glob("*iter_*")) == ["iter_0000002"]


def test_a_disk_without_room_for_a_checkpoint_is_told_before_the_first_step(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a parameter weight and two moments are saved, 12 bytes: so much must be free, and no more."""
    words = [*SHORT, "--data-path", prepared.prefix, "--save", str(tmp_path), "--load", str(tmp_path)]
    words += ["--train-iters", "2", "--eval-iters", "0"]
    run_command("pretrain_gpt.py", *words, "--exit-interval", "1")
    needed = 12 * json.loads((tmp_path / "run.json").read_text())["parameters"]
    saved = sum(path.stat().st_size for path in tmp_path.glob("iter_*/*.safetensors"))
    assert needed <= saved < 1.1 * needed
    records = (tmp_path / "metrics.jsonl").read_text()
    disk = shutil._ntuple_diskusage  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**12, 0, needed - 1))
    with pytest.raises(UserError, match=r"a checkpoint of --save takes at least .* are free there; make"):
        pretrain(words, GPT_TASK, "", "")
    assert (tmp_path / "metrics.jsonl").read_text() == records
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**12, 0, needed))
    pretrain(words, GPT_TASK, "", "")
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "2\n"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**12, 0, 0))
    pretrain(words, GPT_TASK, "", "")  # it has ended, and saves no more


def test_a_token_outside_the_vocabulary(prepared: Prepared, tmp_path: Path) -> None:
    for ending in (".bin", ".idx"):
        shutil.copy(prepared.prefix + ending, tmp_path / f"bare{ending}")
    words = [*MODEL, "--data-path", str(tmp_path / "bare"), "--train-iters", "3"]
    with pytest.raises(UserError, match=r"is unknown: no \.json lies beside it"):
        pretrain(words, GPT_TASK, "", "")
    with pytest.raises(UserError, match="outside the vocabulary of 20"):
        pretrain([*words, "--vocab-size", "20"], GPT_TASK, "", "")


def test_a_checkpoint_of_another_run(prepared: Prepared, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    words = [
        *SHORT,
        "--data-path",
        prepared.prefix,
        "--split",
        "90,5,5",
        "--train-iters",
        "2",
        "--eval-iters",
        "0",
    ]
    pretrain([*words, "--save", folder], GPT_TASK, "", "")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
    others = {
        "--num-layers 3": "--num-layers was 4 and is 3",
        "--seed 5": "--seed was 1234 and is 5",
        "--global-batch-size 4": "--global-batch-size was 8 and is 4",
        "--split 80,10,10": "trained on other data, as --split was 90,5,5 and is 80,10,10: corpus 1 (",
        "--lr 1e-3": "--lr was 0.002 and is 0.001; --override-opt_param-scheduler",
        "--train-iters 1": "is past the run's 1 steps",
        "--finetune --num-layers 3": "is the checkpoint of another model",
    }
    for flags, wanted in others.items():
        with pytest.raises(UserError) as caught:
            pretrain([*words, "--load", folder, *flags.split()], GPT_TASK, "", "")
        assert wanted in str(caught.value), str(caught.value)
    pretrain(
        [*words, "--load", folder, "--lr", "1e-3", "--train-iters", "3", "--override-opt_param-scheduler"],
        GPT_TASK,
        "",
        "",
    )
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "index.json", "latest"])
def test_a_damaged_checkpoint(prepared: Prepared, tmp_path: Path, name: str) -> None:
    words = [*SHORT, "--data-path", prepared.prefix, "--train-iters", "1", "--eval-iters", "0"]
    pretrain([*words, "--save", str(tmp_path)], GPT_TASK, "", "")
    path = (
        tmp_path / "latest_checkpointed_iteration.txt"
        if name == "latest"
        else tmp_path / "iter_0000001" / name
    )
    content = bytearray(path.read_bytes())
    generator = np.random.default_rng(0)
    for damage in ("flip", "noise") if name == "latest" else ("flip", "cut", "empty", "noise"):
        changed = bytearray(content)
        changed[len(content) // 2] ^= 0xFF
        changed = {
            "flip": changed,
            "cut": content[: len(content) // 2],
            "empty": b"",
            "noise": generator.bytes(len(content)),
        }[damage]
        path.write_bytes(changed)
        with pytest.raises(UserError) as caught:
            pretrain([*words, "--load", str(tmp_path), "--train-iters", "2"], GPT_TASK, "", "")
        assert str(path.parent) in str(caught.value)


def test_a_failing_command_says_it_once_and_ends_with_2(prepared: Prepared, tmp_path: Path) -> None:
    words = [
        "pretrain_gpt.py",
        *MODEL,
        "--data-path",
        prepared.prefix,
        "--train-iters",
        "2",
        "--num-attention-heads",
        "5",
    ]
    alone = run_command(*words, status=2)
    assert alone.stderr.startswith("error: --hidden-size 32") and "Traceback" not in alone.stderr
    save = str(tmp_path / "new" / "run")
    together = run_command(*words, "--save", save, ranks=2, status=1, forked=False)
    assert together.stderr.startswith("error: --hidden-size 32")
    assert together.stderr.count("error: --hidden-size 32") == 2  # and as the cause in torchrun's report
    assert "traceback : error: --hidden-size 32" in together.stderr
    missing = (*words[:-4], "--train-iters", "9", "--data-path", str(tmp_path / "none"), "--save", save)
    for ranks, status in ((1, 2), (2, 1)):
        assert "none: no dataset here" in run_command(*missing, ranks=ranks, status=status).stderr
    tool = run_command("tools/evaluate.py", "--load", str(tmp_path), status=2)
    assert "holds no checkpoint" in tool.stderr and "Traceback" not in tool.stderr
    unknown = run_command(
        *(
            "tools/analyze_data.py",
            "--data-path",
            prepared.prefix,
            "--seq-length",
            "64",
            "--metrics",
            "colour",
        ),
        *("--output-dir", str(tmp_path / "x")),
        status=2,
    )
    assert "--metrics colour: unknown" in unknown.stderr
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_before_the_update(prepared: Prepared, tmp_path: Path) -> None:
    flags = [
        "--lr",
        "1e30",
        "--lr-warmup-iters",
        "0",
        "--clip-grad",
        "0",
        "--train-iters",
        "50",
        "--save-interval",
        "1",
        "--eval-iters",
        "0",
    ]
    words = [*MODEL, "--data-path", prepared.prefix, "--save", str(tmp_path)]
    with pytest.raises(UserError, match="nothing was updated"):
        pretrain([*words, *flags], GPT_TASK, "", "")
    saved = int((tmp_path / "latest_checkpointed_iteration.txt").read_text())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == saved
    assert json.loads((tmp_path / f"iter_{saved:07d}" / "index.json").read_text())["iteration"] == saved
