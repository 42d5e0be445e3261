"""TensorBoard's event files of a run that resumes: what they hold past the checkpoint is cut off on every
axis, as it is in the JSON records. (TensorBoard's own way to hide such points knows iterations alone, and
would hide `lm loss vs samples` from its first point on.)"""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.errors import DataLossError
from tensorboard.summary.writer.record_writer import RecordWriter

from megatron.base.files import whole_file

Limits = dict[str, int]
"""The last step that stays, by axis: "" (iterations), "samples" and "tokens"; `<tag> vs <axis>` lies on
that axis."""


def cut_events(folder: Path, limits: Limits, afresh: bool) -> None:
    """Leave the points up to the limits. `afresh`: what is cut off belongs to another run, and the old
    files are kept in a folder inside."""
    files = [path for path in sorted(folder.glob("events.out.tfevents.*")) if not all(_kept(path, limits))]
    if files and afresh:
        aside = folder / f"until-{datetime.now():%Y%m%d-%H%M%S}"
        aside.mkdir()
        for path in files:
            shutil.copy2(path, aside)
        print(f"note: the events of an earlier run in this place are kept in {aside}", flush=True)
    for path in files:
        with whole_file(path) as file:
            writer = RecordWriter(file)
            for raw, keep in zip(_records(path), _kept(path, limits)):
                if keep:
                    writer.write(raw)


def _records(path: Path) -> Iterator[bytes]:
    """The records of a file, up to one that a killed run has only begun."""
    try:
        yield from RawEventFileLoader(str(path)).Load()
    except DataLossError:
        return


def _kept(path: Path, limits: Limits) -> Iterator[bool]:
    """Of every record, whether it is within its axis' limit."""
    for raw in _records(path):
        event = Event.FromString(raw)
        tag = event.summary.value[0].tag if event.summary.value else ""
        axis = tag.rpartition(" vs ")[2] if " vs " in tag else ""
        yield event.step <= limits.get(axis, limits[""]) or not event.HasField("summary")
