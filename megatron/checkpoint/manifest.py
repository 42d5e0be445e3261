"""What a checkpoint says of itself and of its run: its `index.json`, as one value."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from megatron.base.errors import UserError
from megatron.base.files import other_format
from megatron.data.vocabulary import Vocabulary

FORMAT = 1
NAME = "index.json"


class FileEntry(NamedTuple):
    """Size and checksum of one file."""

    bytes: int
    sha256: str


class TensorEntry(NamedTuple):
    """Where a tensor lies: the file, and its box in the global tensor of its name."""

    file: str
    dtype: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """Enough to refuse another run's checkpoint, to evaluate it, and to find its tensors.

    `config`: flags by group. `data`, `analyses`: what identifies corpora and difficulties. `schedule`:
    where the learning rate's warm-up and decay end. `totals`: counters after `iteration` steps. `plan`: a
    digest of these steps. `rises`: where custom pacings rose in them. All as JSON gives it back."""

    task: str
    config: dict[str, dict[str, Any]]
    vocabulary: Vocabulary
    data: list[dict[str, Any]]
    analyses: list[dict[str, str]]
    data_efficiency: dict[str, Any]
    schedule: dict[str, Any]
    versions: dict[str, str]
    iteration: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    plan: int = 0
    rises: dict[str, list[list[int]]] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    tensors: dict[str, TensorEntry] = field(default_factory=dict)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `index.json`, the last file of a checkpoint."""
    (folder / NAME).write_text(json.dumps(_content(manifest), indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint; UserError where it is damaged."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); load an older checkpoint with --ckpt-step"
        ) from None
    if why := other_format(content, FORMAT):
        raise UserError(f"{path}: is of a checkpoint of {why}; go on with the version that wrote it")
    try:
        return _parsed(content)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path}: is not the index of a checkpoint of format {FORMAT}") from None


def as_read(manifest: Manifest) -> Manifest:
    """The same manifest as it comes back from a file, where tuples are lists."""
    return _parsed(json.loads(json.dumps(_content(manifest))))


def _content(manifest: Manifest) -> dict[str, Any]:
    """The JSON object: the step first, the long lists last."""
    values = {one.name: getattr(manifest, one.name) for one in dataclasses.fields(manifest)}
    parts = {name: values.pop(name) for name in ("iteration", "totals", "plan", "rises", "files", "tensors")}
    words = {name: values[name]._asdict() if name == "vocabulary" else values[name] for name in values}
    entries = {
        name: {one: entry._asdict() for one, entry in parts.pop(name).items()}
        for name in ("files", "tensors")
    }
    return {"format": FORMAT, "iteration": parts.pop("iteration"), **words, **parts, **entries}


def _parsed(content: Any) -> Manifest:
    """The value behind a JSON object; any exception of a wrong shape where it is none."""
    if content["format"] != FORMAT:
        raise ValueError("another format")
    later: dict[str, Any] = {"task": "gpt", "versions": {}, "rises": {}}  # than the first checkpoints
    values = later | {
        one.name: content[one.name]
        for one in dataclasses.fields(Manifest)
        if one.name in content or one.name not in later
    }
    values["vocabulary"] = Vocabulary(**values["vocabulary"])
    values["files"] = {name: FileEntry(**entry) for name, entry in values["files"].items()}
    values["tensors"] = {name: TensorEntry(**entry) for name, entry in values["tensors"].items()}
    for name, hint in get_type_hints(Manifest).items():
        if not isinstance(values[name], getattr(hint, "__origin__", hint)):
            raise TypeError(name)
    return Manifest(**values)
