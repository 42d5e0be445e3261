"""TensorBoard's event files of a run that resumes: what they hold past the checkpoint is cut off on every
axis, as it is in the JSON records. (TensorBoard's own way to hide such points knows iterations alone, and
would hide `lm loss vs samples` from its first point on.)

A file is records of 8 bytes of length, 4 of checksum, an event, 4 of checksum. A run writes its events in
the order of its steps, so those past a step are the end of the file, which bisection finds.
"""

import bisect
import mmap
import shutil
import struct
from array import array
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event

from megatron.base.files import aside, whole_file

Limits = dict[str, int]
"""The last step that stays, by axis: "" (iterations), "samples" and "tokens"; `<tag> vs <axis>` lies on
it."""
LENGTH = struct.Struct("<Q")
BEFORE, BEHIND = 12, 4
PIECE = 1 << 20


def cut_events(folder: Path, limits: Limits, afresh: bool) -> None:
    """Leave the points up to the limits. `afresh`: what is cut off belongs to another run, and the old files
    are kept in a folder inside."""
    files = [path for path in sorted(folder.glob("events.out.tfevents.*")) if path.stat().st_size]
    ends = {path: end for path in files if (end := _end(path, limits)) < path.stat().st_size}
    if ends and afresh:
        place = aside(folder / "until")
        place.mkdir()
        for path in ends:
            shutil.copyfile(path, place / path.name)
        print(f"note: the events of an earlier run in this place are kept in {place}", flush=True)
    for path, end in ends.items():
        with open(path, "rb") as old, whole_file(path) as new:
            for first in range(0, end, PIECE):
                new.write(old.read(min(PIECE, end - first)))


def _end(path: Path, limits: Limits) -> int:
    """Where the first record past the limits begins, or one that a killed run has only begun. No record is
    empty: behind a power cut a file may end in zeros."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        places, place = array("q"), 0
        while place + BEFORE <= len(content):
            length = LENGTH.unpack_from(content, place)[0]
            behind = place + BEFORE + length + BEHIND
            if not length or behind > len(content):
                break
            places.append(place)
            place = behind
        first = bisect.bisect_left(places, True, key=lambda one: _is_past(content, one, limits))
        return places[first] if first < len(places) else place


def _is_past(content: mmap.mmap, place: int, limits: Limits) -> bool:
    length = LENGTH.unpack_from(content, place)[0]
    try:
        event = Event.FromString(content[place + BEFORE : place + BEFORE + length])
    except DecodeError:  # its end is lost
        return True
    tag = event.summary.value[0].tag if event.summary.value else ""
    axis = tag.rpartition(" vs ")[2] if " vs " in tag else ""
    return bool(event.step > limits.get(axis, limits[""]))
