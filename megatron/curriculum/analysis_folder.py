"""The folders of analyses that a run is given: which one is of its data, and the columns in it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError
from megatron.base.mapping import map_array
from megatron.curriculum.difficulty import METRICS
from megatron.data.corpora import IDENTITY, Corpus, identity

FORMAT = 1


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
        by_data.setdefault(_plain({name: manifest.get(name) for name in IDENTITY}), []).append(path)
    return Analyses(list(map(Path, paths)), by_data)


def find_analysis(analyses: Analyses, corpus: Corpus, metric: str) -> Path:
    """The folder whose analysis is of this corpus and has the metric; UserError with the difference."""
    if not analyses.folders:
        raise UserError(
            f"the curriculum orders by {metric}; give --difficulty-path FOLDER, made by tools/analyze_data.py"
        )
    for folder in analyses.by_data.get(_plain(identity(corpus)), ()):
        if not _metric_reason(read_manifest(folder), metric):
            return folder
    reasons = [_reason(folder, corpus, metric) for folder in analyses.folders[:5]]
    more = f"; and {len(analyses.folders) - 5} more" if len(analyses.folders) > 5 else ""
    raise UserError(
        f"no analysis fits {corpus.name}: {'; '.join(reasons)}{more}; run tools/analyze_data.py with this "
        "data, split and length"
    )


def _plain(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def _reason(folder: Path, corpus: Corpus, metric: str) -> str:
    """Why an analysis does not serve."""
    manifest, mine = read_manifest(folder), identity(corpus)
    differences = [
        f"{name} {manifest.get(name)} against {value}"
        for name, value in mine.items()
        if manifest.get(name) != value
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
        raise UserError(
            f"--difficulty-path {folder}: holds no analysis ({error}); make one with tools/analyze_data.py"
        ) from None
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
