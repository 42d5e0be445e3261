"""metrics.jsonl: one JSON record an iteration in full precision, cut where a run goes on."""

import json
from datetime import datetime
from pathlib import Path

from megatron.base.files import whole_file, writable_folder
from megatron.train.records import Record


class JsonRecords:
    """Appends the fields of every record to a file, a line each."""

    def __init__(self, path: Path):
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115, close() closes it

    def write(self, record: Record) -> None:
        self.file.write(json.dumps(record.fields) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def cut_records(path: Path, start: int, finished: bool, afresh: bool) -> None:
    """Leave the records of the first `start` steps. `finished`: the last validation will be repeated;
    `afresh`: what is cut off belongs to another run, and the old file is kept under another name."""
    writable_folder(path.parent)
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if _is_past(line, start, finished)]
    if afresh and len(kept) < len(lines):
        aside = path.with_name(f"{path.stem}.until-{datetime.now():%Y%m%d-%H%M%S}{path.suffix}")
        path.rename(aside)
        print(f"note: the records of an earlier run in this place are kept as {aside}", flush=True)
    with whole_file(path, "w") as file:
        file.writelines(line + "\n" for line in kept)


def _is_past(line: str, start: int, finished: bool) -> bool:
    """Whether a record is of the first `start` steps and will not be written again."""
    try:
        record = json.loads(line)
        return bool(
            record["iteration"] < start
            or (record["iteration"] == start and not (finished and record["kind"] != "train"))
        )
    except (ValueError, KeyError, TypeError):
        return False
