"""What tools/evaluate.py shows of its results: tables, and notes behind them."""

import sys
from collections import Counter
from typing import Any

from rich.table import Table

from megatron.base.terminal import show
from megatron.evaluation.paper_tasks import NOTE, TASKS, Mean
from megatron.model.vit import TOP5

BYTES_FROM = {
    "proportion": "the tokenizer does not give back the text that it was given: the whole original has "
    "{factor:.4f} bytes for each that is decoded",
    "decoding": "the bytes of bits per byte are those of the decoded text; nothing says how many the "
    "original had, or the dataset is too large to compare",
}


def unused_tokens(results: list[dict[str, Any]]) -> str:
    """What lies behind the last windows, in words."""
    rest = Counter[str]()
    for result in results:
        rest[result["split"]] += result["unused_tokens"]
    parts = " and ".join(f"{tokens:,} tokens of {split}" for split, tokens in rest.items())
    return f"behind the last windows {parts} are not scored"


def show_windows(results: list[dict[str, Any]], title: str) -> None:
    """Of a GPT, a row a corpus and split; errors are over windows."""
    table = Table(title=title)
    for heading in ("corpus", "split", "windows", "tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(heading, justify="left" if heading in ("corpus", "split") else "right")
    for result in results:
        numbers = [
            with_error(result, "loss", ".4f"),
            with_error(result, "perplexity", ".2f"),
            with_error(result, "bits_per_byte", ".4f"),
        ]
        counts = [f"{result[name]:,}" for name in ("windows", "tokens")]
        table.add_row(result["corpus"], result["split"], *counts, *numbers)
    show(table)


def with_error(result: dict[str, Any], name: str, form: str, scale: float = 1.0) -> str:
    """A value ± its standard error, where there are such."""
    value, error = result.get(name), result.get(f"{name}_error")
    if value is None:
        return "-"
    return format(value * scale, form) + ("" if error is None else f" ± {error * scale:{form}}")


def show_domains(found: list[dict[str, Any]], title: str) -> None:
    """Errors are over documents."""
    table = Table(title=title)
    for heading in ("domain", "documents", "tokens", "loss", "perplexity", "bits per byte"):
        table.add_column(heading, justify="left" if heading == "domain" else "right")
    for one in found:
        counts = [f"{one[name]:,}" for name in ("documents", "tokens")]
        forms = {"loss": ".4f", "perplexity": ".2f", "bits_per_byte": ".4f"}
        table.add_row(one["domain"], *counts, *(with_error(one, name, form) for name, form in forms.items()))
    show(table)


FORMS: dict[str, tuple[str, str, float]] = {
    "accuracy": ("accuracy, %", ".2f", 100),
    "acc": ("acc, %", ".2f", 100),
    "acc_norm": ("acc_norm (per byte), %", ".2f", 100),
    "loss": ("loss of the word, nats", ".4f", 1),
    "perplexity": ("perplexity of the word", ".2f", 1),
    "bits_per_byte": ("bits per byte", ".4f", 1),
}
"""How measures are called and shown, and their unit."""


def show_questions(found: dict[str, dict[str, Any]], title: str) -> None:
    """A row a measure."""
    table = Table(title=title)
    for heading in ("questions", "items", "measure", "value ± standard error"):
        table.add_column(heading, justify="right" if heading == "items" else "left")
    for kind, one in found.items():
        for name, (words, form, scale) in FORMS.items():
            if name in one:
                table.add_row(kind, f"{one['items']:,}", words, with_error(one, name, form, scale))
    show(table)


def show_differences(found: dict[str, dict[str, Any]], title: str) -> None:
    """A row a measure; the last column is in standard errors."""
    table = Table(title=title)
    for heading in ("of", "measure", "difference ± standard error", "in errors"):
        table.add_column(heading, justify="left")
    for kind, one in found.items():
        for name, (words, form, scale) in FORMS.items():
            if one.get(name) is not None:
                error = one[f"{name}_error"]
                far = f"{one[name] / error:+.1f}" if error else "-"
                table.add_row(kind, words, with_error(one, name, "+" + form, scale).replace("± +", "± "), far)
    show(table)


def show_harness(found: dict[str, dict[str, Any]], title: str) -> None:
    """What the harness has counted, a row a number of a task or of a group's tasks."""
    table = Table(title=title)
    for heading in ("task", "shots", "samples", "metric", "value", "standard error"):
        table.add_column(heading, justify="left" if heading in ("task", "metric") else "right")
    for entry in found.values():
        for task, numbers in entry["results"].items():
            shots = str(entry["n-shot"].get(task, "-"))
            samples = entry["n-samples"].get(task, {}).get("effective")
            shown = f"{samples:,}" if samples else "-"
            for metric, value in numbers.items():
                error = numbers.get(metric.replace(",", "_stderr,"))
                if "," in metric and "_stderr," not in metric:
                    words = "-" if error is None else f"{error:.4f}"
                    name = metric.removesuffix(",none").replace(",", ", ")
                    table.add_row(task, shots, shown, name, f"{value:.4f}", words)
    show(table)


def mean_in_words(mean: Mean) -> str:
    """The paper's mean over its tasks."""
    error = "" if mean.error is None else f" ± {mean.error:.2f}"
    rest = (
        f" over {len(TASKS) - len(mean.missing)}, without {', '.join(mean.missing)}" if mean.missing else ""
    )
    return f"mean of the paper's {len(TASKS)} tasks{rest}: {mean.value:.2f}{error} %\nnote: {NOTE}"


def show_samples(results: list[dict[str, Any]], title: str) -> None:
    """Of an encoder: every loss, and the share of masked tokens and of pairs that were told right; of a
    vision transformer the shares of images."""
    table = Table(title=title)
    losses = [result.get("losses") or {} for result in results]
    told = "told" if TOP5 in losses[0] else "masked"
    for heading in ("corpus", "split", "samples", told, *losses[0]):
        table.add_column(heading, justify="left" if heading in ("corpus", "split") else "right")
    for result, means in zip(results, losses):
        numbers = ["-" if mean is None else f"{mean:.4f}" for mean in means.values()]
        counts = [f"{result[name]:,}" for name in ("windows", "tokens")]
        table.add_row(result["corpus"], result["split"], *counts, *numbers)
    show(table)


def explain_bytes(results: list[dict[str, Any]]) -> None:
    """Say where bytes are not those of the text itself."""
    for result in results:
        if result["bytes_from"] not in BYTES_FROM:
            continue
        line = BYTES_FROM[result["bytes_from"]].format(factor=result["bytes_factor"])
        if result["bits_per_byte"] is None:
            line += "; that is too far from 1 for bits per byte"
        elif result["bytes_from"] == "proportion":
            line += "; the bytes of the scored part are taken in that proportion"
        print(f"note: {result['corpus']}: {line}", file=sys.stderr)
