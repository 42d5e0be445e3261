"""Show what checkpoints hold and whether they are whole, or how two of them differ. Exit status: 0 where all
is well or equal, 1 where a checkpoint is damaged or two differ, 2 for a mistake."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_file
from megatron.base.terminal import progress, show
from megatron.checkpoint.contents import (
    Comparison,
    Deviation,
    chosen_flags,
    compare,
    damages,
    is_listed,
    kind_of,
    ranks_of,
    size_of,
    sums_by_kind,
)
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import NAME, Manifest, TensorEntry, read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config.arguments import parse
from megatron.config.flags import NEWEST, flag
from megatron.parallel.layout import AXES, layout_of
from megatron.report.checkpoint_tables import (
    deviation_table,
    flag_table,
    kind_table,
    pair_table,
    tensor_table,
)

EXAMPLES = """\
  the newest checkpoint of a run, with the checksums of all bytes
    python tools/inspect_checkpoint.py runs/small --verify
  every tensor of the checkpoint of step 500, as JSON, too
    python tools/inspect_checkpoint.py runs/small --ckpt-step 500 --tensors all \\
      --output runs/small/step500.json
  whether two runs have come to the same weights and moments, whatever layouts have written them
    python tools/inspect_checkpoint.py runs/small --compare runs/small_on_4_ranks"""
FEW = 40
"""Names of missing tensors that are printed."""
WAYS = ("weights", "all", "none")


@dataclass(frozen=True, kw_only=True)
class Options:
    load: tuple[str, ...] = flag(
        help="folders of checkpoints, of which the newest is shown, checkpoints, or files of them; the first "
        "words of a command without a flag are these",
        metavar="FOLDER ...",
    )
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest", otherwise=NEWEST)
    verify: bool = flag(False, "read all bytes, and compare the checksums")
    compare: str | None = flag(
        None, "another checkpoint or folder, with which one is compared", metavar="FOLDER"
    )
    tensors: str = flag(
        "weights", "which tensors to list; of two checkpoints, of those that differ", choices=WAYS
    )
    output: str | None = flag(None, "also write all that is found as JSON", metavar="FILE")


def main() -> None:
    argv = sys.argv[1:]
    argv = ["--load", *argv] if argv and not argv[0].startswith("-") else argv
    options = parse(Options, argv, description=__doc__, examples=EXAMPLES)
    if options.compare and len(options.load) > 1:
        raise UserError("--compare: one checkpoint is compared with another; give one --load")
    if options.output:
        writable_file(options.output)
    folders = [_folder(path, options.ckpt_step) for path in options.load]
    if options.compare:
        content = _compare(folders[0], _folder(options.compare, options.ckpt_step), options)
        well = content.get("equal", False)
    else:
        content = {"checkpoints": [_inspect(folder, options) for folder in folders]}
        well = not any(one["damages"] for one in content["checkpoints"])
    if options.output:
        with whole_file(options.output, "w") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
    if not well:
        sys.exit(1)


def _folder(path: str, step: int | None) -> Path:
    """The checkpoint that a path means; UserError where there is none."""
    root = Path(path)
    if root.is_file() and (root.parent / NAME).is_file():
        root = root.parent
    folder = find_checkpoint(root, step)
    if folder is None:
        found = made_elsewhere(root)
        raise UserError(
            f"{path}: holds no checkpoint{f'; {found}' if found else ''}; name a folder of --save"
        )
    return folder


def _inspect(folder: Path, options: Options) -> dict[str, Any]:
    """Show a checkpoint; what is shown, for JSON."""
    try:
        manifest = read_manifest(folder)
        facts, flags = _facts(folder, manifest), chosen_flags(manifest, folder)
        kinds = {name: one._asdict() for name, one in sums_by_kind(manifest).items()}
    except UserError as error:
        return _told({"checkpoint": str(folder), "damages": list(error.problems)})
    total = sum(entry.bytes for entry in manifest.files.values()) if options.verify else 0
    with progress("verifying", total, "MB", 1e6, quiet=not options.verify) as advance:
        found = damages(folder, manifest, options.verify, advance)
    show(
        pair_table(str(folder), facts),
        pair_table("flags that are not the defaults", flags),
        kind_table(kinds),
    )
    if options.tensors != "none":
        show(tensor_table(manifest, options.tensors))
    content = {"checkpoint": str(folder)} | facts | {"flags": flags, "kinds": kinds}
    tensors = {name: _entry(entry) for name, entry in manifest.tensors.items()}
    content |= {"verified": options.verify, "damages": found, "tensors": tensors}
    return _told(content)


def _damages(folder: Path, manifest: Manifest, verify: bool) -> list[str]:
    """What is wrong with a checkpoint; reading all of it shows its progress."""
    total = sum(entry.bytes for entry in manifest.files.values()) if verify else 0
    with progress(f"verifying {folder.name}", total, "MB", 1e6, quiet=not verify) as advance:
        return damages(folder, manifest, verify, advance)


def _told(content: dict[str, Any]) -> dict[str, Any]:
    """The same, once its integrity is told."""
    print("".join(f"{line}\n" for line in content["damages"]), end="", file=sys.stderr)
    if not content["damages"]:
        read = "all checksums agree" if content["verified"] else "sizes agree; --verify compares checksums"
        print(f"whole: {read}")
    return content


def _facts(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint says of its run and of the ranks that have written it."""
    config, ranks = saved_config(manifest.config, folder), ranks_of(manifest)
    layout = layout_of(config.parallel, ranks)
    axes = {axis: getattr(layout, axis) for axis in AXES if getattr(layout, axis) > 1}
    more = {
        "sequence parallel": layout.sequence_parallel,
        "distributed optimizer": config.parallel.use_distributed_optimizer,
    }
    words = [f"{axis} {size}" for axis, size in axes.items()] + [
        name for name, is_so in more.items() if is_so
    ]
    return {
        "iteration": manifest.iteration,
        "task": manifest.task,
        "written by": f"{ranks} rank{'s' if ranks > 1 else ''}" + (f": {', '.join(words)}" if words else ""),
        "files": len(manifest.files),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "vocabulary": manifest.vocabulary.size,
        **manifest.totals,
        **manifest.schedule,
        **{f"version of {name}": version for name, version in manifest.versions.items()},
    }


def _entry(entry: TensorEntry) -> dict[str, Any]:
    parts = [part._asdict() for part in entry.parts]
    return {"dtype": entry.dtype, "global_shape": entry.global_shape, "bytes": size_of(entry), "parts": parts}


def _compare(one: Path, other: Path, options: Options) -> dict[str, Any]:
    """Show how two checkpoints differ; that for JSON."""
    content: dict[str, Any] = {"checkpoints": [str(one), str(other)], "damages": []}
    try:
        both = [(folder, read_manifest(folder)) for folder in (one, other)]
        for folder, manifest in both:
            content["damages"] += _damages(folder, manifest, options.verify)
        if content["damages"]:
            return _told(content)
        total = sum(map(size_of, both[0][1].tensors.values()))
        with progress("comparing", total, "MB", 1e6) as advance:
            found = compare(both[0], both[1], advance)
    except UserError as error:
        return _told(content | {"damages": list(error.problems)})
    _show_comparison(found, (str(one), str(other)), options.tensors)
    tensors = {name: _finite(each) for name, each in sorted(found.tensors.items())}
    steps = [manifest.iteration for _, manifest in both]
    content |= {"iterations": steps, "equal": found.equal, "flags": found.flags, "missing": found.missing}
    return content | {"tensors": tensors}


def _show_comparison(found: Comparison, names: tuple[str, str], which: str) -> None:
    """Tables of what differs, and a last line."""
    if found.flags:
        show(flag_table(names, found.flags))
    for name, missing in zip(names, found.missing):
        if missing:
            print(f"{name} has no {', '.join(missing[:FEW])}{' ...' if len(missing) > FEW else ''}")
    kinds: dict[str, list[Deviation]] = {}
    for name, each in found.tensors.items():
        kinds.setdefault(kind_of(name), []).append(each)
    show(deviation_table("tensors by kind", kinds))
    differing = {name: [each] for name, each in sorted(found.tensors.items()) if not each.same_bits}
    if listed := {name: each for name, each in differing.items() if is_listed(name, which)}:
        show(deviation_table("tensors that differ", listed))
    counts = f"{len(differing):,} of {len(found.tensors):,} tensors"
    lacking = sum(map(len, found.missing))
    print(
        f"equal to the bit: all {len(found.tensors):,} tensors"
        if found.equal
        else f"different: {counts}, and {lacking:,} that only one of them has"
    )


def _finite(each: Deviation) -> dict[str, Any]:
    """A deviation for JSON, which knows no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in each._asdict().items()
    }


if __name__ == "__main__":
    run_command(main)
