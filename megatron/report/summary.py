"""The arithmetic of a report: what each run came to, and how the runs compare at equal effective tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np

from megatron.base.units import amount, duration, exact, short
from megatron.report.records import RecordedRun, flags

OUTPUT_PATHS = ("--save", "--metrics-file", "--tensorboard-dir")
MISSING = "–"


def window(run: RecordedRun) -> int:
    """Steps that a smoothed column is a mean of: 1 % of the run."""
    return max(1, len(run.train["iteration"]) // 100)


def smoothed(values: np.ndarray, steps: int) -> np.ndarray:
    """Mean of the last `steps` values at every place, fewer at the start; values that are not finite are
    skipped."""
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0.0))
    counts = np.cumsum(finite)
    sums[steps:], counts[steps:] = sums[steps:] - sums[:-steps], counts[steps:] - counts[:-steps]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def validations(run: RecordedRun) -> tuple[np.ndarray, np.ndarray]:
    """Effective tokens and loss of every validation that gave a finite loss."""
    finite = np.isfinite(run.valid["lm_loss"])
    return run.valid["consumed_tokens"][finite], run.valid["lm_loss"][finite]


def validation_at(run: RecordedRun, tokens: np.ndarray) -> np.ndarray:
    """The validation loss after so many effective tokens, on the straight line between the validations
    around; NaN outside."""
    return np.interp(tokens, *validations(run), left=np.nan, right=np.nan)


def gap(run: RecordedRun, first: RecordedRun) -> tuple[np.ndarray, np.ndarray]:
    """Effective tokens where `first` validated and where the shorter of the two ended, and there the loss
    of `run` minus that of `first`. A chord lies above a falling curve, so what is read between validations
    does not flatter `run`."""
    mine, theirs = validations(run)[0], validations(first)[0]
    if not len(mine) or not len(theirs):
        return np.zeros(0), np.zeros(0)
    tokens = np.union1d(theirs, min(mine[-1], theirs[-1]))
    apart = validation_at(run, tokens) - validation_at(first, tokens)
    return tokens[np.isfinite(apart)], apart[np.isfinite(apart)]


def saved_share(run: RecordedRun) -> np.ndarray:
    """Share of layer tokens that dropping saved up to every step, against every raw token in every layer."""
    return 1 - run.train["consumed_tokens"] / run.train["raw_tokens"]


def facts(run: RecordedRun) -> dict[str, str]:
    """The run in words and numbers, one row of the table each, a line break before details."""
    train, steps = run.train, window(run)
    smooth = float(smoothed(train["lm_loss"], steps)[-1])
    return {
        "steps": exact(run.steps),
        "batch size": _range(train["batch_size"]),
        "effective tokens": _known(run.last("consumed_tokens"), _both),
        "raw tokens": _known(run.last("raw_tokens"), _both),
        "drawn tokens": _known(run.last("drawn_tokens"), _both),
        "layer tokens": _known(run.last("layer_tokens"), _both),
        "layer tokens saved": _known(float(saved_share(run)[-1]), "{:.1%}".format),
        "training time": _known(run.last("seconds"), duration),
        "median time of a step": _known(
            float(np.median(train["ms_per_iteration"])), lambda time: f"{time:,.1f} ms"
        ),
        "raw tokens a second": _known(_speed(train), exact),
        "training loss": _known(
            smooth, lambda loss: f"{loss:.4f}\nmean of the last {steps} steps" if steps > 1 else f"{loss:.4f}"
        ),
        "last validation loss": _last(run.valid["lm_loss"]),
        "best validation loss": _best(run),
        "test loss": _last(run.test["lm_loss"]),
    }


def _known(value: float, text: Callable[[float], str]) -> str:
    return text(value) if np.isfinite(value) else MISSING


def _both(number: float) -> str:
    return short(number) if short(number) == exact(number) else f"{short(number)}\n{exact(number)}"


def _range(values: np.ndarray) -> str:
    known = sorted(set(values[np.isfinite(values)].tolist()))
    return " to ".join(dict.fromkeys(map(exact, (known[0], known[-1])))) if known else MISSING


def _last(losses: np.ndarray) -> str:
    known = losses[np.isfinite(losses)]
    return f"{known[-1]:.4f}\nperplexity {np.exp(known[-1]):,.2f}" if len(known) else MISSING


def _best(run: RecordedRun) -> str:
    losses = run.valid["lm_loss"]
    if not np.isfinite(losses).any():
        return MISSING
    best = int(np.nanargmin(losses))
    return f"{losses[best]:.4f}\nat step {exact(run.valid['iteration'][best])}"


def _speed(train: dict[str, np.ndarray]) -> float:
    """Raw tokens a second, without the first step, which also warms up."""
    if len(train["seconds"]) < 2:
        return float("nan")
    return float(
        (train["raw_tokens"][-1] - train["raw_tokens"][0]) / (train["seconds"][-1] - train["seconds"][0])
    )


def statement(runs: list[RecordedRun]) -> str:
    """What was compared, as far as the records and run.json tell it."""
    count = {1: "One run", 2: "Two runs", 3: "Three runs"}.get(len(runs), f"{len(runs)} runs")
    told = [run.description.get("parameters") for run in runs]
    parameters = sorted({number for number in told if isinstance(number, int)})
    data = list(dict.fromkeys(_data(run.description["data"]) for run in runs if run.description.get("data")))
    model = f" of {' and '.join(map(exact, parameters))} parameters" if parameters else ""
    return " ".join([f"{count}{model}{' on ' + ' and '.join(data) if data else ''}.", *map(_described, runs)])


def _data(data: Any) -> str:
    """The corpora of a run in words; a text stays as it is."""
    if not isinstance(data, list):
        return str(data)
    parts = []
    for corpus in data:
        weight = f", weight {corpus['weight']:g}" if corpus.get("weight") is not None else ""
        parts.append(f"{corpus['name']} ({exact(corpus['samples'])} samples{weight})")
    return ", ".join(parts)


def _described(run: RecordedRun) -> str:
    train = run.train
    parts = [_growth(train["iteration"], train["seq_length"], "sequence length", " tokens")]
    if (train["kept_length"] < train["seq_length"]).any():
        parts.append(_growth(train["iteration"], train["kept_length"], "kept length", " tokens"))
    parts += [_growth(train["iteration"], values, f"{metric} cap", "") for metric, values in run.caps.items()]
    known = ", ".join(part for part in parts if part)
    planned = run.description.get("steps", 0)
    steps = f"{exact(run.steps)} of {exact(planned)} planned" if run.steps < planned else exact(run.steps)
    return (
        f"{run.name} took {steps} steps over {short(run.last('consumed_tokens'))} effective "
        f"tokens{known and f': {known}'}."
    )


def _growth(iteration: np.ndarray, values: np.ndarray, what: str, unit: str) -> str:
    """A schedule in words: "sequence length from 64 to 512 tokens by step 160"; nothing where it was not
    recorded."""
    if not np.isfinite(values).all():
        return ""
    last = exact(values[-1]) + unit
    changes = np.flatnonzero(values != values[-1])
    return (
        f"{what} from {exact(values[0])} to {last} by step {exact(iteration[changes[-1] + 1])}"
        if len(changes)
        else f"{what} {last}"
    )


def reading(runs: list[RecordedRun]) -> list[str]:
    """What the validation losses say at the most effective tokens that a run and the first both reached,
    and what they do not."""
    judged = [run for run in runs if len(validations(run)[0])]
    if len(judged) < 2:
        return ["Fewer than two runs hold a validation loss, so no comparison is made."]
    lines = [line for run in judged[1:] for line in _compared(run, judged[0])]
    if len({run.description.get("vocab_size") for run in judged if run.description}) > 1:
        lines.append(
            "The runs have different vocabularies, so their losses are not comparable; bits per byte are."
        )
    return [
        *lines,
        "Each run is a single seed: this describes these runs, and nothing beyond them is claimed.",
    ]


def _compared(run: RecordedRun, first: RecordedRun) -> list[str]:
    """A sentence on two runs at equal effective tokens, and one where either went on past that point."""
    reached = {one.name: float(validations(one)[0][-1]) for one in (first, run)}
    budget = min(reached.values())
    loss, reference = (float(validation_at(one, np.array(budget))) for one in (run, first))
    if not np.isfinite(loss - reference):
        return [
            f"{run.name} and {first.name} cannot be compared: the longer one has no validation before the "
            "shorter one's last."
        ]
    apart = f"{abs(loss - reference):.4f} nats {'below' if loss < reference else 'above'} that"
    if apart.startswith("0.0000"):
        apart = "to four digits that"
    words = (
        f"the validation loss of {run.name} was {apart} of {first.name} ({loss:.4f} against {reference:.4f})."
    )
    longer = [
        f"{name} went on to {short(tokens)} effective tokens, so it is read there before its end."
        for name, tokens in reached.items()
        if tokens > 1.01 * budget
    ]
    return [f"At {amount(budget)} effective tokens, {words}", *longer]


def differences(runs: list[RecordedRun]) -> list[list[str]]:
    """Rows of a setting and its value in every run, for the settings that differ between the runs that
    left a run.json. Where output goes is no difference."""
    settings = [_settings(run) for run in runs]
    known = [i for i, run in enumerate(runs) if run.description]
    names = [
        name for name in dict.fromkeys(name for one in settings for name in one) if name not in OUTPUT_PATHS
    ]
    rows = [[name, *(_value(one, name) for one in settings)] for name in names]
    return [row for row in rows if len({row[i + 1] for i in known}) > 1]


def _settings(run: RecordedRun) -> dict[str, Any]:
    """Flags, and what else run.json tells that may change numbers or speed."""
    settings = flags(run)
    if settings.get("--load") == settings.get("--save"):
        settings.pop("--load", None)
    settings |= {
        name: run.description[name]
        for name in ("parameters", "vocab_size", "world_size", "device")
        if name in run.description
    }
    if run.description.get("data"):
        settings["data"] = _data(run.description["data"])
    for group in ("versions", "environment"):
        settings |= {f"{group}: {name}": value for name, value in run.description.get(group, {}).items()}
    return settings


def _value(settings: dict[str, Any], name: str) -> str:
    """A setting as it would be typed."""
    value = settings.get(name)
    if value is None or value == []:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
