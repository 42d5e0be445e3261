"""What a checkpoint says of itself and of its run: its `index.json`, as one value."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from megatron.base.errors import UserError
from megatron.base.files import other_format
from megatron.data.vocabulary import Vocabulary

FORMAT = 2
NAME = "index.json"
OF_STEP = ("iteration", "totals", "plan", "rises", "loss_scale", "files", "tensors")
"""What a checkpoint says of its step; the rest is the run's."""


class FileEntry(NamedTuple):
    """Size and checksum of one file."""

    bytes: int
    sha256: str


class Part(NamedTuple):
    """A box of a global tensor in one of the files: where it begins, and its shape."""

    file: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]


class TensorEntry(NamedTuple):
    """A global tensor: its type, its shape, and the parts that the ranks have written of it."""

    dtype: str
    global_shape: tuple[int, ...]
    parts: list[Part]


@dataclass(frozen=True)
class Manifest:
    """Enough to refuse another run's checkpoint, to evaluate it, and to find its tensors.

    `config`: flags by group. `data`, `analyses`: what identifies corpora and difficulties. `schedule`:
    where the learning rate's warm-up and decay end. `totals`: counters after `iteration` steps. `plan`: a
    digest of these steps. `rises`: where custom pacings rose in them. `loss_scale`: the state of loss scaling
    in float16. `answers`: of a classifier its task and the classes of its outputs. All as JSON gives it
    back."""

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
    loss_scale: dict[str, float] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    tensors: dict[str, TensorEntry] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    @property
    def is_converted(self) -> bool:
        """Whether the weights are another program's, without a run that could go on."""
        return not self.schedule


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `index.json`, the last file of a checkpoint, with a checksum of itself."""
    (folder / NAME).write_bytes(sealed(_content(manifest)).encode())


def sealed(content: dict[str, Any]) -> str:
    """The text of an index. Its last field is a checksum of the text before it, not of what that means:
    1e-5 and 1E-5 are the same number, and one bit apart."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return _with_seal(json.dumps(rest, indent=1).removesuffix("\n}"))


SEAL = ',\n "checksum": "'


def _with_seal(text: str) -> str:
    return f'{text}{SEAL}{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'


def _sealed_by_meaning(content: dict[str, Any]) -> bool:
    """Whether an index has the checksum of its content, as the first ones of this format have. That of a text
    is never one, so what these notice is noticed still."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    whole = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return bool(content.get("checksum") == whole)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint; UserError where it is damaged."""
    path = folder / NAME
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); load an older checkpoint with --ckpt-step"
        ) from None
    older = isinstance(content, dict) and content.get("format") == 1
    if older:
        content = _from_format_1(content)
    if why := other_format(content, FORMAT):
        raise UserError(f"{path}: is of a checkpoint of {why}; go on with the version that wrote it")
    try:
        found = _parsed(content)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(
            f"{path}: is not the index of a checkpoint of format {FORMAT}; bring the file again, or name the "
            "folder that was given to --save"
        ) from None
    if not older and text != _with_seal(text.rpartition(SEAL)[0]) and not _sealed_by_meaning(content):
        raise UserError(
            f"{path}: is damaged (its checksum differs); load an older checkpoint with --ckpt-step"
        )
    return found


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """An index of the format in which every tensor was whole in one file."""
    try:
        tensors = {
            name: {
                "dtype": entry["dtype"],
                "global_shape": entry["global_shape"],
                "parts": [[entry["file"], entry["offset"], entry["global_shape"]]],
            }
            for name, entry in content["tensors"].items()
        }
    except (KeyError, TypeError, AttributeError):
        return content
    return content | {"format": FORMAT, "tensors": tensors}


def as_read(manifest: Manifest) -> Manifest:
    """The same manifest as it comes back from a file, where tuples are lists."""
    return _parsed(json.loads(json.dumps(_content(manifest))))


def _content(manifest: Manifest) -> dict[str, Any]:
    """The JSON object: the step first, the long lists last."""
    values = {one.name: getattr(manifest, one.name) for one in dataclasses.fields(manifest)}
    parts = {name: values.pop(name) for name in OF_STEP}
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
    later: dict[str, Any] = {name: {} for name in ("versions", "rises", "loss_scale")}  # than the first
    later |= {"task": "gpt", "answers": []}
    values: dict[str, Any] = later | {
        one.name: content[one.name]
        for one in dataclasses.fields(Manifest)
        if one.name in content or one.name not in later
    }
    values["vocabulary"] = Vocabulary(**values["vocabulary"])
    values["files"] = {name: _file(**entry) for name, entry in values["files"].items()}
    values["tensors"] = {name: _tensor(**entry) for name, entry in values["tensors"].items()}
    for name, hint in get_type_hints(Manifest).items():
        if not isinstance(values[name], getattr(hint, "__origin__", hint)):
            raise TypeError(name)
    return Manifest(**values)


def _file(bytes: int, sha256: str) -> FileEntry:
    """The entry behind its JSON; TypeError where its size is no number."""
    if type(bytes) is not int:
        raise TypeError("the size of a file is a number")
    return FileEntry(bytes, sha256)


def _tensor(dtype: str, global_shape: list[int], parts: list[Any]) -> TensorEntry:
    """The entry behind its JSON; TypeError where a word or a number is none."""
    if not isinstance(dtype, str) or not all(isinstance(file, str) for file, _, _ in parts):
        raise TypeError("a tensor's type and its files are words")
    numbers = [global_shape, *(box for _, *both in parts for box in both)]
    if any(len(box) != len(global_shape) or {*map(type, box)} - {int} for box in numbers):
        raise TypeError("a tensor's boxes are numbers, as many as it has dimensions")
    boxes = [Part(file, tuple(offset), tuple(shape)) for file, offset, shape in parts]
    return TensorEntry(dtype, tuple(global_shape), boxes)
