"""The frame of every command, imported before all else: a mistake of the user ends it with one line and exit
status 2."""

from megatron.base.start import imports_are_done, missing_module

import ctypes
import gc
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from megatron.base.errors import RanksLost, UserError, system_problem
from megatron.base.output import flush, nobody_reads, open_closed

PR_SET_PDEATHSIG = 1
"""Of prctl(2): which signal comes when the parent ends."""


def run_command(main: Callable[[], None], ranks: bool = False) -> None:
    """Run a command. A user's mistake or a failed file operation ends it with its message and status 2.
    `ranks`: torchrun may start it several times; of any other command the first process works alone."""
    imports_are_done()
    if not ranks and _is_idle():
        _exit(0)
    _end_with_torchrun()
    _print_everything()
    gc.freeze()  # imported modules stay: a collection that looks through them takes a tenth of a second
    try:
        main()
        sys.stdout.flush()  # what the system refuses is told here, and not behind the last line
    except UserError as error:
        _stop(2, [f"error: {problem}" for problem in error.problems], isinstance(error, RanksLost))
    except KeyboardInterrupt:
        _stop(130, ["interrupted"])
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads(1):
            _exit(1)
        if problem := system_problem(error) or missing_module(error):
            _stop(2, [f"error: {problem}"])
        if "RANK" not in os.environ:
            raise
        traceback.print_exc()
        _exit(1)
    _exit(0)


def _is_idle() -> bool:
    """Whether torchrun has started this process beside another one, which does the same work."""
    count, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if "TORCHELASTIC_RUN_ID" not in os.environ or count == "1":
        return False
    if rank == "0":
        words = "this command works in one process, and the others have ended; start it without torchrun"
        print(f"note: {words}", file=sys.stderr, flush=True)
    return rank != "0"


def _end_with_torchrun() -> None:
    """Have Linux send SIGTERM, by which a run saves and stops, once the torchrun that has started this rank
    is gone. One that is killed alone would leave ranks behind that nobody sees and that hold the GPUs."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _print_everything() -> None:
    """What the encoding of the output lacks is shown by its number, as in error messages: no text that is
    read or generated may end a command."""
    open_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _stop(status: int, lines: list[str], at_once: bool = False) -> None:
    """Print and exit. Every rank meets most mistakes at once, so ranks above 0 wait to be stopped before
    they speak."""
    from megatron.base.files import remove_empty_folders  # what the frame needs is no more than itself

    rank = os.environ.get("RANK", "0")
    remove_empty_folders()
    if rank != "0":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(0 if at_once else 5)
        lines = [f"[rank {rank}] {line}" for line in lines]
    flush()
    with suppress(OSError):  # who reads it is gone, or its disk full, and the status is all that is left
        print("\n".join(lines), file=sys.stderr, flush=True)
    _tell_torchrun("\n".join(lines))
    _exit(status)


def _tell_torchrun(text: str) -> None:
    """Leave the message where torchrun looks for it, as torch.distributed.elastic's ErrorHandler does: its
    report, which comes last, then names the mistake. That report and its status 1 are not ours to change."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        details = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": text, "extraInfo": details}}, file)


def _exit(status: int) -> None:
    """End the process. One of several ranks leaves without taking the interpreter down: a thread of the
    communication library that still lets go of a tensor then would abort it (seen with gloo on a busy
    machine, about one start in twenty)."""
    flush()
    if "RANK" in os.environ:
        os._exit(status)
    if status:
        sys.exit(status)
