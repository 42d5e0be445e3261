"""The difficulty of every sample of a map-style dataset, by the metrics of the training commands, and its
files: a folder with `<metric>.npy`, one int64 a sample."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.base.terminal import progress
from megatron.curriculum.analysis import choose_metrics, computed
from megatron.curriculum.difficulty import Statistics, count_tokens, token_costs

SAMPLES_AT_A_TIME = 1024
Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens of consecutive samples, where among them every sample begins, and how many it has."""


def input_ids(sample: Any) -> np.ndarray:
    """The tokens of a sample: its `input_ids` without padding by its `attention_mask`, or itself, or the
    first of a tuple. UserError where a mapping has none."""
    if isinstance(sample, Mapping):
        if "input_ids" not in sample:
            has = ", ".join(map(str, sample)) or "nothing"
            raise UserError(f"a sample has {has}, and no input_ids; say by tokens_of what its tokens are")
        ids = np.asarray(sample["input_ids"]).reshape(-1)
        mask = sample.get("attention_mask")
        return ids if mask is None else ids[np.asarray(mask).reshape(-1) != 0]
    return np.asarray(sample[0] if isinstance(sample, tuple) else sample).reshape(-1)


def measure(
    dataset: Any,
    vocab_size: int,
    metrics: Iterable[str] = ("vocab_rarity",),
    tokens_of: Callable[[Any], np.ndarray] = input_ids,
    quiet: bool = False,
) -> dict[str, np.ndarray]:
    """Every metric of every sample, int64 [samples] by name, in two passes over the dataset: the first counts
    tokens. A metric `module:function` is one of your own. UserError for an id outside the vocabulary, and for
    what is no whole number."""
    chosen = choose_metrics((metrics,) if isinstance(metrics, str) else tuple(metrics))
    if not hasattr(dataset, "__len__"):
        raise UserError(
            f"difficulties are of samples with numbers, and a {type(dataset).__name__} is a stream without a "
            "length; give a map-style dataset, such as a list of it"
        )
    samples = len(dataset)
    frequency, longest = np.zeros(vocab_size, np.int64), 1
    with progress("token frequencies", samples, "samples", quiet=quiet) as advance:
        for first, part in _parts(dataset, tokens_of):
            _refuse_outside(part, first, vocab_size)
            count_tokens(*part, frequency)
            longest = max(longest, int(part[2].max()))
            advance(len(part[1]))
    values = {name: np.empty(samples, np.int64) for name in chosen}
    costs = token_costs(frequency)
    with progress(", ".join(chosen), samples, "samples", quiet=quiet) as advance:
        for first, part in _parts(dataset, tokens_of):
            tokens, starts, lengths = part
            statistics = Statistics(longest, costs, starts, lengths)
            for name, metric in chosen.items():
                values[name][first : first + len(starts)] = computed(name, metric, tokens, statistics)
            advance(len(starts))
    return values


def save_difficulties(difficulties: Mapping[str, np.ndarray], folder: str | os.PathLike[str]) -> None:
    """Write every metric to `<folder>/<metric>.npy`, each whole or not at all."""
    for name, values in difficulties.items():
        with whole_file(Path(folder, f"{name}.npy")) as file:
            np.save(file, values)


def load_difficulties(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every metric of a folder of `save_difficulties` or of `tools/analyze_data.py`, mapped into memory.
    UserError where there is none, or a file is damaged."""
    skipped = ("token_frequency", ".order")
    paths = [path for path in sorted(Path(folder).glob("*.npy")) if not path.stem.endswith(skipped)]
    if not paths:
        raise UserError(
            f"{folder}: holds no difficulties, files named <metric>.npy; write them by save_difficulties()"
        )
    try:
        return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: holds a damaged file of difficulties: {error}; write it again") from None


def _parts(dataset: Any, tokens_of: Callable[[Any], np.ndarray]) -> Iterator[tuple[int, Part]]:
    """Consecutive samples, and the number of the first of them."""
    for first in range(0, len(dataset), SAMPLES_AT_A_TIME):
        last = min(first + SAMPLES_AT_A_TIME, len(dataset))
        rows = [_whole_numbers(tokens_of(dataset[i]), i) for i in range(first, last)]
        lengths = np.array([len(row) for row in rows], np.int64)
        tokens = np.concatenate(rows).astype(np.int64)
        yield first, (tokens, np.cumsum(lengths) - lengths, lengths)


def _whole_numbers(row: Any, sample: int) -> np.ndarray:
    """The tokens of a sample as an array; an empty list is of no kind."""
    tokens = np.asarray(row)
    if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
        raise UserError(
            f"the tokens of sample {sample} are {tokens.dtype} {tokens.shape}, no whole numbers in a row; "
            "say by tokens_of what they are"
        )
    return tokens


def _refuse_outside(part: Part, first: int, vocab_size: int) -> None:
    tokens, starts, _ = part
    outside = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if len(outside):
        sample = first + int(np.searchsorted(starts, outside[0], side="right")) - 1
        raise UserError(
            f"sample {sample} holds the token id {tokens[outside[0]]}, outside the vocabulary of "
            f"{vocab_size}; give the right vocab_size"
        )
