"""A report of training runs as one HTML page with its figures: tables, losses, schedules, cost, and what
differed."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_file
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.curriculum.analysis_folder import load_column, read_manifest
from megatron.report.charts import X_AXES, Chart, cost_charts, loss_charts, schedule_charts
from megatron.report.comparison import at_equal_tokens, reading, validated
from megatron.report.conditions import MISSING, command, conditions, differences
from megatron.report.encoders import encoder_charts, encoder_facts, is_encoder
from megatron.report.evaluations import evaluation_rows, number_in
from megatron.report.experts import expert_charts, expert_facts, expert_notes, has_experts, load_charts
from megatron.report.figures import level, png
from megatron.report.histogram import difficulty_chart
from megatron.report.images import image_charts, image_facts
from megatron.report.page import Section, box, charts, page, paragraphs, sample, table
from megatron.report.records import RecordedRun, read_evaluation, read_run
from megatron.report.summary import facts, statement

EXAMPLES = """\
  compare two runs
    python tools/report.py --runs baseline=runs/baseline curriculum=runs/curriculum --output report.html
  with difficulty, evaluation and generated text
    python tools/report.py --runs baseline=runs/baseline curriculum=runs/curriculum --output report.html \\
      --difficulty-path analysis --sample text.txt \\
      --evaluation baseline=baseline.json curriculum=curriculum.json"""

TOKENS = (
    "Effective tokens are layer tokens divided by layers: the computed budget, which stops a run and "
    "decays its learning rate. Raw tokens entered the first layer. Drawn tokens were taken from the "
    "corpus, also where a sample was then cut. Layer tokens are summed over the layers; the saved share is "
    "against every raw token in every layer. Training time is the sum of the step times."
)
LOSSES = (
    "Validation is on full-length sequences without dropping. Training losses are of the samples and "
    "lengths that each run drew, with the tokens that it dropped, so they compare runs only where those "
    "are the same. Between validations, losses are read on straight lines. The steep start may lie above "
    "the frame."
)
SCORED = (
    "Validation and test losses of a run are of the first --eval-iters global batches of windows, so of as "
    "many windows as the table says; those of an encoder are its samples, and losses are of masked tokens; "
    "those of a vision transformer are images. "
    "tools/evaluate.py scores all windows unless --max-windows is given, so its losses differ."
)
ABSENT = {
    "Evaluation": "no results were given with --evaluation",
    "Loss": "no training record has a loss",
    "Schedules": "no record has lengths or a learning rate",
    "Cost and stability": "no record has layer tokens, step times or gradient norms",
    "Difficulty of the samples": "no analysis was given with --difficulty-path",
    "Generated text": "no file was given with --sample",
    "How they were made": "no run.json tells it",
    "What differed": "no two run.json differ",
}
QUANTILES = {
    "0": "smallest",
    "5": "5%",
    "25": "25%",
    "50": "median",
    "75": "75%",
    "95": "95%",
    "100": "largest",
}


@dataclass(frozen=True)
class Options:
    runs: tuple[str, ...] = flag(
        help="runs by name; the others are compared with the first", repeat=True, metavar="NAME=FOLDER ..."
    )
    output: str = flag(help="the page to write", metavar="FILE.html")
    figures: str | None = flag(None, "folder for the figures as PNG; beside the page", metavar="FOLDER")
    title: str = flag("Training report", "title of the page")
    difficulty_path: tuple[str, ...] = flag(
        (), "folders of analyses by tools/analyze_data.py", repeat=True, metavar="FOLDER ..."
    )
    evaluation: tuple[str, ...] = flag(
        (), "results of tools/evaluate.py for runs", repeat=True, metavar="NAME=FILE.json ..."
    )
    sample: tuple[str, ...] = flag((), "files of generated text", repeat=True, metavar="FILE ...")


def main(argv: list[str] | None = None) -> None:
    """Read the runs, draw the figures, write the page."""
    options: Options = parse(
        Options, sys.argv[1:] if argv is None else argv, description=__doc__ or "", examples=EXAMPLES
    )
    output = writable_file(options.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: the page is HTML, its figures are PNG beside it; name a .html")
    runs = [read_run(name, Path(folder)) for name, folder in _named("--runs", options.runs).items()]
    pictures: dict[str, bytes] = {}
    html = _page(options, runs, pictures)
    figures = Path(options.figures) if options.figures else output.with_name(f"{output.stem}_files")
    for name, data in pictures.items():
        with whole_file(figures / name) as file:
            file.write(data)
    with whole_file(output, "w") as file:
        file.write(html)
    print(f"wrote {output}, and its figures to {figures}")


def _named(flag_name: str, pairs: Iterable[str]) -> dict[str, str]:
    """Paths by name from texts NAME=PATH."""
    named: dict[str, str] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name or not path:
            raise UserError(
                f"{flag_name} {pair}: write NAME={'FILE' if flag_name == '--evaluation' else 'FOLDER'}"
            )
        if name in named:
            raise UserError(f"{flag_name} {pair}: the name {name} is given twice; give each its own")
        named[name] = path
    return named


def _page(options: Options, runs: list[RecordedRun], pictures: dict[str, bytes]) -> str:
    """The page; its figures are added to `pictures`, PNG by file name."""
    losses, schedules, cost = loss_charts(runs), schedule_charts(runs), cost_charts(runs)
    difficulty, quantiles = _difficulty(options.difficulty_path)
    experts, encoders = expert_charts(runs), encoder_charts(runs)
    images = image_charts(runs)
    level(chart.figure for chart in (*losses, *schedules, *cost, *difficulty, *experts, *encoders, *images))
    opening = paragraphs([statement(runs)]) + "\n" + box(reading(runs))
    sections = [
        Section("Runs", _runs(runs)),
        Section("How they were made", _conditions(runs)),
        Section("Evaluation", _evaluation(options, runs)),
        Section("Loss", _drawn(losses, pictures) + paragraphs([LOSSES], "note") if losses else ""),
        Section("Schedules", _drawn(schedules, pictures)),
        Section("Cost and stability", _drawn(cost, pictures)),
        *_experts(runs, experts, pictures),
        *_encoders(runs, encoders, pictures),
        *_images(runs, images, pictures),
        Section("Difficulty of the samples", _drawn(difficulty, pictures) + quantiles),
        Section("Generated text", "\n".join(map(_sample, map(Path, options.sample)))),
        Section("What differed", _differences(runs)),
    ]
    missing = [f"{section.heading}: {ABSENT[section.heading]}." for section in sections if not section.body]
    missing = [line for line in missing if len(runs) > 1 or not line.startswith("What differed")]
    return page(
        options.title,
        opening,
        [*sections, Section("Not in this report", paragraphs([*_gaps(runs, losses), *missing]))],
    )


def _runs(runs: list[RecordedRun]) -> str:
    sources = [
        f"{one.name}: {one.folder}, {len(one.train['iteration']):,} training and "
        f"{len(one.valid['iteration']):,} validation records."
        for one in runs
    ]
    notes = [note for one in runs for note in one.notes]
    words = paragraphs([TOKENS, SCORED, *sources, *notes], "note")
    return "\n".join((_facts_table(runs, facts, at_equal_tokens(runs)), words))


def _facts_table(
    runs: list[RecordedRun], told: Callable[[RecordedRun], dict[str, str]], more: Iterable[list[str]] = ()
) -> str:
    """What is told of every run, a column a run, without what is told of none; "" where nothing is."""
    columns = [told(one) for one in runs]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    rows = [row for row in [*rows, *more] if set(row[1:]) != {MISSING}]
    return table("", [one.name for one in runs], rows) if rows else ""


def _experts(runs: list[RecordedRun], losses: list[Chart], pictures: dict[str, bytes]) -> list[Section]:
    """A section where any run is of a mixture."""
    if not any(map(has_experts, runs)):
        return []
    drawn = [_drawn(each, pictures) for each in (losses, load_charts(runs))]
    parts = [_facts_table(runs, expert_facts), *drawn]
    return [Section("Experts", "\n".join([*parts, paragraphs(expert_notes(runs), "note")]))]


def _encoders(runs: list[RecordedRun], drawn: list[Chart], pictures: dict[str, bytes]) -> list[Section]:
    """A section where any run is of an encoder."""
    if not any(map(is_encoder, runs)):
        return []
    parts = [_facts_table(runs, encoder_facts), _drawn(drawn, pictures)]
    return [Section("Masked tokens and pairs", "\n".join(parts))]


def _images(runs: list[RecordedRun], drawn: list[Chart], pictures: dict[str, bytes]) -> list[Section]:
    """A section where any run is of images."""
    if not any(run.of_images for run in runs):
        return []
    parts = [_facts_table(runs, image_facts), _drawn(drawn, pictures)]
    return [Section("Classes of images", "\n".join(parts))]


def _conditions(runs: list[RecordedRun]) -> str:
    """Model, machine, versions and commands, as far as the runs tell them."""
    rows = _facts_table(runs, conditions)
    commands = [sample(f"command of {one.name}", words) for one in runs if (words := command(one))]
    return "\n".join([rows, *commands]) if rows else ""


def _evaluation(options: Options, runs: list[RecordedRun]) -> str:
    """Losses of the evaluated corpora, a column a run."""
    files, names = _named("--evaluation", options.evaluation), [one.name for one in runs]
    if strangers := files.keys() - set(names):
        raise UserError(
            f"--evaluation {', '.join(sorted(strangers))}: no run has that name; the runs are "
            f"{', '.join(names)}"
        )
    found = {name: read_evaluation(Path(path)) for name, path in files.items()}
    rows, warnings = evaluation_rows(found, names)
    return "\n".join((table("", names, rows), paragraphs(warnings))) if found else ""


def _difficulty(folders: Iterable[str]) -> tuple[list[Chart], str]:
    """A histogram of every metric of every analysis, and a table of their quantiles."""
    drawn, rows = [], []
    for number, folder in enumerate(map(Path, folders), 1):
        manifest = read_manifest(folder)
        corpus = _corpus(manifest) or folder.name
        for metric, entry in manifest["metrics"].items():
            values = load_column(folder, metric, manifest["samples"])
            name, meaning = f"difficulty_{number}_{metric}", str(entry.get("about", ""))
            drawn.append(difficulty_chart(name, metric, meaning, corpus, values))
            quantiles = entry.get("percentiles", {})
            rows.append(
                [f"{corpus}: {metric}", *(number_in(quantiles, share, ",.0f") for share in QUANTILES)]
            )
    return drawn, table("metric", QUANTILES.values(), rows, coloured=False) if drawn else ""


def _corpus(manifest: dict[str, Any]) -> str:
    """What an analysis is of, in words; "" where it does not say."""
    data, split = manifest.get("data"), manifest.get("split")
    return f"{Path(str(data)).name} ({split})" if data and split else Path(str(data or "")).name


def _drawn(figures: list[Chart], pictures: dict[str, bytes]) -> str:
    """The figures in HTML; also added to `pictures`."""
    images = [(chart.words, png(chart.figure)) for chart in figures]
    pictures |= {
        re.sub(r"[^A-Za-z0-9_.-]", "_", chart.name) + ".png": data
        for chart, (_, data) in zip(figures, images)
    }
    return charts(images)


def _sample(path: Path) -> str:
    return sample(path.name, path.read_text(encoding="utf-8", errors="replace"))


def _differences(runs: list[RecordedRun]) -> str:
    rows = differences(runs)
    return table("setting", [one.name for one in runs], rows) if rows else ""


def _gaps(runs: list[RecordedRun], losses: list[Chart]) -> list[str]:
    """What could not be shown because no record holds it."""
    gaps = [f"{one.name} holds no validation loss." for one in runs if not validated(one)]
    gaps += [
        f"{one.name} left no run.json, so its configuration is not known."
        for one in runs
        if not one.description
    ]
    shown = {chart.name for chart in losses}
    return gaps + [
        f"The loss against {words} needs records of it."
        for x, words in X_AXES.items()
        if f"loss_{x}" not in shown
    ]


if __name__ == "__main__":
    run_command(main)
