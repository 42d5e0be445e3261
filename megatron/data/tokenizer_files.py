"""The tokenizer of a run, kept beside its checkpoints, so that they can be used where the original files are
gone or have changed.

`<root>/tokenizer/<key>/` holds its files, and `flags.json` with the flags that name them and their
checksums. The key follows from what makes ids, so a folder is written once and never changed.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import checksum, whole_folder
from megatron.config.config import TokenizerOptions
from megatron.data.end_of_document import CONFIG
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_value import Tokenizer
from megatron.data.vocabulary import Vocabulary

FLAGS = "flags.json"


def flags_of_tokenizer(tokenizer: Tokenizer, options: TokenizerOptions) -> dict[str, Any]:
    """The flags that name this tokenizer, with absolute paths and the token that ends documents; those at
    their defaults are left out."""
    given = dataclasses.asdict(options) | {"vocab_file": None, "merge_file": None, "tokenizer_model": None}
    given |= {flag: str(path.absolute()) for flag, path in tokenizer.files.items()}
    given["eod_token"] = tokenizer.end.name
    defaults = dataclasses.asdict(TokenizerOptions())
    return {name: value for name, value in given.items() if value != defaults[name]}


def options_of(flags: dict[str, Any], folder: Path = Path()) -> TokenizerOptions:
    """The options of such flags; paths that are not absolute lie in the folder."""
    known = {field.name: field.default for field in dataclasses.fields(TokenizerOptions)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()
    }
    for name in ("tokenizer_model", "vocab_file", "merge_file"):
        if values.get(name):
            values[name] = str(folder / values[name])
    return TokenizerOptions(**{name: value for name, value in values.items() if name in known})


def tokenizer_of_data(
    options: TokenizerOptions, sidecars: Iterable[dict[str, Any]], vocabulary: Vocabulary
) -> tuple[Tokenizer, TokenizerOptions] | None:
    """The tokenizer of the flags, or else the one that made the data; None where nothing names one. UserError
    where its files are gone, or are no longer those."""
    if options.tokenizer_type is None:
        flags = next((one["tokenizer_flags"] for one in sidecars if one.get("tokenizer_flags")), None)
        if flags is None:
            return None
        options = options_of(flags)
    tokenizer = build_tokenizer(options)
    if tokenizer.identity() != vocabulary.tokenizer or tokenizer.eod != vocabulary.eod:
        named = ", ".join(map(str, tokenizer.files.values())) or options.tokenizer_type
        raise UserError(
            f"{named} is no longer the one that made the data; bring that back, or name it by "
            "--tokenizer-type and its files"
        )
    return tokenizer, options


def keep_tokenizer(
    root: str, options: TokenizerOptions, sidecars: Iterable[dict[str, Any]], vocabulary: Vocabulary
) -> list[str]:
    """Keep the tokenizer with a run. Notes of what keeps it from that."""
    target = _place(root, vocabulary)
    if vocabulary.tokenizer is None or target.is_dir():
        return []
    try:
        found = tokenizer_of_data(options, sidecars, vocabulary)
    except UserError as error:
        return [f"the tokenizer is not kept with the run: {error.problems[0]}"]
    if found is None:
        return []
    for rest in target.parent.glob(f".{target.name}.*"):  # of a run that was killed while it wrote
        shutil.rmtree(rest, ignore_errors=True)
    _write(target, *found)
    return []


def kept_tokenizer(root: Path, vocabulary: Vocabulary) -> TokenizerOptions | None:
    """The options of the tokenizer that a run has kept; None where there is none. UserError where its files
    are not as they were written."""
    folder = _place(root, vocabulary)
    if not folder.is_dir():
        return None
    damaged = f"{folder}: is damaged ({{}}); move it away, and name the tokenizer by its flags"
    try:
        content = json.loads((folder / FLAGS).read_text(encoding="utf-8"))
        for name, expected in content["sha256"].items():
            if checksum(folder / name) != expected:
                raise UserError(damaged.format(f"{name} is not the file that was written"))
        return options_of(content["flags"], folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(damaged.format(error)) from None


def copy_tokenizer(source: Path, target: Path, vocabulary: Vocabulary) -> None:
    """Keep what one run has kept beside another's checkpoints, too, where there is any. UserError where its
    files are not as they were written."""
    if kept_tokenizer(source, vocabulary) is not None:
        place = _place(target, vocabulary)
        place.mkdir(parents=True)
        for file in _place(source, vocabulary).iterdir():
            shutil.copyfile(file, place / file.name)


def _place(root: str | Path, vocabulary: Vocabulary) -> Path:
    words = json.dumps([vocabulary.tokenizer, vocabulary.eod], sort_keys=True)
    return Path(root) / "tokenizer" / hashlib.sha256(words.encode()).hexdigest()[:16]


def _write(target: Path, tokenizer: Tokenizer, options: TokenizerOptions) -> None:
    """Copy the files, all or none."""
    flags = flags_of_tokenizer(tokenizer, options)
    with whole_folder(target) as folder:
        names: list[str] = []
        for flag, path in tokenizer.files.items():
            flags[flag] = path.name if path.name not in names else f"{flag}.{path.name}"
            names.append(flags[flag])
            shutil.copyfile(path, folder / flags[flag])
            config = path.with_name(CONFIG)
            if config.is_file() and CONFIG not in names:
                names.append(CONFIG)
                shutil.copyfile(config, folder / CONFIG)
        content = {"flags": flags, "sha256": {name: checksum(folder / name) for name in names}}
        (folder / FLAGS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
