"""The flags of curriculum and random-LTD, what follows from them, and the rules between them."""

from dataclasses import dataclass, fields

from megatron.config.data import DataConfig
from megatron.config.flags import flag, spelling


@dataclass(frozen=True)
class DataEfficiencyConfig:
    curriculum: tuple[str, ...] = flag(
        (),
        "METRIC:key=value,...; see docs/data_efficiency.md",
        repeat=True,
        metavar="SPEC",
        resume="meaning",
    )
    difficulty_path: tuple[str, ...] = flag(
        (),
        "folder of an analysis by tools/analyze_data.py",
        repeat=True,
        metavar="FOLDER",
        resume="meaning",
    )
    random_ltd: bool = flag(False, "drop tokens in the middle layers: random-LTD", resume="meaning")
    random_ltd_min: int = flag(128, "tokens kept at the start", resume="meaning")
    random_ltd_max: int = flag(
        None,
        "tokens kept at the end; the sequence length",
        follows=lambda data: data.seq_length,
        resume="meaning",
    )
    random_ltd_duration: int | None = flag(None, "steps until the end length", resume="meaning")
    random_ltd_quantum: int = flag(16, "kept lengths are multiples of this", resume="meaning")
    random_ltd_layers: str | None = flag(
        None, "layers that drop, from 0, e.g. 1-22; all but the first and the last", resume="meaning"
    )
    data_efficiency_config: str | None = flag(
        None,
        "JSON file with a DeepSpeed data_efficiency section",
        aliases=("--deepspeed_config", "--deepspeed-config"),
        metavar="FILE",
        resume="meaning",
    )
    data_efficiency_seed: int = flag(
        None,
        "seed of the order of samples; --seed",
        follows=lambda training: training.seed,
        resume="meaning",
    )
    reference_schedules: bool = flag(
        False, "schedules exactly as DeepSpeed 0.19.8 computes them, late arrivals included", resume="meaning"
    )


def given_dropping(data_efficiency: DataEfficiencyConfig, seq_length: int) -> list[str]:
    """The flags that say how --random-ltd drops, as far as they say something else than usual."""
    usual = {one.name: one.default for one in fields(DataEfficiencyConfig)}
    usual["random_ltd_max"] = seq_length
    return [
        spelling(name)
        for name in usual
        if name.startswith("random_ltd_") and getattr(data_efficiency, name) != usual[name]
    ]


def _idle_dropping(data_efficiency: DataEfficiencyConfig, data: DataConfig) -> list[str]:
    if data_efficiency.random_ltd:
        return []
    given = given_dropping(data_efficiency, data.seq_length)
    words = f"{', '.join(given)}: without effect, as --random-ltd is not given; give it, or leave them out"
    return [words] if given else []


RULES = (_idle_dropping,)
