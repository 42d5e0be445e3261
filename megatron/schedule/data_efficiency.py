"""What makes a run data-efficient: a curriculum over difficulty and length, and random-LTD, as values."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from megatron.schedule.pacing import Pacing

TRUNCATE, RESHAPE = "seqlen_truncate", "seqlen_reshape"
ALIASES = {
    "voc": "vocab_rarity",
    "vocabrarity": "vocab_rarity",
    "vocabularyrarity": "vocab_rarity",
    "vocabulary_rarity": "vocab_rarity",
    "seqlenvocabrarity": "seqlen_vocab_rarity",
    "seqtru": TRUNCATE,
    "seqres": RESHAPE,
}
"""Names of metrics in DeepSpeed's documentation and recipes and in the paper, and ours."""


@dataclass(frozen=True)
class CurriculumMetric:
    """A difficulty metric under a pacing. `difficulty`: the cap is a `value` of the metric, or a
    `percentile` of the samples."""

    name: str
    difficulty: str
    pacing: Pacing


@dataclass(frozen=True)
class RandomLTD:
    """Random layerwise token dropping (arXiv 2211.11586): which layers (from 0), and how many tokens they
    keep."""

    layers: tuple[int, ...]
    pacing: Pacing


@dataclass(frozen=True)
class DataEfficiency:
    """What shortens, orders and drops. `metrics` order samples by difficulty; `length` cuts them;
    `length_metric` says how: "" (not at all), seqlen_truncate or seqlen_reshape. `reference_schedules`:
    schedules exactly as DeepSpeed 0.19.8."""

    metrics: tuple[CurriculumMetric, ...] = ()
    length_metric: str = ""
    length: Pacing | None = None
    random_ltd: RandomLTD | None = None
    difficulty_paths: tuple[str, ...] = ()
    seed: int = 1234
    reference_schedules: bool = False

    @property
    def dropping_layers(self) -> tuple[int, ...]:
        """Layers under random-LTD."""
        return self.random_ltd.layers if self.random_ltd else ()


def saved_form(efficiency: DataEfficiency) -> dict[str, Any]:
    """What a checkpoint says of it, under the keys of the checkpoint's format; where its files lie does
    not matter."""
    saved = dataclasses.asdict(efficiency)
    names = {"length_metric": "shape", "reference_schedules": "published"}
    return {names.get(name, name): value for name, value in saved.items()} | {"difficulty_paths": ()}
