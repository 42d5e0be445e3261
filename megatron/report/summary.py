"""What each run of a report came to, in numbers and in words."""

from collections.abc import Callable

import numpy as np

from megatron.base.units import duration, exact, perplexity, short
from megatron.report.comparison import batch_size, loss_in_words, scored, steps_taken, validated, validations
from megatron.report.conditions import MISSING, active_parameters, data_in_words
from megatron.report.records import RecordedRun


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


def saved_share(run: RecordedRun) -> np.ndarray:
    """Share of layer tokens that dropping saved up to every step, against every raw token in every layer."""
    return 1 - run.train["consumed_tokens"] / run.train["raw_tokens"]


def facts(run: RecordedRun) -> dict[str, str]:
    """The run in words and numbers, one row of the table each, a line break before details."""
    train, steps, losses = run.train, window(run), validations(run)[1]
    smooth = float(smoothed(train["lm_loss"], steps)[-1])
    averaged = f"\nmean of the last {steps} steps" if steps > 1 else ""
    return {
        "steps": exact(run.steps),
        "batch size": batch_size(run) or MISSING,
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
        "training loss": _known(smooth, lambda loss: loss_in_words(loss) + averaged),
        "last validation loss": _measured(run, -1),
        "best validation loss": _measured(run, int(np.argmin(losses)) if len(losses) else -1),
        "test loss": _test(run),
    }


def _known(value: float, text: Callable[[float], str]) -> str:
    return text(value) if np.isfinite(value) else MISSING


def _both(number: float) -> str:
    return short(number) if short(number) == exact(number) else f"{short(number)}\n{exact(number)}"


def _test(run: RecordedRun) -> str:
    """The last test loss and what it is of."""
    known = scored(run.test)
    if not len(known):
        return MISSING
    loss, windows = (float(run.test[name][known[-1]]) for name in ("lm_loss", "windows"))
    return _loss_cell(run, loss, windows)


def _measured(run: RecordedRun, number: int) -> str:
    """The loss of a validation, its perplexity and where it stands."""
    if not validated(run):
        return MISSING
    place = scored(run.valid)[number]
    tokens, loss, windows = (
        float(run.valid[name][place]) for name in ("consumed_tokens", "lm_loss", "windows")
    )
    return _loss_cell(run, loss, windows, steps_taken(run, tokens))


def _loss_cell(run: RecordedRun, loss: float, windows: float, *more: str) -> str:
    """A loss, its perplexity where it is of tokens, and the number of windows that it is a mean over, where
    that is known."""
    what, likely = ("images", ()) if run.of_images else ("windows", (f"perplexity {perplexity(loss):,.2f}",))
    known = (f"{exact(windows)} {what}",) if np.isfinite(windows) else ()
    details = [*likely, *more, *known]
    return f"{loss_in_words(loss)}\n" + ", ".join(details)


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
    parameters = list(dict.fromkeys(size for run in runs if (size := _size(run))))
    known = [run.description["data"] for run in runs if run.description.get("data")]
    data = list(dict.fromkeys(map(data_in_words, known)))
    model = f" of {' and '.join(parameters)} parameters" if parameters else ""
    return " ".join([f"{count}{model}{' on ' + ' and '.join(data) if data else ''}.", *map(_described, runs)])


def _size(run: RecordedRun) -> str:
    """The parameters of a model, and how many of them are active for a token."""
    whole, active = run.description.get("parameters"), active_parameters(run)
    if not isinstance(whole, int):
        return ""
    return exact(whole) if active is None else f"{exact(whole)} ({exact(active)} active)"


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
