"""What holds while a command imports: Ctrl-C, an old Python, and what Python lacks end it with one line. This
imports the standard library alone, and Python 3.8 reads it."""

import os
import signal
import sys
from types import FrameType

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
FOLDERS = [ROOT, *(os.path.join(ROOT, name) for name in ("tools", "scripts", "benchmarks"))]
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e . && . .venv/bin/activate"


def begin() -> None:
    """Stand by, where this process is a command of this tree; others have their own ways."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is None or os.path.dirname(os.path.realpath(main)) not in FOLDERS:
        return
    if sys.hexversion < 0x30B0000:
        version = sys.version.split()[0]
        sys.exit(_say(2, f"error: Python 3.11 or newer is needed, not {version}; {environment()}"))
    sys.excepthook = _last_resort
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def imports_are_done() -> None:
    """All is imported: Ctrl-C is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def missing_module(error: BaseException) -> str:
    """Which module this Python lacks, and the way out; "" for any other error, and for a bug of this tree."""
    name = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if not name or os.path.exists(os.path.join(ROOT, name.split(".")[0])):
        return ""
    return f"{sys.executable} has no module {name}; {environment()}"


def environment() -> str:
    """The way into an environment that has all, as words to paste."""
    from shlex import quote

    folder = os.path.join(ROOT, ".venv")
    script = os.path.join(folder, "bin", "activate")
    if os.path.exists(script) and os.path.realpath(sys.prefix) != os.path.realpath(folder):
        return f"enter the environment first: . {quote(os.path.relpath(script))}"
    move = "" if os.path.realpath(os.curdir) == ROOT else f"cd {quote(ROOT)} && "
    return f"make the environment first: {move}{INSTALL}"


def _leave(number: int, frame: "FrameType | None") -> None:
    """Nothing is begun yet, so there is nothing to clean; a library might catch an exception."""
    os._exit(_say(130, "interrupted"))


def _last_resort(kind, error, trace) -> None:  # type: ignore[no-untyped-def]
    """What no command has caught, because it was still importing, or because it is a bug."""
    problem = missing_module(error)
    if problem:
        sys.exit(_say(2, f"error: {problem}"))
    sys.__excepthook__(kind, error, trace)


def _say(status: int, line: str) -> int:
    """Print the line and give the status. All ranks meet the same at once, so the first alone speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
    return status


begin()
