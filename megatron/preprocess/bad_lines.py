"""What a tool does about lines, rows and files that hold no document: it fails, or leaves out so many and
names the first."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from megatron.base.errors import UserError
from megatron.config.flags import flag
from megatron.preprocess.documents import Piece, bad_record
from megatron.preprocess.records import BadRecord

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class BadLineOptions:
    on_bad_line: str = flag(
        "fail", "what to do where a line holds no document", choices=("fail", "skip"), metavar="WHAT"
    )
    max_bad_lines: int = flag(
        1000, "lines that --on-bad-line skip leaves out before it fails after all", at_least=0
    )


@dataclass
class LeftOut:
    """The lines that a run has left out: how many, and the first."""

    count: int = 0
    shown: list[str] = field(default_factory=list)


def refuse(piece: Piece, bad: Sequence[BadRecord], options: BadLineOptions) -> None:
    """UserError where a piece has bad lines and such are not to be skipped."""
    if bad and options.on_bad_line == "fail":
        raise UserError(
            f"{bad_record(piece, bad[0])}. Mend it, or leave such lines out with --on-bad-line skip"
        )


def leave_out(left_out: LeftOut, piece: Piece, bad: Sequence[BadRecord], options: BadLineOptions) -> None:
    """Count and note the bad lines of a piece. UserError where they become too many."""
    left_out.count += len(bad)
    left_out.shown += [bad_record(piece, one) for one in bad[: SHOWN - len(left_out.shown)]]
    if left_out.count > options.max_bad_lines:
        raise UserError(
            f"more than --max-bad-lines {options.max_bad_lines} lines hold no document; raise it, or mend "
            "them; the first:",
            *left_out.shown,
        )


def report(left_out: LeftOut) -> None:
    """Print what was left out, if anything was."""
    if left_out.count:
        print(
            f"left out {left_out.count} lines that hold no document; the first:", *left_out.shown, sep="\n  "
        )
