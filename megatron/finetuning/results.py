"""What a finished run of finetuning came to, as its folder keeps it."""

import json
from pathlib import Path
from typing import Any, Protocol

from megatron.base.errors import UserError

RESULTS = "results.json"
Results = dict[str, Any]


class Described(Protocol):
    """A run before its ranks meet."""

    def describe(self) -> dict[str, Any]:
        """What two runs have in common that come to the same results, with their flags under `flags`."""
        ...


def earlier_results(folder: Path, job: Described) -> Results | None:
    """The results of this very run, where it has ended in the folder before; UserError where another has."""
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        theirs, flags = dict(found["run"]), dict(found["run"]["flags"])
        in_words(found)  # which a sweep reads, too
        float(found["seconds"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is no file of results; move it away") from None
    mine = json.loads(json.dumps(job.describe()))
    names = dict.fromkeys([*mine, *theirs])
    other = [name for name in names if theirs.get(name) != mine.get(name) and name != "flags"]
    other += [f"--{name.replace('_', '-')}" for name, one in mine["flags"].items() if flags.get(name) != one]
    if other:
        raise UserError(
            f"{path}: is of another run, which differs in {', '.join(other[:5])}; choose another --save"
        )
    return found


def in_words(results: Results) -> str:
    """The metrics in a line."""
    return ", ".join(
        f"{split} {name} {value:.4f}"
        for split, values in results["metrics"].items()
        for name, value in values.items()
    )
