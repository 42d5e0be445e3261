"""Rules over a curriculum and random-LTD as a whole, wherever they were described."""

from megatron.schedule.data_efficiency import RESHAPE, TRUNCATE, CurriculumMetric, RandomLTD
from megatron.schedule.pacing import Pacing, pacing_problems

LENGTHS = (TRUNCATE, RESHAPE)


def broken_rules(
    metrics: list[CurriculumMetric],
    random_ltd: RandomLTD | None,
    seq_length: int,
    num_layers: int,
    reference_schedules: bool,
) -> list[str]:
    """What is wrong, one line a problem."""
    problems = [line for metric in metrics for line in _metric(metric, seq_length, reference_schedules)]
    names = [metric.name for metric in metrics]
    if all(length in names for length in LENGTHS):
        problems.append(
            "curriculum: a sequence is either truncated or reshaped; give only one of seqlen_truncate "
            "and seqlen_reshape"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"curriculum {name}: the metric is given twice; keep one" for name in twice]
    if random_ltd:
        problems += _kept_length(random_ltd, seq_length)
        problems += _layers(random_ltd, num_layers)
    return problems


def _metric(metric: CurriculumMetric, seq_length: int, reference_schedules: bool) -> list[str]:
    name = f"curriculum {metric.name}"
    problems = pacing_problems(metric.pacing, name, reference_schedules)
    if metric.difficulty not in ("value", "percentile"):
        problems.append(f"{name}: difficulty {metric.difficulty!r} is unknown; choose value or percentile")
    if metric.name in LENGTHS:
        return problems + _length(metric, name, seq_length)
    largest, smallest = _largest(metric.pacing), metric.pacing.minimum
    if metric.difficulty == "percentile" and smallest < 0:
        problems.append(f"{name}: minimum {smallest} is below 0, and a percentile is at least that; raise it")
    if metric.difficulty == "percentile" and largest > 100:
        problems.append(f"{name}: maximum {largest} is above 100, and a percentile is at most that; lower it")
    return problems


def _largest(pacing: Pacing) -> int:
    """The largest value that a pacing takes; a maximum that fixed_discrete does not reach does not count."""
    return max(pacing.values, default=0) if pacing.curve == "fixed_discrete" else pacing.maximum


def _length(metric: CurriculumMetric, name: str, seq_length: int) -> list[str]:
    pacing, problems = metric.pacing, []
    largest = _largest(pacing)
    if largest > seq_length:
        problems.append(f"{name}: maximum {largest} is above --seq-length {seq_length}; lower it")
    of_curve = {"fixed_discrete": min(pacing.values, default=1), "custom": 1}
    if of_curve.get(pacing.curve, pacing.minimum) < 1:
        problems.append(f"{name}: a sequence has at least one token; raise the minimum")
    if metric.difficulty != "value":
        problems.append(f"{name}: a length is a value; write difficulty=value")
    return problems


def _kept_length(random_ltd: RandomLTD, seq_length: int) -> list[str]:
    pacing = random_ltd.pacing
    problems = pacing_problems(pacing, "random-LTD")
    if pacing.maximum > seq_length:
        problems.append(
            f"random-LTD: kept length {pacing.maximum} is above --seq-length {seq_length}; lower it"
        )
    if pacing.minimum < 1:
        problems.append(f"random-LTD: kept length {pacing.minimum} must be at least 1")
    return problems


def _layers(random_ltd: RandomLTD, num_layers: int) -> list[str]:
    layers, problems = random_ltd.layers, []
    if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
        problems.append(f"random-LTD: layers {twice} are given twice; name each once")
    if outside := [layer for layer in layers if not 0 <= layer < num_layers]:
        problems.append(f"random-LTD: layers {outside} are outside 0-{num_layers - 1}; name others")
    if not layers:
        problems.append(
            f"random-LTD: none of {num_layers} layers drops tokens; name some by --random-ltd-layers (in a "
            "JSON by random_ltd_layer_id), or give more layers"
        )
    return problems
