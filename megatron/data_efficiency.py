"""What makes a run data-efficient: a curriculum over difficulty and length, and random-LTD, as values."""

from dataclasses import dataclass

from megatron.pacing import Pacing

TRUNCATE, RESHAPE = "seqlen_truncate", "seqlen_reshape"
ALIASES = {"voc": "vocab_rarity", "seqlenvocabrarity": "seqlen_vocab_rarity"}


@dataclass(frozen=True)
class Metric:
    """A difficulty metric under a pacing. `difficulty`: the cap is a `value` of the metric, or a `percentile` of the samples."""

    name: str
    difficulty: str
    pacing: Pacing


@dataclass(frozen=True)
class RandomLTD:
    """Random layerwise token dropping (arXiv 2211.11586): which layers (from 0), and how many tokens they keep."""

    layers: tuple[int, ...]
    pacing: Pacing


@dataclass(frozen=True)
class DataEfficiency:
    """What shortens, orders and drops. `metrics` order samples by difficulty; `length` cuts them; `shape` says how:
    "" (not at all), seqlen_truncate or seqlen_reshape. `published`: schedules exactly as DeepSpeed 0.19.8."""

    metrics: tuple[Metric, ...] = ()
    shape: str = ""
    length: Pacing | None = None
    random_ltd: RandomLTD | None = None
    difficulty_paths: tuple[str, ...] = ()
    seed: int = 1234
    published: bool = False
