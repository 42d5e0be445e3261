"""metrics.jsonl: one JSON record an iteration in full precision, cut where a run goes on."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from megatron.base.errors import UserError
from megatron.base.files import aside, whole_file, writable_folder
from megatron.base.terminal import print_line
from megatron.train.records import Record


class JsonRecords:
    """Appends the fields of every record to a file, a line each. A finished run validates again at step
    `start`: that takes the place of what the file says of it, which is lost at no moment. Training goes on
    where a record cannot be written, which is told once: no step is worth less for it. With `start` None
    records are what the run is for, and OSError ends it."""

    def __init__(self, path: Path, start: int | None):
        self.path, self.start, self.told = path, start, False
        _cut_begun(path)
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115, close() closes it

    def write(self, record: Record) -> None:
        line, kind = json.dumps(record.fields, allow_nan=False) + "\n", record.fields["kind"]
        try:
            if kind != "train" and record.iteration == self.start:
                self._replace(kind, line)
            else:
                self.file.write(line)
                self.file.flush()  # which writes again what has found no room before, too
        except (OSError, UserError) as error:
            if self.start is None:
                raise
            self._tell(error)

    def _tell(self, error: OSError | UserError) -> None:
        if self.told:
            return
        self.told = True
        why = error.strerror if isinstance(error, OSError) else error.problems[0]
        print_line(
            f"warning: {self.path}: a record cannot be written ({why or error}); training goes on, and "
            "records may be missing; make room there, as checkpoints need it, too"
        )

    def _replace(self, kind: str, line: str) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        others = [one for one in lines if _key(one) != (self.start, kind)]
        with whole_file(self.path, "w") as file:
            file.writelines([*others, line])
        self.file.close()
        self.file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def close(self) -> None:
        with suppress(*([OSError] if self.told else [])):  # of what has found no room until now
            self.file.close()


def cut_records(path: Path, kept: int, afresh: bool) -> None:
    """Leave the records of the first `kept` steps. `afresh`: what is cut off belongs to another run, and the
    old file is kept under another name."""
    writable_folder(path.parent)
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    own = [line for line in lines if (key := _key(line)) and key[0] <= kept]
    if afresh and len(own) < len(lines):
        place = aside(path.with_name(f"{path.stem}.until{path.suffix}"))
        shutil.copyfile(path, place)
        print(f"note: the records of an earlier run in this place are kept as {place}", flush=True)
    with whole_file(path, "w") as file:
        file.writelines(line + "\n" for line in own)


def recorded_kinds(path: Path, iteration: int) -> set[str]:
    """The kinds of the records of a step."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return {key[1] for line in lines if (key := _key(line)) and key[0] == iteration}


def _cut_begun(path: Path) -> None:
    """Cut off a last line that a killed run has only begun, as the next one would be glued to it."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _key(line: str) -> tuple[int, str] | None:
    """Step and kind of a record; None where a killed run has only begun to write it."""
    try:
        record = json.loads(line)
        return int(record["iteration"]), str(record["kind"])
    except (ValueError, KeyError, TypeError):
        return None
