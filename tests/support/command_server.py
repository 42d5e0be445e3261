"""A process that has imported all of this tree, and forks a command whenever one is asked for: it then starts
in a tenth of the time. `tests/support/commands.py` starts it. A line of its input is the JSON of an Asked,
and a line of its output the status that the command ended with."""

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TOO_LATE = "its time is over"


class Asked(NamedTuple):
    """A script with its arguments, the environment and folder that it runs in, the files that its output and
    errors go to, and how many seconds it may take."""

    words: list[str]
    ranks: int
    environment: dict[str, str]
    folder: str
    output: str
    errors: str
    seconds: float


def serve() -> None:
    """Run commands until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[0] = str(ROOT)
    for path in sorted((ROOT / "megatron").rglob("*.py")):
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for line in sys.stdin:
        print(json.dumps(_run(Asked(**json.loads(line)))), file=answers, flush=True)


def _run(asked: Asked) -> int | str:
    """The status of a command. Of several ranks, one that fails ends the others, and 1 is the status, as
    torchrun has it."""
    meeting = _meeting(asked.ranks)
    running = {_fork(asked, meeting | _place(rank, asked.ranks)) for rank in range(asked.ranks)}
    statuses, end = [], time.monotonic() + asked.seconds
    while running and not any(statuses):
        if time.monotonic() > end:
            _end(running, signal.SIGKILL)
            return TOO_LATE
        for child, status in [os.waitpid(child, os.WNOHANG) for child in running]:
            running -= {child}
            statuses += [os.waitstatus_to_exitcode(status)] if child else []
        time.sleep(0.002)
    _end(running, signal.SIGTERM)
    return statuses[0] if asked.ranks == 1 else int(any(statuses))


def _meeting(ranks: int) -> dict[str, str]:
    """Where ranks meet, as torchrun tells it."""
    if ranks == 1:
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": port}


def _place(rank: int, ranks: int) -> dict[str, str]:
    """A rank's own part of the environment."""
    if ranks == 1:
        return {}
    places = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    return places | dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(ranks))


def _fork(asked: Asked, place: dict[str, str]) -> int:
    if child := os.fork():
        return child
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in ((1, asked.output), (2, asked.errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.environ.clear()
        os.environ.update(asked.environment | place)
        os.chdir(asked.folder)
        status = _call(asked.words)
    finally:
        os._exit(status)


def _call(words: list[str]) -> int:
    """Run a script, or the code behind -c, as the interpreter does, to its exit status."""
    code = words[0] == "-c"
    sys.argv, status = words[:1] + words[2:] if code else words, 0
    sys.path[0] = "" if code else str(Path(words[0]).resolve().parent)
    try:
        if code:
            exec(words[1], {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ending:
        status = _status_of(ending.code)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _status_of(code: str | int | None) -> int:
    if isinstance(code, str):
        print(code, file=sys.stderr)
    return 1 if isinstance(code, str) else code or 0


def _end(children: set[int], number: int) -> None:
    """Send a signal, and SIGKILL to what has not ended 30 s later."""
    for child in children:
        os.kill(child, number)
    end = time.monotonic() + 30
    for child in children:
        while not os.waitpid(child, os.WNOHANG)[0]:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)


if __name__ == "__main__":
    serve()
