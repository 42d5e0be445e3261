"""The page of a report: whole, escaped, self-contained, and the same numbers as the records."""

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.report.charts import cost_charts, loss_charts, schedule_charts
from megatron.report.figures import fitting, level, width_of
from megatron.report.histogram import difficulty_chart
from megatron.report.page import Section, charts, page, paragraphs, table
from megatron.report.records import read_run
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
        json.dumps(
            {
                "format": 1,
                "data": "data/corpus_text_document",
                "split": "train",
                "samples": 1000,
                "metrics": {"vocab_rarity": about},
            }
        )
    )
    return folder


def test_a_whole_report(tmp_path, two_runs, analysis, capsys):
    (tmp_path / "text.txt").write_text("<b>tags</b> & so on")
    result = {
        "corpus": "books",
        "split": "test",
        "windows": 5,
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
    assert read.row("books test: windows") == ["–", "5"]
    assert read.row("books test: loss, nats a token") == ["–", "4.2500"]
    assert read.row("step of the checkpoint") == ["–", "40"]
    assert read.row("--random-ltd") == ["false", "true"]
    assert read.row("corpus_text_document (train): vocab_rarity") == [
        "0",
        "50",
        "250",
        "500",
        "750",
        "950",
        "999",
    ]
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


def test_evaluations_of_other_numbers_of_windows_are_told(tmp_path, two_runs):
    """Results of before the number was written are shown without it."""
    names = ("plain", "dropped")

    def text(*counts):
        for name, count in zip(names, counts):
            result = {"corpus": "books", "split": "test", "loss": 4.25} | (
                {"windows": count} if count else {}
            )
            (tmp_path / f"{name}.json").write_text(json.dumps({"iteration": 40, "results": [result]}))
        runs = [f"{name}={folder}" for name, folder in zip(names, two_runs)]
        files = [f"{name}={tmp_path / name}.json" for name in names]
        page = tmp_path / "page.html"
        report.main(["--runs", *runs, "--evaluation", *files, "--output", str(page)])
        return "".join(Reader(page.read_text()).text)

    warning = (
        "Warning: the books test losses are of different numbers of windows (plain on 5, dropped on 1,000)"
    )
    assert warning in text(5, 1000)
    assert "Warning" not in text(5, 5)
    old = text(None, 5)
    assert "Warning" not in old and "books test: windows" in old
    assert "books test: windows" not in text(None, None)


def test_domains_questions_and_tasks_are_shown(tmp_path, two_runs):
    """Tasks of other numbers of examples have rows of their own."""
    names = ("plain", "dropped")
    for name, shots in zip(names, (0, 5)):
        task = {"results": {"piqa": {"acc,none": 0.625, "acc_stderr,none": 0.1}}, "n-shot": {"piqa": shots}}
        told = {"iteration": 40, "results": [], "lm_eval": {"piqa": task | {"settings": {"limit": None}}}}
        told["lm_eval"]["sciq"] = {"results": {"sciq": {"acc,none": 0.5}}, "settings": {"limit": 7 + shots}}
        told["lm_eval"]["arc"] = {"results": {"arc": {"acc,none": 0.5}}, "settings": shots or None}
        told |= {"questions": {"cloze": {"accuracy": 0.25, "items": 8}}}
        told |= {"domains": [{"domain": "books", "loss": 4.5, "bits_per_byte": 1.75}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    page = tmp_path / "page.html"
    runs = [f"{name}={folder}" for name, folder in zip(names, two_runs)]
    files = [f"{name}={tmp_path / name}.json" for name in names]
    report.main(["--runs", *runs, "--evaluation", *files, "--output", str(page)])
    read = Reader(page.read_text())
    assert read.row("piqa, 0-shot: acc")[-2:] == ["0.6250", "–"]
    assert read.row("piqa, 5-shot: acc")[-2:] == ["–", "0.6250"]
    assert read.row("sciq, limit 7: acc")[-2:] == ["0.5000", "–"]
    assert read.row("arc: acc")[-2:] == ["0.5000", "0.5000"]
    assert read.row("cloze: accuracy")[-2:] == ["0.2500", "0.2500"]
    assert read.row("domain books: bits per byte")[-2:] == ["1.7500", "1.7500"]


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


def test_nothing_is_cut_off_or_drawn_over_with_many_runs_and_long_names(tmp_path):
    """All figures have one size and one place of the plot, and everything lies within them, parted."""
    names = [
        "a",
        "the same long name, up to its very end, which alone " * 2 + "is A",
        "W" * 80,
        "µ$_x^2$",
        "e",
    ]
    runs = [
        read_run(name, write_run(tmp_path / str(i), drop=10 * i, loss=5 + i)) for i, name in enumerate(names)
    ]
    values = np.repeat([3, 4, 500], [900, 50, 50])
    drawn = [*loss_charts(runs), *schedule_charts(runs), *cost_charts(runs)]
    drawn.append(difficulty_chart("d", "m" * 90, "meaning $ " * 30, "corpus " * 30, values))
    level(chart.figure for chart in drawn)
    assert len(drawn) == 13
    assert len({(*chart.figure.get_size_inches(), chart.figure.axes[0].bbox.bounds) for chart in drawn}) == 1
    for figure in (chart.figure for chart in drawn):
        figure.draw_without_rendering()
        axes = figure.axes[0]
        tight = axes.get_tightbbox()
        assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= figure.bbox.x1 and tight.y1 <= figure.bbox.y1
        legend = axes.get_legend()
        texts = [axes._left_title, *legend.get_texts(), *axes.texts, axes.xaxis.label, axes.yaxis.label]
        boxes = [text.get_window_extent() for text in texts]
        assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        assert legend.get_window_extent().y0 >= axes.bbox.y1 - 1
        assert len({text.get_text() for text in legend.get_texts()}) == len(legend.get_texts())


def test_charts_over_the_same_have_the_same_axis(tmp_path):
    runs = [read_run(str(steps), write_run(tmp_path / str(steps), steps=steps)) for steps in (40, 20)]
    limits = {}
    for chart in (*loss_charts(runs), *schedule_charts(runs), *cost_charts(runs)):
        axes = chart.figure.axes[0]
        limits.setdefault(axes.get_xlabel(), set()).add(axes.get_xlim())
    assert limits["step"] == {(0, 40.4)} and limits["effective tokens"] == {(0, 8080.0)}
    assert len({chart.figure.axes[0].get_ylim() for chart in loss_charts(runs)[:4]}) == 1


def test_long_texts_lose_their_middle():
    assert fitting("short", 100) == "short"
    short = fitting("the first words and the last", 60)
    assert re.fullmatch("the f[^…]*…[^…]*ast", short) and width_of(short) <= 60


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


def test_a_page_is_html(tmp_path):
    with pytest.raises(UserError, match=r"page.pdf: the page is HTML"):
        report.main(["--runs", f"a={write_run(tmp_path / 'run')}", "--output", str(tmp_path / "page.pdf")])


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
