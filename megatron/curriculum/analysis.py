"""The difficulty of every sample of a corpus, in two passes over its tokens: frequencies, then all metrics
together.

Threads share each pass; the results are the same bytes for any number of them. A folder holds
`manifest.json` (which data, split and length this is), `token_frequency.npy`, and for every metric
`<metric>.npy`, one int64 a sample, and `<metric>.order.npy`, the sample ids from easy to hard.
"""

import json
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError, collect_problems
from megatron.base.files import checksum, whole_folder, writable_folder
from megatron.base.terminal import progress
from megatron.config.values import as_words
from megatron.curriculum.analysis_folder import FORMAT, fingerprints
from megatron.curriculum.difficulty import (
    METRICS,
    Metric,
    Statistics,
    count_tokens,
    sort_by_difficulty,
    token_costs,
)
from megatron.data.corpora import Corpus, identity
from megatron.schedule.data_efficiency import ALIASES, RESHAPE, TRUNCATE
from megatron.schedule.pacing import load_function

CHUNK_TOKENS = 1 << 22
TAKEN = {*ALIASES, TRUNCATE, RESHAPE, "token_frequency"}
"""Names that a metric of the user's own cannot have: --curriculum and the files of an analysis use them."""


def analyze(
    corpus: Corpus, split: str, metrics: dict[str, Metric], vocab_size: int, folder: Path, workers: int
) -> dict[str, Any]:
    """Write the analysis of a corpus to `folder`, whole or not at all, and return its manifest."""
    if problems := folder_problems(folder):
        raise UserError(*problems)
    with whole_folder(folder) as partial, ThreadPoolExecutor(workers) as pool:
        frequency = _frequencies(corpus, vocab_size, pool, workers)
        np.save(partial / "token_frequency.npy", frequency)
        _measure(corpus, metrics, token_costs(frequency), pool, partial)
        manifest = identity(corpus) | {
            "format": FORMAT,
            "data": corpus.name,
            "split": split,
            "vocab_size": vocab_size,
            "tokenizer": (corpus.sidecar or {}).get("tokenizer"),
            "metrics": {name: _summary(partial, name, metric) for name, metric in metrics.items()},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def folder_problems(folder: Path, flag: str = "--output-dir") -> list[str]:
    """Why no analysis can be written to `folder`, which `flag` names. Nothing is made on disk."""
    if folder.is_dir() and not _replaceable(folder):
        return [f"{flag} {folder} holds other files; choose an empty folder"]
    problems: list[str] = []
    with collect_problems(problems):
        if folder.is_file():
            raise UserError(f"{flag} {folder} is a file; choose a folder")
        writable_folder(next(parent for parent in folder.absolute().parents if parent.exists()))
    return problems


def _replaceable(folder: Path) -> bool:
    """Whether a folder holds nothing, or an older analysis and nothing else."""
    names = [path.name for path in folder.iterdir()]
    return not names or (
        "manifest.json" in names and all(name == "manifest.json" or name.endswith(".npy") for name in names)
    )


def choose_metrics(names: tuple[str, ...]) -> dict[str, Metric]:
    """The metrics of these names; a name `module:function` is a metric of the user's own."""
    names = tuple(dict.fromkeys(name if ":" in name else ALIASES.get(name, name) for name in names))
    if lengths := [name for name in names if name in (TRUNCATE, RESHAPE)]:
        raise UserError(
            f"--metrics {' '.join(lengths)}: a length of samples needs no analysis; give --curriculum alone "
            "in training, and leave it out"
        )
    if unknown := [name for name in names if name not in METRICS and ":" not in name]:
        several = as_words(unknown[0], METRICS.__contains__)
        raise UserError(
            f"--metrics {' '.join(unknown)}: unknown; known are {', '.join(METRICS)}, and module:function "
            "for a metric of your own" + (f"; {several}" if several else "")
        )
    titles = {name: name.rpartition(":")[2] for name in names}
    _require_names_of_their_own(titles)
    return {
        title: METRICS[name]
        if name in METRICS
        else Metric(load_function(name, "a metric"), 0, f"from {name}")
        for name, title in titles.items()
    }


def _require_names_of_their_own(titles: dict[str, str]) -> None:
    """UserError where metrics are to be called as others, or as something else is. `titles`: by name."""
    asked, called = " ".join(titles), list(titles.values())
    if taken := sorted(TAKEN.intersection(called)):
        raise UserError(f"--metrics {asked}: {', '.join(taken)} means another thing; rename the function")
    clashes = {
        title
        for name, title in titles.items()
        if called.count(title) > 1 or (title in METRICS and title != name)
    }
    if clashes:
        words = ", ".join(sorted(clashes))
        raise UserError(f"--metrics {asked}: {words} would name two metrics; rename the function")


def _chunks(corpus: Corpus) -> Iterator[tuple[int, int]]:
    """Ranges of samples of about CHUNK_TOKENS tokens each."""
    step = max(CHUNK_TOKENS // corpus.seq_length, 1)
    for first in range(0, corpus.windows, step):
        yield first, min(first + step, corpus.windows)


def _frequencies(corpus: Corpus, vocab_size: int, pool: ThreadPoolExecutor, workers: int) -> np.ndarray:
    """Counts of every token over the tokens of every sample: one between two windows counts for both."""
    length = corpus.seq_length

    def count(part: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int], int]:
        frequency = np.zeros(vocab_size, np.int64)
        return frequency, count_tokens(*corpus.read(*part), frequency), part[1] - part[0]

    total = np.zeros(vocab_size, np.int64)
    with progress("token frequencies", corpus.windows * length, "M tokens", 1e6) as advance:
        for frequency, extremes, samples in pool.map(count, _chunks(corpus)):
            _refuse_outside(*extremes, vocab_size, corpus)
            total += frequency
            advance(samples * length)
    return total


def _refuse_outside(smallest: int, largest: int, vocab_size: int, corpus: Corpus) -> None:
    if smallest < 0 or largest >= vocab_size:
        wrong = smallest if smallest < 0 else largest
        raise UserError(
            f"{corpus.name}.bin holds the token id {wrong}, outside the vocabulary of {vocab_size}; "
            "name the tokenizer that made the file, or the right --vocab-size"
        )


def _measure(
    corpus: Corpus, metrics: dict[str, Metric], costs: np.ndarray, pool: ThreadPoolExecutor, folder: Path
) -> None:
    """Every metric of every sample, chunk by chunk, into one file a metric; then the order from easy to
    hard."""
    length = corpus.seq_length
    values = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.int64, (corpus.windows,))
        for name in metrics
    }

    def measure(part: tuple[int, int]) -> int:
        tokens, starts, lengths = corpus.read(*part)
        statistics = Statistics(length, costs, starts, lengths)
        for name, metric in metrics.items():
            values[name][part[0] : part[1]] = computed(name, metric, tokens, statistics)
        return part[1] - part[0]

    with progress(", ".join(metrics), corpus.windows * length, "M tokens", 1e6) as advance:
        for samples in pool.map(measure, _chunks(corpus)):
            advance(samples * length)
    for name, array in values.items():
        array.flush()
        np.save(folder / f"{name}.order.npy", sort_by_difficulty(array))


def computed(name: str, metric: Metric, tokens: np.ndarray, statistics: Statistics) -> np.ndarray:
    """A metric's values of consecutive samples. UserError where a metric of the user's own fails or gives
    no whole numbers."""
    count = len(statistics.starts)
    try:
        values = np.asarray(metric.compute(tokens, statistics))
    except Exception as error:  # whatever the user's function raises
        raise UserError(_failure(name, error)) from None
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise UserError(
            f"the metric {name} gave {values.max()}; a difficulty is at most {np.iinfo(np.int64).max}"
        )
    if values.dtype.kind not in "iu" or values.shape != (count,):
        raise UserError(
            f"the metric {name} gave {values.dtype} {values.shape} for {count} samples; it must give one "
            "whole number for each"
        )
    return values


def _failure(name: str, error: Exception) -> str:
    """Why a metric failed, and where; one that no line of its own failed in is no function of this shape."""
    *_, place = places = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {error}"
    if len(places) == 1:
        return f"the metric {name} must take (tokens, context) and give one whole number a sample: {said}"
    return f"the metric {name} failed in {place.filename}, line {place.lineno}: {said}"


def _summary(folder: Path, name: str, metric: Metric) -> dict[str, Any]:
    values, order = (
        np.load(folder / f"{name}.npy", mmap_mode="r"),
        np.load(folder / f"{name}.order.npy", mmap_mode="r"),
    )
    ranks = {
        share: int(values[order[min(len(order) - 1, share * len(order) // 100)]])
        for share in range(0, 101, 5)
    }
    return {
        "version": metric.version,
        "about": metric.description,
        "mean": float(values.mean()),
        "percentiles": ranks,
        "checksum": checksum(folder / f"{name}.npy"),
        "fingerprints": fingerprints(folder, name),
    }
