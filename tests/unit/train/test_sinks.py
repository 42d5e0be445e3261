"""A log that cannot be written ends no training: that is told once, and the steps go on."""

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from megatron.train.json_records import JsonRecords
from megatron.train.records import Record
from megatron.train.sinks import Dispensable, TensorBoard

RECORDS = [
    Record(
        step, {"kind": "train", "consumed_samples": step, "consumed_tokens": step}, {"loss": 1.0}, "a line"
    )
    for step in (1, 2, 3)
]


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    def write(self, record: Record) -> None:
        self.calls += 1
        if record.iteration == 2:
            raise BrokenPipeError(32, "Broken\n pipe")

    def close(self) -> None:
        self.calls += 100


def test_a_sink_that_fails_is_told_once_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Broken()
    whole = Dispensable("Weights & Biases", sink)
    for record in RECORDS:
        whole.write(record)
    whole.close()
    assert sink.calls == 2
    told = "warning: Weights & Biases gets nothing more of this run, which goes on: [Errno 32] Broken pipe\n"
    assert capsys.readouterr().out == told


def test_a_full_disk_of_tensorboard_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inner = TensorBoard(tmp_path, 10)
    sink = Dispensable("TensorBoard", inner)
    sink.write(RECORDS[0])

    def refuse(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    assert inner.board.file_writer is not None
    monkeypatch.setattr(inner.board.file_writer.event_writer._async_writer._writer, "write", refuse)
    for record in RECORDS[1:]:
        sink.write(record)
    sink.close()
    said = capfd.readouterr()
    assert said.out.count("warning: TensorBoard gets nothing more of this run") == 1
    assert "No space left on device" in said.out and "Traceback" not in said.err


def test_records_that_find_no_room_end_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are written once there is room again; where records are all that a run is for, it ends."""
    path = tmp_path / "metrics.jsonl"
    sink, room = JsonRecords(path, 0), False
    flush = sink.file.flush

    def flush_with_room() -> None:
        if not room:
            raise OSError(28, "No space left on device")
        flush()

    monkeypatch.setattr(sink, "file", SimpleNamespace(write=sink.file.write, flush=flush_with_room))
    for record in RECORDS[:2]:
        sink.write(record)
    told = capsys.readouterr().out
    assert told.count("a record cannot be written (No space left on device); training goes on") == 1
    room = True
    sink.write(RECORDS[2])
    assert [json.loads(line)["consumed_samples"] for line in path.read_text().splitlines()] == [1, 2, 3]
    alone = JsonRecords(path, None)
    alone.file.close()
    alone.file = open("/dev/full", "a", buffering=1)  # noqa: SIM115
    with pytest.raises(OSError, match="No space"):
        alone.write(RECORDS[0])


def test_errors_of_other_threads_are_told_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    TensorBoard(tmp_path, 10).close()
    other = threading.Thread(target=lambda: os.stat(tmp_path / "none"))
    other.start()
    other.join()
    assert "FileNotFoundError" in capfd.readouterr().err
