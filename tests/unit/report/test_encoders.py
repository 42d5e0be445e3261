"""What a report tells of encoders beside other runs."""

import json
from pathlib import Path

import pytest

from megatron.report.encoders import encoder_charts, encoder_facts, is_encoder
from megatron.report.evaluations import evaluation_rows
from megatron.report.records import RecordedRun, read_run
from tests.support.made_up_runs import write_run
from tools import report


def write_encoder(folder: Path) -> Path:
    """A made-up run whose loss over pairs falls from 0.7, and whose validations and test tell more and more
    right."""
    path = write_run(folder, windows=8) / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        step = record["iteration"]
        record["sop_loss"] = 0.7 - 0.001 * step
        if record["kind"] != "train":
            record |= {"lm_accuracy": 0.01 * step, "sop_accuracy": 0.5 + 0.01 * step}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[RecordedRun]:
    """An encoder and a GPT."""
    folders = {"bert": write_encoder(tmp_path / "bert"), "gpt": write_run(tmp_path / "gpt", windows=8)}
    return [read_run(name, folder) for name, folder in folders.items()]


def test_losses_and_accuracies_of_an_encoder(runs: list[RecordedRun]) -> None:
    assert list(map(is_encoder, runs)) == [True, False]
    assert encoder_facts(runs[0]) == {
        "training loss over pairs": "0.6600",
        "last validation: loss over pairs": "0.6600",
        "last validation: masked tokens told right": "40.0%",
        "last validation: pairs told right": "90.0%",
        "test: loss over pairs": "0.6600",
        "test: masked tokens told right": "40.0%",
        "test: pairs told right": "90.0%",
    }
    assert set(encoder_facts(runs[1]).values()) == {"–"}
    names = ["sop_loss", "lm_accuracy", "sop_accuracy"]
    assert [chart.name for chart in encoder_charts(runs)] == names
    line, _ = encoder_charts(runs)[1].figure.axes[0].lines
    assert line.get_ydata() == pytest.approx([10, 20, 30, 40])
    assert not encoder_charts(runs[1:])


def test_results_of_an_evaluation() -> None:
    """Every measure has a row; a GPT has no others than before."""
    losses = {"lm loss": 2.0, "sop loss": 0.5, "lm accuracy": 0.25}
    encoder = {"corpus": "a", "split": "test", "windows": 9, "loss": 2.0, "losses": losses}
    gpt = {"corpus": "a", "split": "test", "windows": 9, "loss": 3.0, "perplexity": 20.1}
    found = {"bert": {"iteration": 4, "results": [encoder]}, "gpt": {"iteration": 4, "results": [gpt]}}
    rows, warnings = evaluation_rows(found, ["bert", "gpt"])
    assert rows == [
        ["step of the checkpoint", "4", "4"],
        ["a test: windows", "9", "9"],
        ["a test: loss, nats a token", "2.0000", "3.0000"],
        ["a test: perplexity", "–", "20.10"],
        ["a test: sop loss", "0.5000", "–"],
        ["a test: lm accuracy", "0.2500", "–"],
    ]
    assert not warnings


def test_the_page_has_a_section_of_them(tmp_path: Path, runs: list[RecordedRun]) -> None:
    for names, there in ((["bert", "gpt"], True), (["gpt"], False)):
        output = tmp_path / "report.html"
        words = [f"{one.name}={one.folder}" for one in runs if one.name in names]
        report.main(["--runs", *words, "--output", str(output)])
        assert ("Masked tokens and pairs" in output.read_text()) == there
        assert (tmp_path / "report_files" / "lm_accuracy.png").exists()
