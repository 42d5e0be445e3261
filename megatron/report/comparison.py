"""Runs compared by their validation losses: at their ends, and at equal effective tokens."""

import numpy as np

from megatron.base.units import count_of, exact
from megatron.report.conditions import MISSING
from megatron.report.records import RecordedRun

DIGITS = 4  # of a loss, wherever it is shown


def validations(run: RecordedRun) -> tuple[np.ndarray, np.ndarray]:
    """Effective tokens and loss of every validation that gave a finite loss."""
    finite = scored(run.valid)
    return run.valid["consumed_tokens"][finite], run.valid["lm_loss"][finite]


def scored(records: dict[str, np.ndarray]) -> np.ndarray:
    """Places of the validation or test records that hold a finite loss."""
    return np.flatnonzero(np.isfinite(records["lm_loss"]))


def validated(run: RecordedRun) -> bool:
    """Whether any validation gave a finite loss."""
    return len(scored(run.valid)) > 0


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


def reading(runs: list[RecordedRun]) -> list[str]:
    """What the validation losses say at the ends of the runs and at the most effective tokens that all have
    reached, and what they do not."""
    judged = list(filter(validated, runs))
    if len(judged) < 2:
        return ["Fewer than two runs hold a validation loss, so no comparison is made."]
    first, *others = judged
    common = common_tokens(judged)
    lines = [_at_the_ends(run, first) for run in others]
    if ends_differ(judged):
        lines += [_at_equal_tokens(run, first, common) for run in others]
    lines += [line for run in others for line in _causes(run, first, common)]
    if len({run.description.get("vocab_size") for run in judged if run.description}) > 1:
        lines.append(
            "The runs have different vocabularies, so their losses are not comparable; bits per byte are."
        )
    return [
        *lines,
        *(_other_windows(judged, "validation") or _other_windows(judged, "test")),
        "Each run is a single seed: this describes these runs, and nothing beyond them is claimed.",
    ]


def _other_windows(runs: list[RecordedRun], what: str) -> list[str]:
    """A warning where the last validations, or tests, scored different numbers of windows."""
    records = {run.name: run.test if what == "test" else run.valid for run in runs}
    last = {name: one["windows"][scored(one)[-1:]].tolist() for name, one in records.items()}
    return other_windows({name: windows[0] for name, windows in last.items() if windows}, what)


def other_windows(windows: dict[str, float], what: str) -> list[str]:
    """A warning where losses by name are of different numbers of windows, as far as these are known."""
    known = {name: number for name, number in windows.items() if np.isfinite(number)}
    if len(set(known.values())) < 2:
        return []
    counts = ", ".join(f"{name} on {exact(number)}" for name, number in known.items())
    return [
        f"Warning: the {what} losses are of different numbers of windows ({counts}), so of different texts. "
        "A difference between them may come from that alone."
    ]


def at_equal_tokens(runs: list[RecordedRun]) -> list[list[str]]:
    """A row of a table with the losses at the most effective tokens that all have reached; none where that is
    the end of all."""
    judged = list(filter(validated, runs))
    if len(judged) < 2 or not ends_differ(judged):
        return []
    common = common_tokens(judged)
    losses = [float(validation_at(run, np.array(common))) if validated(run) else np.nan for run in runs]
    cells = [
        f"{loss_in_words(loss)}\n{steps_taken(run, common)}" if np.isfinite(loss) else MISSING
        for run, loss in zip(runs, losses)
    ]
    return [[f"validation loss at {exact(common)} effective tokens", *cells]]


def common_tokens(judged: list[RecordedRun]) -> float:
    """The most effective tokens up to which all of the runs were validated."""
    return float(min(validations(run)[0][-1] for run in judged))


def ends_differ(judged: list[RecordedRun]) -> bool:
    """Whether some runs were validated after clearly more effective tokens than others."""
    return bool(max(validations(run)[0][-1] for run in judged) > 1.01 * common_tokens(judged))


def loss_in_words(loss: float) -> str:
    return f"{loss:.{DIGITS}f}"


def steps_taken(run: RecordedRun, tokens: float) -> str:
    """The steps that a run took for so many effective tokens, in words."""
    return f"{exact(_steps_at(run, tokens))} steps"


def _steps_at(run: RecordedRun, tokens: float) -> float:
    reached = int(np.searchsorted(run.train["consumed_tokens"], tokens))
    return float(run.train["iteration"][min(reached, len(run.train["iteration"]) - 1)])


def _at_the_ends(run: RecordedRun, first: RecordedRun) -> str:
    (mine, my_counts), (theirs, their_counts) = map(_end, (run, first))
    return (
        f"At its last validation ({my_counts}) the loss of {run.name} was {_apart(mine, theirs)} that of "
        f"{first.name} at its last ({their_counts}): {loss_in_words(mine)} against {loss_in_words(theirs)}."
    )


def _end(run: RecordedRun) -> tuple[float, str]:
    """The last validation loss, and after how many steps and tokens."""
    last = scored(run.valid)[-1]
    loss, effective, raw = (
        float(run.valid[name][last]) for name in ("lm_loss", "consumed_tokens", "raw_tokens")
    )
    more = f" and {exact(raw)} raw" if np.isfinite(raw) else ""
    return loss, f"{steps_taken(run, effective)}, {exact(effective)} effective{more} tokens"


def _at_equal_tokens(run: RecordedRun, first: RecordedRun, common: float) -> str:
    mine, theirs = (float(validation_at(one, np.array(common))) for one in (run, first))
    if not np.isfinite(mine - theirs):
        return (
            f"{run.name} and {first.name} cannot be compared at equal effective tokens: the longer one "
            "has no validation before the shorter one's last."
        )
    return (
        f"At {exact(common)} effective tokens, which all have reached, the validation loss of {run.name} "
        f"({steps_taken(run, common)}) was {_apart(mine, theirs)} that of {first.name} "
        f"({steps_taken(first, common)}): {loss_in_words(mine)} against {loss_in_words(theirs)}."
    )


def _apart(mine: float, theirs: float) -> str:
    """The difference of two losses, as the digits that are shown tell it."""
    apart = round(mine, DIGITS) - round(theirs, DIGITS)
    if loss_in_words(abs(apart)) == loss_in_words(0):
        return f"to {DIGITS} digits"
    return f"{loss_in_words(abs(apart))} nats {'below' if apart < 0 else 'above'}"


def _causes(run: RecordedRun, first: RecordedRun, common: float) -> list[str]:
    """What besides the method may have made a difference between two runs."""
    return [*_more_steps(run, first, common), *_other_batches(run, first), *_other_ranks(run, first)]


def _more_steps(run: RecordedRun, first: RecordedRun, common: float) -> list[str]:
    """A sentence where one of two took more steps for the same effective tokens, and came lower."""
    shorter, longer = sorted((first, run), key=lambda one: _steps_at(one, common))
    few, many = _steps_at(shorter, common), _steps_at(longer, common)
    high, low = (float(validation_at(one, np.array(common))) for one in (shorter, longer))
    if many <= 1.01 * few or not round(low, DIGITS) < round(high, DIGITS):
        return []
    return [
        f"For the first {exact(common)} effective tokens {longer.name} took {exact(many)} steps and "
        f"{shorter.name} {exact(few)}: more steps, too, are a possible cause of a difference."
    ]


def batch_size(run: RecordedRun) -> str:
    """Samples of a step, from the fewest to the most; "" where no record has them."""
    sizes = run.train["batch_size"]
    known = sorted(set(sizes[np.isfinite(sizes)].tolist()))
    return " to ".join(dict.fromkeys(map(exact, (known[0], known[-1])))) if known else ""


def _other_batches(run: RecordedRun, first: RecordedRun) -> list[str]:
    mine, theirs = batch_size(run), batch_size(first)
    if not mine or not theirs or mine == theirs:
        return []
    return [
        f"{run.name} took {mine} samples a step and {first.name} {theirs}: the batch size, too, is a "
        "possible cause of a difference."
    ]


def _other_ranks(run: RecordedRun, first: RecordedRun) -> list[str]:
    mine, theirs = (one.description.get("world_size") for one in (run, first))
    if not mine or not theirs or mine == theirs:
        return []
    return [
        f"{run.name} ran on {count_of(mine, 'rank')} and {first.name} on {exact(theirs)}: times do not "
        "compare, and losses do so to rounding at best."
    ]
