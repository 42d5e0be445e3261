"""The folders of analyses that a run is given: which one is of its data, and the columns in it."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import other_format, spread_blocks
from megatron.base.mapping import map_array
from megatron.config.values import as_words
from megatron.curriculum.difficulty import METRICS
from megatron.data.corpora import IDENTITY, Corpus, identity, is_made_up
from megatron.schedule.data_efficiency import RESHAPE, TRUNCATE

FORMAT = 1
BLOCK_BYTES = 1 << 16
WHOLE = 1 << 16
"""So many samples are looked at one by one."""


OF_SAMPLES = "flags of samples (--bert-pair, --bert-no-binary-head, --short-seq-prob, --bert-passes, --seed)"
"""What else says which samples of sentences there are."""


class Analyses(NamedTuple):
    """The analyses of a run: their folders, and the same by the data that they are of, so that thousands
    of corpora find theirs."""

    folders: list[Path]
    by_data: dict[str, list[Path]]


def open_analyses(paths: tuple[str, ...]) -> Analyses:
    """Read the manifests of --difficulty-path folders. UserError where one holds none."""
    by_data: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        manifest = read_manifest(path)
        by_data.setdefault(
            _plain({name: manifest[name] for name in IDENTITY if name in manifest}), []
        ).append(path)
    return Analyses(list(map(Path, paths)), by_data)


def find_analysis(analyses: Analyses, corpus: Corpus, metric: str) -> Path:
    """The folder whose analysis is of this corpus and has the metric; UserError with the difference."""
    if unknown := _unknown_metric(analyses, metric):
        raise UserError(unknown)
    for folder in analyses.by_data.get(_plain(identity(corpus)), ()):
        if not _metric_reason(read_manifest(folder), metric):
            return folder
    if is_made_up(corpus):
        raise UserError(
            f"the curriculum orders by {metric}, and tools/analyze_data.py cannot read the made-up tokens of "
            f"--mock-data; give files, or leave {metric} out of the curriculum"
        )
    if not analyses.folders:
        raise UserError(
            f"the curriculum orders by {metric}; give --difficulty-path FOLDER, made by tools/analyze_data.py"
        )
    reasons = [_reason(folder, corpus, metric) for folder in analyses.folders[:5]]
    more = f"; and {len(analyses.folders) - 5} more" if len(analyses.folders) > 5 else ""
    alike = f"data, split, length and {OF_SAMPLES}" if corpus.joined else "data, split and length"
    raise UserError(
        f"no analysis fits {corpus.name}: {'; '.join(reasons)}{more}; run tools/analyze_data.py with this "
        f"run's {alike}"
    )


def _unknown_metric(analyses: Analyses, metric: str) -> str:
    """What is said of a metric that is neither one of ours nor in any of the folders; "" of others."""
    held = {name for folder in analyses.folders for name in read_manifest(folder)["metrics"]}
    if metric in METRICS or metric in held:
        return ""
    known = sorted({*METRICS, *held, TRUNCATE, RESHAPE})
    nearest = difflib.get_close_matches(metric, known, n=1, cutoff=0.75)
    return (
        f"unknown metric {metric}; "
        + (f"did you mean {nearest[0]}? " if nearest else "")
        + f"known: {', '.join(known)}; or give --difficulty-path FOLDER with an analysis that holds one of "
        "that name"
    )


def _plain(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def _reason(folder: Path, corpus: Corpus, metric: str) -> str:
    """Why an analysis does not serve."""
    manifest, mine = read_manifest(folder), identity(corpus)
    differences = [
        f"{name} {manifest.get(name, 'windows')} against {mine.get(name, 'windows')}"
        for name in IDENTITY
        if manifest.get(name) != mine.get(name)
    ]
    if differences:
        return f"{folder} is of other data: {', '.join(differences)}"
    return f"{folder} {_metric_reason(manifest, metric)}"


def _metric_reason(manifest: dict[str, Any], metric: str) -> str:
    """Why an analysis of the right data does not serve; "" where it does."""
    entry = manifest["metrics"].get(metric)
    if not isinstance(entry, dict) or "checksum" not in entry:
        return f"lacks the metric {metric}"
    if metric in METRICS and entry.get("version") != METRICS[metric].version:
        return (
            f"has version {entry.get('version')} of the metric {metric}, and this is version "
            f"{METRICS[metric].version}"
        )
    return ""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an analysis; UserError where there is none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        several = as_words(str(folder), lambda word: Path(word).is_dir())
        raise UserError(
            f"--difficulty-path {folder}: holds no analysis ({error}); "
            f"{several or 'make one with tools/analyze_data.py'}"
        ) from None
    if why := other_format(manifest, FORMAT):
        raise UserError(
            f"--difficulty-path {folder}: its analysis is of {why}; run tools/analyze_data.py again"
        )
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("metrics"), dict)
    ):
        raise UserError(
            f"--difficulty-path {folder}: its manifest.json is not of format {FORMAT}; run "
            "tools/analyze_data.py again"
        )
    return manifest


def fingerprints(folder: Path, metric: str) -> dict[str, str]:
    """A hash of the size and of evenly spread blocks of both files of a metric, by their names; constant
    time, and of all of a file of up to half a million samples."""
    found = {}
    for name in (f"{metric}.npy", f"{metric}.order.npy"):
        state = hashlib.blake2b(str((folder / name).stat().st_size).encode(), digest_size=16)
        for block in spread_blocks(folder / name, BLOCK_BYTES):
            state.update(block)
        found[name] = state.hexdigest()
    return found


def identify(folder: Path, metric: str) -> dict[str, str]:
    """What a checkpoint says of a metric's difficulties: the checksum in the manifest, and fingerprints."""
    return {metric: read_manifest(folder)["metrics"][metric]["checksum"]} | fingerprints(folder, metric)


def load_difficulty(folder: Path, metric: str, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The values of a metric and the samples from easy to hard, memory-mapped. UserError where a file is
    damaged, is another than its manifest says, or where the two do not belong together."""
    values, order = (load_column(folder, name, samples) for name in (metric, f"{metric}.order"))
    told = read_manifest(folder)["metrics"][metric].get("fingerprints", {})
    for name, found in fingerprints(folder, metric).items():
        if told.get(name, found) != found:
            raise UserError(
                f"{folder / name}: has changed since its analysis; run tools/analyze_data.py again"
            )
    if not _sorts(order, values):
        raise UserError(
            f"{folder / metric}.order.npy: is no order of the samples by {metric}.npy, and belongs to other "
            "values; run tools/analyze_data.py again"
        )
    return values, order


def _sorts(order: np.ndarray, values: np.ndarray) -> bool:
    """Whether an order holds every sample once, from easy to hard and equal ones by their number; of many
    samples 64 stretches are looked at, in which none may stand twice."""
    samples = len(order)
    starts = range(0, max(samples - 256, 1), max((samples - 256) // 63, 1)) if samples > WHOLE else [0]
    length = 256 if samples > WHOLE else samples
    for start in starts:
        part = np.array(order[start : start + length], np.int64)
        if part.min() < 0 or part.max() >= samples or len(np.unique(part)) < len(part):
            return False
        found = np.asarray(values[part], np.int64)
        step = np.diff(found)
        if (step < 0).any() or (np.diff(part)[step == 0] < 0).any():
            return False
    return True


def load_column(folder: Path, name: str, samples: int) -> np.ndarray:
    """`<name>.npy` of an analysis, memory-mapped; UserError where it is damaged."""
    path = folder / f"{name}.npy"
    try:
        column = map_array(path)
    except Exception as error:  # numpy's header parser fails in many ways on damaged files
        raise UserError(f"{path}: cannot be read ({error}); run tools/analyze_data.py again") from None
    if column.shape != (samples,) or column.dtype.kind not in "iu":
        raise UserError(
            f"{path}: holds {column.dtype} {column.shape}, not {samples} whole numbers; run "
            "tools/analyze_data.py again"
        )
    return column
