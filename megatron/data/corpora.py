"""GPT samples: sample i of a corpus is the window [i·S, i·S + S] of its token stream, S+1 tokens.

A split is a range of sequences, whose tokens lie together in the .bin file, so a window is one slice of
the memory map: no index is built or cached, and a sample depends on the files, the split and S alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from megatron.base.errors import UserError, collect_problems
from megatron.base.keys import key
from megatron.config.config import Config
from megatron.config.data import DataConfig, split_numbers, split_problems
from megatron.data.indexed_dataset import IndexedDataset, fingerprint, read_sidecar, require_own_sidecar

SPLITS = ("train", "valid", "test")
IDENTITY = ("fingerprint", "sequences", "seq_length", "samples", "joined")


@dataclass(frozen=True)
class Corpus:
    """A split of one dataset, read in windows of `seq_length`+1 tokens. `windows`: its samples; `sequences`:
    its range; `source`: its fingerprint; `joined`: how samples are made of sequences, where they are no
    windows."""

    name: str
    tokens: Any
    windows: int
    seq_length: int
    sequences: tuple[int, int]
    source: str
    sidecar: dict[str, Any] | None = None
    joined: str = ""

    def window(self, index: int, first: int = 0, length: int | None = None) -> np.ndarray:
        """`length`+1 tokens of a window from its token `first` on; the whole window by default."""
        start = index * self.seq_length + first
        return self.tokens[start : start + (self.seq_length if length is None else length) + 1]

    def read(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples [first, last) as they are trained: tokens, where in these every sample begins, and how
        many it has. Of windows it is one more than their length, as the last label counts."""
        tokens, count = self.tokens[first * self.seq_length : last * self.seq_length + 1], last - first
        return tokens, np.arange(count) * self.seq_length, np.full(count, self.seq_length + 1)

    def describe(self) -> str:
        """Its samples in words."""
        used = self.windows * self.seq_length
        return (
            f"{self.windows:,} samples of {self.seq_length} tokens "
            f"({used:,}, {len(self.tokens) - used - 1:,} at the end unused)"
        )


def identity(corpus: Corpus) -> dict[str, Any]:
    """What ties an analysis, or a checkpoint, to its data: fingerprint, range of sequences, sample length,
    number of samples, and how samples are joined, where they are no windows."""
    parts = (corpus.source, list(corpus.sequences), corpus.seq_length, corpus.windows, corpus.joined)
    return {name: part for name, part in zip(IDENTITY, parts) if part != ""}


def made_anew(trained: Sequence[Mapping[str, Any]], corpora: Sequence[tuple[Any, Corpus]]) -> list[str]:
    """Names of corpora whose files are not those of any identity in `trained`; where that tells no files,
    nothing is known."""
    known = {corpus.get("fingerprint") for corpus in trained}
    if not known or None in known:
        return []
    return [corpus.name for _, corpus in corpora if corpus.source not in known]


def parse_split(text: str) -> list[tuple[float, float]]:
    """The shares (from, to) of training, validation and test from a text such as "969,30,1"; UserError where
    it is none."""
    if problems := split_problems(text):
        raise UserError(*problems)
    numbers = split_numbers(text)
    bounds = np.cumsum([0.0, *numbers, *[0.0] * (3 - len(numbers))]) / sum(numbers)
    return [(float(low), float(high)) for low, high in pairwise(bounds)]


def parse_blend(paths: tuple[str, ...], flag: str = "--data-path") -> list[tuple[float | None, str]]:
    """Weights and prefixes from "P", "P1 P2 ..." (no weights) or "W1 P1 W2 P2 ..."."""
    weights = [_number(text) for text in paths[::2]]
    if len(paths) % 2 or any(weight is None for weight in weights):
        return [(None, prefix) for prefix in paths]
    if any(weight is not None and not 0 < weight < math.inf for weight in weights):
        raise UserError(
            f"{flag} {' '.join(paths)}: weights must be above 0 and finite; leave out datasets that "
            "shall not be drawn from"
        )
    return list(zip(weights, paths[1::2]))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


Splits = dict[str, list[tuple[float | None, Corpus]]]
"""Weights and corpora by split; a weight of None stands for the corpus' own size."""


class Source(NamedTuple):
    """An open dataset, its fingerprint, and what its .json says."""

    dataset: IndexedDataset
    fingerprint: str
    sidecar: dict[str, Any] | None


def open_source(prefix: str, allow_trailing_bytes: bool) -> Source:
    """Open a dataset. UserError where its files are missing or damaged, or do not belong together."""
    dataset = IndexedDataset(prefix, allow_trailing_bytes=allow_trailing_bytes)
    source, sidecar = fingerprint(dataset), read_sidecar(prefix)
    if sidecar:
        require_own_sidecar(dataset, source, sidecar)
    return Source(dataset, source, sidecar)


def open_sources(prefixes: Sequence[str], allow_trailing_bytes: bool) -> dict[str, Source]:
    """Open datasets, several at a time. UserError tells all that are missing or damaged."""
    problems: list[str] = []
    sources = {}
    with ThreadPoolExecutor(16) as pool:
        opening = {prefix: pool.submit(open_source, prefix, allow_trailing_bytes) for prefix in prefixes}
    for prefix, source in opening.items():
        with collect_problems(problems):
            sources[prefix] = source.result()
    if problems:
        raise UserError(*problems)
    return sources


def open_corpus(opened: Source, share: tuple[float, float], seq_length: int, split: str) -> Corpus | None:
    """The windows of a share of a dataset's sequences. Where it holds none: UserError for training, None
    for other splits."""
    dataset, source, sidecar = opened
    low, high = (round(bound * len(dataset)) for bound in share)
    pointers, size = dataset.sequence_pointers, dataset.dtype.itemsize
    first, last = (
        int(pointers[bound]) // size if bound < len(dataset) else len(dataset.tokens) for bound in (low, high)
    )
    windows = max(last - first - 1, 0) // seq_length
    if windows:
        return Corpus(
            name=str(dataset.prefix),
            tokens=dataset.tokens[first:last],
            windows=windows,
            seq_length=seq_length,
            sequences=(low, high),
            source=source,
            sidecar=sidecar,
        )
    if split == "train" and share[0] < share[1]:
        raise UserError(
            f"{dataset.prefix}: its {split} split has {high - low} of {len(dataset)} sequences with "
            f"{last - first} tokens, and a sample "
            f"needs {seq_length + 1}; use more data, another --split or a smaller --seq-length"
        )
    return None


Open = Callable[[Source, tuple[float, float], str], Corpus | None]
"""From an open dataset, the share of it and the name of a split to the samples there, None where there are
none."""


def open_splits(config: Config, open_share: Open | None = None) -> Splits:
    """Weights and corpora of "train", "valid" and "test", windows or what `open_share` makes; a split without
    data is an empty list."""
    data = config.data
    empty: Splits = {split: [] for split in SPLITS}
    if data.mock_data:
        return empty | {split: [(None, mock_corpus(config, split))] for split in made_up(data)}
    open_share = open_share or (
        lambda source, share, split: open_corpus(source, share, data.seq_length, split)
    )
    splits, sources = empty, sources_of(data)
    blends = {split: parse_blend(paths, flag) for split, (flag, paths, _) in sources.items()}
    prefixes = list(dict.fromkeys(prefix for blend in blends.values() for _, prefix in blend))
    opened = open_sources(prefixes, data.allow_trailing_bytes)
    for split, blend in blends.items():
        for weight, prefix in blend:
            corpus = open_share(opened[prefix], sources[split][2], split)
            if corpus:
                splits[split].append((weight, corpus))
    return splits


def made_up(data: DataConfig) -> list[str]:
    """The splits that --mock-data makes samples for: those with a share, however great."""
    return [split for split, (low, high) in zip(SPLITS, parse_split(data.split)) if low < high]


def sources_of(data: DataConfig) -> dict[str, tuple[str, tuple[str, ...], tuple[float, float]]]:
    """For every split the flag that names its datasets, what it says, and the share of each of them."""
    if data.data_path:
        shares = dict(zip(SPLITS, parse_split(data.split)))
        return {split: ("--data-path", data.data_path, shares[split]) for split in SPLITS}
    whole = (0.0, 1.0)
    return {split: (f"--{split}-data-path", getattr(data, f"{split}_data_path"), whole) for split in SPLITS}


def unevaluated(config: Config, splits: Splits) -> list[str]:
    """A note for every split that shall be evaluated and for which a dataset holds no sample."""
    if config.data.mock_data or not config.logging.eval_iters:
        return []
    notes = []
    for split, (flag, paths, (low, high)) in sources_of(config.data).items():
        names = {corpus.name for _, corpus in splits[split]}
        empty = [prefix for _, prefix in parse_blend(paths, flag) if prefix not in names]
        if empty and split != "train" and low < high:
            what = {"valid": "validation", "test": "the test"}[split]
            notes.append(
                f"no sample of {config.data.seq_length} tokens is left for {what} in {', '.join(empty)}: "
                f"{'they are' if len(empty) > 1 else 'it is'} left out there"
            )
    return notes


def require_samples(config: Config, splits: Splits) -> None:
    """UserError where a split that the run needs holds no sample."""
    if not splits["train"]:
        raise UserError(f"no data is left for training; {more_of(config.data, 'train')}")
    if not splits["valid"] and config.logging.eval_interval and config.logging.eval_iters:
        raise UserError(
            f"no sample of {config.data.seq_length} tokens is left for validation; use more documents, "
            f"{more_of(config.data, 'valid')}, or set --eval-iters 0"
        )


def more_of(data: DataConfig, split: str) -> str:
    """How a split gets more of the data."""
    if data.data_path or data.mock_data:
        return f"raise its share in --split {data.split}"
    return f"name {'other' if getattr(data, f'{split}_data_path') else 'some'} data by --{split}-data-path"


def mock_corpus(config: Config, split: str) -> Corpus:
    """Made-up tokens with a little structure to learn: a keyed walk over the vocabulary."""
    vocab_size, seq_length = config.tokenizer.vocab_size or 1, config.data.seq_length
    generator = np.random.Generator(np.random.Philox(key(config.training.seed, "mock", split)))
    steps = generator.integers(0, 16, size=256 * seq_length + 1)
    tokens = (np.cumsum(steps) % vocab_size).astype(np.int32)
    return Corpus(f"mock {split}", tokens, 256, seq_length, (0, 256), f"mock-{vocab_size}")


def is_made_up(corpus: Corpus) -> bool:
    """Whether its tokens are those of --mock-data, which no file holds."""
    return corpus.sidecar is None and corpus.source.startswith("mock-")
