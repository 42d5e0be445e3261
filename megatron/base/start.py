"""What holds while a command imports: Ctrl-C, an old Python, and what Python lacks end it with one line. This
imports the standard library alone, and Python 3.8 reads it."""

import os
import signal
import sys
import time
from types import FrameType

BEGAN = time.perf_counter()
"""When this process began, but for what Python itself takes."""

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
    os.environ["MPLBACKEND"] = "agg"  # a notebook leaves its own to what it starts, which may lack that
    sys.excepthook = _last_resort
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def imports_are_done() -> None:
    """All is imported: Ctrl-C is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def missing_module(error: BaseException) -> str:
    """Which module this Python lacks or fails to import, and the way out; "" for any other error, and for a
    bug of this tree."""
    package = _failed_import(error)
    name = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if name and not _is_ours(name):
        needed = f", which {package} needs; install it, or" if package else ";"
        return f"{sys.executable} has no module {name}{needed} {environment()}"
    if package:
        why = " ".join(str(error).split()) or type(error).__name__
        return (
            f"{package} cannot be imported by {sys.executable}: {why}; install it again, or {environment()}"
        )
    return ""


def _failed_import(error: BaseException) -> str:
    """The package outside this tree whose import has ended in an error, the first on the way to it; "" where
    none has."""
    trace = error.__traceback__ if isinstance(error, Exception) else None
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "__main__")).split(".")[0]
        if trace.tb_frame.f_code.co_name == "<module>" and name != "__main__" and not _is_ours(name):
            return name
        trace = trace.tb_next
    if isinstance(error, ModuleNotFoundError) or not isinstance(error, ImportError):
        return ""
    name = error.name or ""  # of a package that lacks what this tree wants of it
    return "" if not name or _is_ours(name) else name.split(".")[0]


def _is_ours(module: str) -> bool:
    return os.path.exists(os.path.join(ROOT, module.split(".")[0]))


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
