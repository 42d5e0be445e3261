"""What makes a run data-efficient: a curriculum over difficulty and length, and random-LTD, as values."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from megatron.schedule.pacing import Pacing, as_deepspeed, meaning

TRUNCATE, RESHAPE = "seqlen_truncate", "seqlen_reshape"
NAMES = {"length_metric": "shape", "reference_schedules": "published"}
"""Fields of DataEfficiency that have another name in a checkpoint."""
ALIASES = {
    "voc": "vocab_rarity",
    "vocabrarity": "vocab_rarity",
    "vocabularyrarity": "vocab_rarity",
    "vocabulary_rarity": "vocab_rarity",
    "seqlenvocabrarity": "seqlen_vocab_rarity",
    "seqreo": "seqlen",
    "seqreo_voc": "seqlen_vocab_rarity",
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


def same_metrics(
    metrics: Iterable[CurriculumMetric], reference_schedules: bool
) -> tuple[CurriculumMetric, ...]:
    """The metrics by name, as what their pacings mean."""
    same = []
    for metric in sorted(metrics, key=lambda metric: metric.name):
        pacing = as_deepspeed(metric.pacing) if reference_schedules else metric.pacing
        shares = reference_schedules and metric.difficulty == "percentile"
        same.append(dataclasses.replace(metric, pacing=meaning(pacing, shares)))
    return tuple(same)


def same_dropping(random_ltd: RandomLTD | None) -> RandomLTD | None:
    """Random-LTD with its layers in order, as what its pacing means."""
    return random_ltd and RandomLTD(tuple(sorted(random_ltd.layers)), meaning(random_ltd.pacing))


def saved_form(efficiency: DataEfficiency) -> dict[str, Any]:
    """What a checkpoint says of it, under the keys of the checkpoint's format; where its files lie does
    not matter."""
    saved = dataclasses.asdict(efficiency)
    return {NAMES.get(name, name): value for name, value in saved.items()} | {"difficulty_paths": ()}


def saved_meaning(saved: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of it, as what it means, so that equal meanings are equal; as it stands where
    it is not understood."""
    try:
        return saved_form(_from_saved(saved))
    except (AttributeError, KeyError, TypeError):
        return saved


def _from_saved(saved: dict[str, Any]) -> DataEfficiency:
    names = {theirs: name for name, theirs in NAMES.items()}
    values = {names.get(name, name): value for name, value in saved.items()}
    exactly = values["reference_schedules"]
    metrics = [CurriculumMetric(**one | {"pacing": _pacing(one["pacing"])}) for one in values["metrics"]]
    length, dropping = values["length"], values["random_ltd"]
    random_ltd = RandomLTD(tuple(dropping["layers"]), _pacing(dropping["pacing"])) if dropping else None
    return DataEfficiency(
        metrics=same_metrics(metrics, exactly),
        length_metric=values["length_metric"],
        length=meaning(_pacing(length)) if length else None,
        random_ltd=same_dropping(random_ltd),
        seed=values["seed"],
        reference_schedules=exactly,
    )


def _pacing(saved: dict[str, Any]) -> Pacing:
    values: dict[str, Any] = {
        name: tuple(part) if isinstance(part, list) else part for name, part in saved.items()
    }
    return Pacing(**values)
