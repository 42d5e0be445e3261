"""The difficulty of every sample of a corpus, in two passes over its tokens: frequencies, then all metrics together.

Threads share each pass; the results are the same bytes for any number of them. A folder holds `manifest.json` (which data,
split and length this is), `token_frequency.npy`, and for every metric `<metric>.npy`, one int64 a sample, and
`<metric>.order.npy`, the sample ids from easy to hard.
"""

import json
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megatron.data.difficulty import METRICS, Context, Metric, count_tokens, sort_by_difficulty, token_costs
from megatron.data.gpt_dataset import Corpus
from megatron.errors import UserError
from megatron.files import checksum, whole_folder
from megatron.pacing import load_function
from megatron.terminal import progress

FORMAT = 1
CHUNK_TOKENS = 1 << 22
IDENTITY = ("fingerprint", "sequences", "seq_length", "samples")


def analyze(corpus: Corpus, split: str, metrics: dict[str, Metric], vocab_size: int, folder: Path, workers: int) -> dict[str, Any]:
    """Write the analysis of a corpus to `folder`, whole or not at all, and return its manifest."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        raise UserError(f"--output-dir {folder} holds other files; choose an empty folder")
    with whole_folder(folder) as partial, ThreadPoolExecutor(workers) as pool:
        frequency = _frequencies(corpus, vocab_size, pool, workers)
        np.save(partial / "token_frequency.npy", frequency)
        _measure(corpus, metrics, Context(corpus.seq_length, token_costs(frequency)), pool, partial)
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


def identity(corpus: Corpus) -> dict[str, Any]:
    """What ties an analysis to its data: fingerprint, range of sequences, sample length, number of samples."""
    return dict(zip(IDENTITY, (corpus.source, list(corpus.sequences), corpus.seq_length, corpus.windows)))


def choose_metrics(names: tuple[str, ...]) -> dict[str, Metric]:
    """The metrics of these names; a name `module:function` is a metric of the user's own."""
    unknown = [name for name in names if name not in METRICS and ":" not in name]
    if unknown:
        raise UserError(
            f"--metrics {' '.join(unknown)}: unknown; known are {', '.join(METRICS)}, and module:function for a metric of your own"
        )
    names = tuple(dict.fromkeys(names))
    titles = [name.rpartition(":")[2] for name in names]
    if clashes := sorted({title for name, title in zip(names, titles) if titles.count(title) > 1 or (title in METRICS and title != name)}):
        raise UserError(f"--metrics {' '.join(names)}: {', '.join(clashes)} would name two metrics; rename the function")
    return {
        title: METRICS[name] if name in METRICS else Metric(load_function(name, "a metric"), 0, f"from {name}")
        for name, title in zip(names, titles)
    }


def _chunks(corpus: Corpus) -> Iterator[tuple[int, int]]:
    """Ranges of samples of about CHUNK_TOKENS tokens each."""
    step = max(CHUNK_TOKENS // corpus.seq_length, 1)
    for first in range(0, corpus.windows, step):
        yield first, min(first + step, corpus.windows)


def _frequencies(corpus: Corpus, vocab_size: int, pool: ThreadPoolExecutor, workers: int) -> np.ndarray:
    """Counts of every token over the S+1 tokens of every sample: a token between two samples counts for both."""
    length = corpus.seq_length

    def count(part: tuple[int, int]) -> tuple[np.ndarray, int, int]:
        frequency = np.zeros(vocab_size, np.int64)
        largest = count_tokens(corpus.tokens[part[0] * length : part[1] * length], frequency)
        return frequency, int(largest), part[1] - part[0]

    total = np.zeros(vocab_size, np.int64)
    with progress("token frequencies", corpus.windows * length, "M tokens", 1e6) as advance:
        for frequency, largest, samples in pool.map(count, _chunks(corpus)):
            _refuse_large(largest, vocab_size, corpus)
            total += frequency
            advance(samples * length)
    shared = np.asarray(corpus.tokens[length : corpus.windows * length + 1 : length])
    _refuse_large(int(shared.max()), vocab_size, corpus)
    return total + np.bincount(shared, minlength=vocab_size)


def _refuse_large(largest: int, vocab_size: int, corpus: Corpus) -> None:
    if largest >= vocab_size:
        raise UserError(
            f"{corpus.name}.bin holds the token id {largest}, outside the vocabulary of {vocab_size}; "
            "name the tokenizer that made the file, or the right --vocab-size"
        )


def _measure(corpus: Corpus, metrics: dict[str, Metric], context: Context, pool: ThreadPoolExecutor, folder: Path) -> None:
    """Every metric of every sample, chunk by chunk, into one file a metric; then the order from easy to hard."""
    length = corpus.seq_length
    values = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.int64, (corpus.windows,)) for name in metrics}

    def measure(part: tuple[int, int]) -> int:
        tokens = corpus.tokens[part[0] * length : part[1] * length + 1]
        for name, metric in metrics.items():
            values[name][part[0] : part[1]] = _computed(name, metric, tokens, context)
        return part[1] - part[0]

    with progress(", ".join(metrics), corpus.windows * length, "M tokens", 1e6) as advance:
        for samples in pool.map(measure, _chunks(corpus)):
            advance(samples * length)
    for name, array in values.items():
        array.flush()
        np.save(folder / f"{name}.order.npy", sort_by_difficulty(array))


def _computed(name: str, metric: Metric, tokens: np.ndarray, context: Context) -> np.ndarray:
    """A metric's values of consecutive samples. UserError where a metric of the user's own fails or gives no whole numbers."""
    count = len(tokens) // context.seq_length
    try:
        values = np.asarray(metric.compute(tokens, context))
    except Exception as error:  # whatever the user's function raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"the metric {name} failed in {place.filename}, line {place.lineno}: {type(error).__name__}: {error}") from None
    if values.dtype.kind not in "iu" or values.shape != (count,):
        raise UserError(f"the metric {name} gave {values.dtype} {values.shape} for {count} samples; it must give one whole number for each")
    return values


def _summary(folder: Path, name: str, metric: Metric) -> dict[str, Any]:
    values, order = np.load(folder / f"{name}.npy", mmap_mode="r"), np.load(folder / f"{name}.order.npy", mmap_mode="r")
    ranks = {share: int(values[order[min(len(order) - 1, share * len(order) // 100)]]) for share in range(0, 101, 5)}
    return {
        "version": metric.version,
        "about": metric.about,
        "mean": float(values.mean()),
        "percentiles": ranks,
        "checksum": checksum(folder / f"{name}.npy"),
    }


class Analyses(NamedTuple):
    """The analyses of a run: their folders, and the same by the data that they are of, so that thousands of corpora find theirs."""

    folders: list[Path]
    by_data: dict[str, list[Path]]


def open_analyses(paths: tuple[str, ...]) -> Analyses:
    """Read the manifests of --difficulty-path folders. UserError where one holds none."""
    by_data: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        manifest = read_manifest(path)
        by_data.setdefault(_plain({name: manifest.get(name) for name in IDENTITY}), []).append(path)
    return Analyses(list(map(Path, paths)), by_data)


def find_analysis(analyses: Analyses, corpus: Corpus, metric: str) -> Path:
    """The folder whose analysis is of this corpus and has the metric; UserError with the difference."""
    if not analyses.folders:
        raise UserError(f"the curriculum orders by {metric}; give --difficulty-path FOLDER, made by tools/analyze_data.py")
    for folder in analyses.by_data.get(_plain(identity(corpus)), ()):
        if not _metric_reason(read_manifest(folder), metric):
            return folder
    reasons = [_reason(folder, corpus, metric) for folder in analyses.folders[:5]]
    more = f"; and {len(analyses.folders) - 5} more" if len(analyses.folders) > 5 else ""
    raise UserError(
        f"no analysis fits {corpus.name}: {'; '.join(reasons)}{more}; run tools/analyze_data.py with this data, split and length"
    )


def _plain(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def _reason(folder: Path, corpus: Corpus, metric: str) -> str:
    """Why an analysis does not serve."""
    manifest, mine = read_manifest(folder), identity(corpus)
    differences = [f"{name} {manifest.get(name)} against {value}" for name, value in mine.items() if manifest.get(name) != value]
    return f"{folder} {'is of other data: ' + ', '.join(differences) if differences else _metric_reason(manifest, metric)}"


def _metric_reason(manifest: dict[str, Any], metric: str) -> str:
    """Why an analysis of the right data does not serve; "" where it does."""
    about = manifest["metrics"].get(metric)
    if not isinstance(about, dict) or "checksum" not in about:
        return f"lacks the metric {metric}"
    if metric in METRICS and about.get("version") != METRICS[metric].version:
        return f"has version {about.get('version')} of the metric {metric}, and this is version {METRICS[metric].version}"
    return ""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an analysis; UserError where there is none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--difficulty-path {folder}: holds no analysis ({error}); make one with tools/analyze_data.py") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not isinstance(manifest.get("metrics"), dict):
        raise UserError(f"--difficulty-path {folder}: its manifest.json is not of format {FORMAT}; run tools/analyze_data.py again")
    return manifest


def load_column(folder: Path, name: str, samples: int) -> np.ndarray:
    """`<name>.npy` of an analysis, memory-mapped; UserError where it is damaged."""
    path = folder / f"{name}.npy"
    try:
        column = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's header parser fails in many ways on damaged files
        raise UserError(f"{path}: cannot be read ({error}); run tools/analyze_data.py again") from None
    if column.shape != (samples,) or column.dtype.kind not in "iu":
        raise UserError(f"{path}: holds {column.dtype} {column.shape}, not {samples} whole numbers; run tools/analyze_data.py again")
    return column
