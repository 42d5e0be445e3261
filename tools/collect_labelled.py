"""Gather labelled texts from this machine: the descriptions of Debian's packages, their sections, and whether
two of them are of the same source package."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.base.keys import key
from megatron.config.arguments import parse
from megatron.config.flags import flag

EXAMPLES = """\
  python tools/collect_labelled.py --output data/packages
  python tools/collect_labelled.py --output data/packages --sections 5 --train 100 --dev 50 --test 50"""

SPLITS = ("train", "dev", "test")
SHORTEST = 3
"""Words of a description."""
WAY_OUT = "run apt-get update as root, or give the output of apt-cache dumpavail by --input"


Tables = dict[str, dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]]
"""By task and split: names of columns, and rows."""


@dataclass(frozen=True)
class Options:
    output: str = flag(help="folder for sections/, pairs/ and text.jsonl", metavar="FOLDER")
    input: str | None = flag(
        None, "file in the format of Packages, instead of apt-cache dumpavail", metavar="FILE"
    )
    sections: int = flag(10, "the most frequent sections are the labels", at_least=2)
    train: int = flag(300, "training examples of a section, at most", at_least=1)
    dev: int = flag(100, "the same, for development", at_least=1)
    test: int = flag(100, "the same, for test", at_least=1)
    seed: int = flag(1234, "of which source packages go where")


class Package(NamedTuple):
    """What a package is described by, its section, and the source package that it is built from."""

    text: str
    section: str
    source: str


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    if Path(options.output).exists():
        raise UserError(f"--output {options.output}: is there already; choose another folder or move it away")
    packages = list(once_each(read_packages(_stanzas(options.input))))
    if not packages:
        raise UserError(f"no package is described in {options.input or 'the lists of apt'}; {WAY_OUT}")
    limits = dict(zip(SPLITS, (options.train, options.dev, options.test)))
    labels = frequent_sections(packages, options.sections)
    parts = split_by_source(packages, labels, limits, options.seed)
    tables: Tables = {
        "sections": {
            split: (("sentence", "label"), section_rows(found, labels, limits[split], options.seed))
            for split, found in parts.items()
        },
        "pairs": {
            split: (
                ("sentence1", "sentence2", "label"),
                pair_rows(found, limits[split] * options.sections, options.seed),
            )
            for split, found in parts.items()
        },
    }
    with whole_folder(options.output) as folder:
        for name, splits in tables.items():
            (folder / name).mkdir()
            for split, (columns, rows) in splits.items():
                lines = "".join("\t".join(row) + "\n" for row in [columns, *rows])
                (folder / name / f"{split}.tsv").write_text(lines, encoding="utf-8")
        texts = [orjson.dumps({"text": package.text}) + b"\n" for package in parts["train"]]
        (folder / "text.jsonl").write_bytes(b"".join(texts))
    _tell(options.output, tables, len(texts), len(packages))


def _tell(output: str, tables: Tables, texts: int, packages: int) -> None:
    for name, splits in tables.items():
        counts = {split: Counter(row[-1] for row in rows) for split, (_, rows) in splits.items()}
        for split, found in counts.items():
            words = ", ".join(f"{label} {count:,}" for label, count in sorted(found.items()))
            print(f"{output}/{name}/{split}.tsv: {sum(found.values()):,} examples ({words})")
    print(f"{output}/text.jsonl: {texts:,} of {packages:,} descriptions, none of dev or test")


def _stanzas(path: str | None) -> str:
    """The text of all packages that apt knows, or of a file."""
    if path:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    if not shutil.which("apt-cache"):
        raise UserError("apt-cache is not on this machine, which is no Debian; give --input")
    done = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False)
    if done.returncode or not done.stdout.strip():
        why = done.stderr.decode(errors="replace").strip().split("\n")[-1] or "its lists are empty"
        raise UserError(f"apt-cache dumpavail gives no packages ({why}); {WAY_OUT}")
    return done.stdout.decode(errors="replace")


def read_packages(text: str) -> Iterator[Package]:
    """The packages of stanzas, as they come; what is too short or has no section is left out."""
    for stanza in text.split("\n\n"):
        fields = {}
        for line in stanza.split("\n"):
            name, colon, value = line.partition(": ")
            if colon and not line.startswith(" "):
                fields[name] = value.strip()
        words = fields.get("Description", fields.get("Description-en", "")).split()
        source = (fields.get("Source") or fields.get("Package", "")).split(" ")[0]
        section = fields.get("Section", "").rpartition("/")[2]
        if len(words) >= SHORTEST and source and section:
            yield Package(" ".join(words), section, source)


def once_each(packages: Iterable[Package]) -> Iterator[Package]:
    """Every description once, whatever the case of its letters: the first package that has it."""
    seen: set[str] = set()
    for package in packages:
        if package.text.casefold() not in seen:
            seen.add(package.text.casefold())
            yield package


def split_by_source(
    packages: list[Package], labels: list[str], limits: dict[str, int], seed: int
) -> dict[str, list[Package]]:
    """Packages of one source go to one split: their descriptions are alike. Dev and test get half as many
    again as their examples of the smallest section need, as sources differ in size."""
    parts: dict[str, list[Package]] = {split: [] for split in SPLITS}
    smallest = min(Counter(package.section for package in packages)[label] for label in labels)
    dev, test = (min(1.5 * limits[split] / smallest, 0.3) for split in ("dev", "test"))
    for package in packages:
        place = key(seed, "split", package.source) / 2**64
        parts["dev" if place < dev else "test" if place > 1 - test else "train"].append(package)
    return parts


def frequent_sections(packages: list[Package], count: int) -> list[str]:
    """The sections with the most descriptions, by name."""
    found = Counter(package.section for package in packages).most_common(count)
    if len(found) < 2:
        raise UserError(f"the packages are of {len(found)} section alone, and a classification needs two")
    return sorted(section for section, _ in found)


def section_rows(packages: list[Package], labels: list[str], most: int, seed: int) -> list[tuple[str, ...]]:
    """At most so many descriptions of every section, drawn and ordered by their keys."""
    drawn = []
    for label in labels:
        mine = [package for package in packages if package.section == label]
        drawn += _shuffled(mine, seed)[:most]
    return [(package.text, package.section) for package in _shuffled(drawn, seed + 1)]


def pair_rows(packages: list[Package], most: int, seed: int) -> list[tuple[str, ...]]:
    """Pairs of the same source (1), and as many of different sources in one section (0); no description is
    in two pairs."""
    by_source: dict[str, list[Package]] = defaultdict(list)
    for package in _shuffled(packages, seed):
        by_source[package.source].append(package)
    several = [found for found in by_source.values() if len(found) > 1]
    half = min(most // 2, len(several) // 2)
    rows: list[tuple[str, ...]] = [(found[0].text, found[1].text, "1") for found in several[:half]]
    by_section: dict[str, list[Package]] = defaultdict(list)
    for found in several[half:]:  # whose descriptions read like those of the others
        by_section[found[0].section].append(found[0])
    others: list[tuple[str, ...]] = [
        (one.text, other.text, "0")
        for mine in by_section.values()
        for one, other in zip(mine[::2], mine[1::2])
    ]
    half = min(half, len(others))
    kept = rows[:half] + others[:half]
    return sorted(kept, key=lambda row: key(seed, "order", *row))


def _shuffled(packages: list[Package], seed: int) -> list[Package]:
    return sorted(packages, key=lambda package: key(seed, "draw", package.text))


if __name__ == "__main__":
    run_command(main)
