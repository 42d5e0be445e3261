"""Where a run writes: every place is held by one run at a time, and knows which run was the last in it."""

import platform
import secrets
from collections.abc import Callable
from pathlib import Path

from megatron.base.errors import UserError
from megatron.base.files import checksum
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.manifest import NAME
from megatron.config.config import Config
from megatron.parallel.mesh import Mesh, together
from megatron.train.records import Start

SHARE = "name a folder that all machines share, by its whole path"


def metrics_path(config: Config) -> Path | None:
    """Where the records go: --metrics-file, else metrics.jsonl in the --save folder."""
    if config.logging.metrics_file:
        return Path(config.logging.metrics_file)
    return Path(config.checkpoint.save) / "metrics.jsonl" if config.checkpoint.save else None


def locks(config: Config) -> list[Path]:
    """Files whose locks keep other runs from this one's checkpoints, records and events. A file has one lock,
    whichever flag and path name it."""
    training, records = not config.training.skip_train, metrics_path(config)
    folders = [config.checkpoint.save, config.logging.tensorboard_dir] if training else []
    places = [_lock_of_folder(Path(folder)) for folder in folders if folder]
    if records and (training or config.logging.metrics_file):
        places.append(_lock_of_file(records))
    return list(dict.fromkeys(places))


def require_shared(folder: str, mesh: Mesh) -> None:
    """UserError where a rank does not see in a folder what the first one writes there: its machine has a
    folder of its own, and a checkpoint would be in pieces."""
    name, here = f".seen-{secrets.token_hex(8)}", platform.node()

    def write() -> bytes:
        if mesh.first:
            (Path(folder) / name).touch()
        return f"{name} {here}".encode()

    written = [one.decode().split(" ", 1) for one in together(write, mesh)]
    probe = Path(folder) / written[0][0]
    seen = together(lambda: b"1" if probe.exists() else b"", mesh)
    if mesh.first:
        probe.unlink(missing_ok=True)
    if b"" in seen:
        rank = seen.index(b"")
        raise UserError(
            f"--save {folder}: rank {rank} on {written[rank][1]} does not see there what rank 0 on "
            f"{written[0][1]} writes; {SHARE}"
        )


def find_together(root: str, iteration: int | None, tell: Callable[[str], None], mesh: Mesh) -> Path | None:
    """The checkpoint below `root` that all ranks find; UserError where some find another one, or none."""
    folder = None

    def find() -> bytes:
        nonlocal folder
        folder = find_checkpoint(root, iteration, tell)
        name, content = (folder.name, checksum(folder / NAME)) if folder else ("none", "")
        return "\n".join([name, content, platform.node()]).encode()

    found = [one.decode().split("\n") for one in together(find, mesh)]
    other = next((rank for rank, one in enumerate(found) if one[:2] != found[0][:2]), None)
    if other is not None:
        names = [f"rank {rank} on {found[rank][2]} finds {found[rank][0]}" for rank in (0, other)]
        what = "" if found[0][0] != found[other][0] else " of another content"
        raise UserError(f"--load {root}: {' and '.join(names)}{what} there; {SHARE}")
    return folder


def start_in(place: Path, start: Start, run: str) -> Start:
    """How a run starts in the folder or file that it writes to, which is noted in its lock: nothing there is
    its own where another run was there last."""
    lock = _lock_of_folder(place) if place.is_dir() else _lock_of_file(place)
    last = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    if last != run:
        lock.write_text(run, encoding="utf-8")  # the file itself, as it is the one that is locked
    return start._replace(kept=0, afresh=True) if last not in ("", run) else start


def _lock_of_folder(folder: Path) -> Path:
    return folder.resolve() / ".lock"


def _lock_of_file(path: Path) -> Path:
    path = path.resolve()
    return path.with_name(f".{path.name}.lock")
