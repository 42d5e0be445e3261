"""The README's commands work as written, and the pages that are made from the code are as the code says."""

import json
import re
import shlex
from pathlib import Path

import pytest

from scripts.make_flags_page import PAGE, flags_page
from tests.end_to_end.conftest import write_text
from tests.support.commands import ROOT, run_command, run_forked
from tests.support.labelled import texts_of
from tests.unit.finetuning.test_examples import write_glue

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(page: str, heading: str = "") -> list[list[str]]:
    """The python commands of the first code block below a heading, or of all blocks of a page of docs."""
    if heading:
        block = re.search(rf"## {heading}\n(?:(?!##).)*?```\n(.*?)```", README, re.DOTALL)
        assert block, heading
        text = block.group(1)
    else:
        text = "\n".join(re.findall(r"```\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL))
    lines = text.replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python ") and " ... " not in line]


def run_as_written(words: list[str], folder: Path, *more: str) -> str:
    """A command of a page, as it is typed in a folder."""
    words = [str(ROOT / word) if word.endswith(".py") else word for word in words[1:]]
    done = run_forked(*words, *more, folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def metrics_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text of one's own, and what README's first commands make of it."""
    folder = tmp_path_factory.mktemp("own")
    write_text(folder / "my.jsonl")
    three = commands("README.md", "Train on your own text")
    assert len(three) == 3
    for words in three[:2]:
        run_as_written(words, folder)
    run_as_written(three[2], folder, "--train-tokens", "100000")  # of 200,000
    return folder


@pytest.fixture(scope="module")
def encoders(own: Path) -> Path:
    """The same folder behind README's next commands, as a reader types one after the other."""
    three = commands("README.md", "Encoders")
    assert len(three) == 3
    for words in three[:2]:
        run_as_written(words, own)
    run_as_written(three[2], own, "--train-samples", "1600")  # of 4,000
    return own


def test_three_commands_train_on_a_users_own_text(own: Path) -> None:
    records = metrics_of(own / "runs" / "my")
    losses = [record["lm_loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0] - 2
    assert (own / "my_text_difficulty" / "manifest.json").is_file()
    assert {record["kind"] for record in records} == {"train", "valid", "test"}


def test_three_commands_train_an_encoder(encoders: Path) -> None:
    records = metrics_of(encoders / "runs" / "bert")
    losses = [record["lm_loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < losses[0] - 1
    assert {"sop_loss", "lm_accuracy", "sop_accuracy"} <= records[-1].keys()


def test_the_commands_of_the_page_of_encoders(encoders: Path) -> None:
    """Behind README's, in the same folder; the curriculum begins as the page says."""
    four = [words for words in commands("bert.md") if "quickstart" not in " ".join(words)]
    assert [words[1] for words in four] == [
        "tools/train_tokenizer.py",
        "tools/preprocess_data.py",
        "tools/analyze_data.py",
        "pretrain_bert.py",
    ]
    for words in four[:3]:
        run_as_written(words, encoders)
    run_as_written(four[3], encoders, "--train-samples", "160")  # and not all 1,000 steps
    first = metrics_of(encoders / "runs" / "bert_efficient")[0]
    assert first["caps"]["vocab_rarity"] == int(5 + 95 * (1 / 500) ** 0.5) == 9


def test_the_commands_of_the_page_of_finetuning(encoders: Path) -> None:
    for name in ("RTE", "CoLA"):
        (encoders / "glue" / name).mkdir(parents=True)
        write_glue(encoders / "glue" / name, name)
    for name in "abc":
        rows = zip(texts_of(["0", "1"] * 8, ord(name)), ["0", "1"] * 8)
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (encoders / f"{name}.jsonl").write_text("\n".join(lines))
    every = [words for words in commands("finetuning.md") if words[1] == "finetune.py"]
    *every, language = every
    assert len(every) == 4 and language[2:6] == ["--task", "lm", "--load", "gpt2"]
    for words in every:
        sweeps = ("--sweep-lr", "2e-5", "--seeds", "1-2") if "--seeds" in words else ()
        run_as_written(words, encoders, *sweeps)
    for name in ("rte", "own", "rte_again"):
        assert (encoders / "runs" / name / "results.json").is_file()
    assert (encoders / "runs" / "cola" / "lr2e-05_seed1" / "output.txt").is_file()
    results = [
        json.loads((encoders / "runs" / name / "results.json").read_text()) for name in ("rte", "rte_again")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    (encoders / "gpt2").symlink_to("runs/my")
    for part in ("train", "valid", "test"):
        (encoders / f"ptb.{part}.txt").write_text("\n".join(texts_of(["0", "1"] * 200, 7)))
    run_as_written(language, encoders)
    assert json.loads((encoders / "runs" / "ptb" / "results.json").read_text())["metrics"]


def test_the_page_of_flags_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == flags_page(), "run python scripts/make_flags_page.py"


def test_every_tool_has_help_with_examples() -> None:
    entries = [
        ROOT / name for name in ("pretrain_gpt.py", "pretrain_bert.py", "pretrain_vit.py", "finetune.py")
    ]
    for tool in [*sorted(ROOT.glob("tools/*.py")), *entries]:
        text = run_command(str(tool), "--help").stdout
        assert "examples:" in text, tool.name
        assert max(map(len, text.splitlines())) <= 120, tool.name
        assert f"python {tool.relative_to(ROOT)}" in text, tool.name
