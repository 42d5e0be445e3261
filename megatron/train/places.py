"""Where a run writes: every place is held by one run at a time, and knows which run was the last in it."""

from pathlib import Path

from megatron.config.config import Config
from megatron.train.records import Start


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
