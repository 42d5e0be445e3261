"""The page of a report: whole, escaped, self-contained, and the same numbers as the records."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.report.page import Section, charts, page, paragraphs, table
from tests.support.made_up_runs import write_run
from tools import report

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects text, cells of every table row and sources; fails where tags do not balance."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.sources: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if any(tag in self.open for tag in ("td", "th")):
            self.rows[-1][-1] += ("|" if "small" in self.open else "") + data

    def row(self, heading: str) -> list[str]:
        return next(row[1:] for row in self.rows if row[0] == heading)


@pytest.fixture
def analysis(tmp_path):
    """An analysis of 1,000 samples whose difficulty is their number."""
    folder = tmp_path / "analysis"
    folder.mkdir()
    np.save(folder / "vocab_rarity.npy", np.arange(1000))
    about = {
        "version": 1,
        "about": "nats",
        "mean": 499.5,
        "percentiles": {share: min(share * 10, 999) for share in range(0, 101, 5)},
    }
    (folder / "manifest.json").write_text(
        json.dumps({"format": 1, "samples": 1000, "metrics": {"vocab_rarity": about}})
    )
    return folder


def test_a_whole_report(tmp_path, two_runs, analysis, capsys):
    (tmp_path / "text.txt").write_text("<b>tags</b> & so on")
    result = {
        "corpus": "books",
        "split": "test",
        "tokens": 10,
        "loss": 4.25,
        "perplexity": 70.105,
        "bits_per_byte": 1.5,
    }
    (tmp_path / "evaluation.json").write_text(json.dumps({"iteration": 40, "results": [result]}))
    output = tmp_path / "out" / "report.html"
    report.main(
        [
            *(
                "--runs",
                f"plain={two_runs[0]}",
                f"dropped={two_runs[1]}",
                "--output",
                str(output),
                "--title",
                "One & <two>",
            ),
            *("--difficulty-path", str(analysis), "--sample", str(tmp_path / "text.txt")),
            *("--evaluation", f"dropped={tmp_path / 'evaluation.json'}"),
        ]
    )
    assert str(output) in capsys.readouterr().out
    html = output.read_text()
    read = Reader(html)
    assert "http://" not in html and "https://" not in html
    assert "<b>tags</b> & so on" in "".join(read.text) and "<b>" not in html
    assert "One & <two>" in read.text
    assert read.row("effective tokens") == ["8,000", "7,200"]
    assert read.row("layer tokens") == ["32.0 K|32,000", "28.8 K|28,800"]
    assert read.row("layer tokens saved") == ["0.0%", "10.0%"]
    assert read.row("books test: loss, nats a token") == ["–", "4.2500"]
    assert read.row("step of the checkpoint") == ["–", "40"]
    assert read.row("--random-ltd") == ["false", "true"]
    assert read.row("analysis: vocab_rarity") == ["0", "50", "250", "500", "750", "950", "999"]
    assert "was 0.1400 nats below that of plain" in html
    files = {path.name: path.read_bytes() for path in (tmp_path / "out" / "report_files").iterdir()}
    expected = {
        "loss_iteration",
        "loss_raw_tokens",
        "loss_consumed_tokens",
        "loss_seconds",
        "loss_difference",
        "lengths",
        "learning_rate",
    }
    expected |= {
        "cap_vocab_rarity",
        "layer_tokens",
        "saved",
        "step_time",
        "gradient_norm",
        "difficulty_1_vocab_rarity",
    }
    assert files.keys() == {f"{name}.png" for name in expected}
    assert all(data.startswith(PNG) and len(data) > 10_000 for data in files.values())
    assert len(read.sources) == len(files) and all(
        source.startswith("data:image/png;base64,") for source in read.sources
    )
    assert "Not in this report" not in html


def test_what_is_missing_is_said(tmp_path):
    records = [
        {"kind": "train", "iteration": step, "consumed_tokens": step, "lm_loss": 3.0} for step in (1, 2, 3)
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records) + '{"kind"'
    )
    report.main(
        [
            "--runs",
            f"bare={tmp_path}",
            "--output",
            str(tmp_path / "page.html"),
            "--figures",
            str(tmp_path / "figures"),
        ]
    )
    text = "".join(Reader((tmp_path / "page.html").read_text()).text)
    for sentence in (
        "The last record of bare is incomplete and left out",
        "bare holds no validation loss.",
        "bare left no run.json",
        "The loss against training time needs records of it.",
        "Generated text: no file was given with --sample.",
        "no comparison is made",
    ):
        assert sentence in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "loss_iteration.png",
        "loss_consumed_tokens.png",
    }


def test_the_same_input_gives_the_same_page(tmp_path, two_runs):
    for name in ("a", "b"):
        report.main(["--runs", f"_$\\odd$={two_runs[0]}", "--output", str(tmp_path / name / "page.html")])
    assert (tmp_path / "a" / "page.html").read_bytes() == (tmp_path / "b" / "page.html").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runs", "nothing"], "write NAME=FOLDER"),
        (["--runs"], "--runs needs a value"),
        (["--runs", "a={run}", "a={run}"], "the name a is given twice"),
        (["--runs", "a={run}/none"], "holds no metrics.jsonl"),
        (["--runs", "a={run}", "--evaluation", "b=x.json"], "no run has that name; the runs are a"),
        (["--runs", "a={run}", "--difficulty-path", "{run}"], "holds no analysis"),
    ],
)
def test_bad_input_is_told(tmp_path, words, message):
    folder = write_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        report.main([*(word.format(run=folder) for word in words), "--output", str(tmp_path / "page.html")])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_elements_escape_their_text():
    body = (
        paragraphs(["a < b"], "note")
        + table("<x>", ["<run>"], [["row & more", "1\n<2>"]])
        + charts([('"quoted" <alt>', b"image")])
    )
    html = page("T & T", "", [Section("H <1>", body), Section("left out", "")])
    read = Reader(html)
    for text in ("a < b", "<x>", "<run>", "row & more", "<2>", "H <1>"):
        assert text in read.text
    assert "left out" not in html and "&quot;quoted&quot; &lt;alt&gt;" in html
    assert read.sources == ["data:image/png;base64,aW1hZ2U="]
