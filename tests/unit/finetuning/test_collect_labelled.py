"""Labelled texts from lists of packages: nothing twice, sources in one split, and ways out where apt has
none."""

import sys
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from tools import collect_labelled
from tools.collect_labelled import Package, pair_rows, read_packages, split_by_source

STANZA = "Package: {name}\nSource: {source} (1.0)\nDescription: {text}\nTag: a,\n c\nSection: {section}\n"


def lists(path: Path, sources: int = 120) -> Path:
    """Three packages of every source, in three sections."""
    stanzas = [
        STANZA.format(
            name=f"p{source}-{part}",
            source=f"s{source}",
            text=f"word{source} of package {part}",
            section=("net", "contrib/libs", "games")[source % 3],
        )
        for source in range(sources)
        for part in ("one", "two", "ONE")
    ]
    path.write_text("\n".join(stanzas))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["collect_labelled.py", *words])
    collect_labelled.main()


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_texts_are_there_once_and_sources_in_one_split(monkeypatch, tmp_path):
    limits = ["--sections", "3", "--train", "10", "--dev", "4", "--test", "4"]
    output = tmp_path / "out"
    run(monkeypatch, "--input", str(lists(tmp_path / "Packages")), "--output", str(output), *limits)
    for task, columns in (("sections", 1), ("pairs", 2)):
        texts: list[str] = []
        sources: dict[str, set[str]] = {}
        for split in ("train", "dev", "test"):
            header, *rows = rows_of(output / task / f"{split}.tsv")
            assert header[-1] == "label" and rows
            mine = [text for row in rows for text in row[:columns]]
            texts += mine
            sources[split] = {text.split()[0] for text in mine}
        assert len(texts) == len(set(texts)) == len({text.lower() for text in texts})
        assert not sources["train"] & sources["dev"] and not sources["dev"] & sources["test"]
    rows = rows_of(output / "sections" / "train.tsv")[1:]
    assert sorted({row[1] for row in rows}) == ["games", "libs", "net"] and len(rows) == 30
    told = (output / "text.jsonl").read_text()
    for name in ("dev", "test"):
        assert not [text for text, _ in rows_of(output / "sections" / f"{name}.tsv")[1:] if text in told]
    before = (output / "sections" / "train.tsv").read_bytes()
    again = tmp_path / "again"
    run(monkeypatch, "--input", str(tmp_path / "Packages"), "--output", str(again), *limits)
    assert (again / "sections" / "train.tsv").read_bytes() == before


def test_pairs_are_of_one_source_or_of_two_in_a_section(tmp_path):
    packages = list(read_packages(lists(tmp_path / "Packages").read_text()))
    rows = pair_rows(packages, 40, 1)
    assert [label for _, _, label in rows].count("1") == len(rows) / 2 > 5
    sections = {package.text: package.section for package in packages}
    for one, other, label in rows:
        assert (one.split()[0] == other.split()[0]) == (label == "1") and sections[one] == sections[other]


def test_a_stanza_without_a_source_is_its_own_source():
    (found,) = read_packages("Package: a\nDescription: b c  d\nSection: non-free/net")
    assert found == Package("b c d", "net", "a")
    assert not list(read_packages("Package: a\nDescription: too short\nSection: net\n\nPackage: b"))


def test_no_share_is_larger_than_three_tenths():
    packages = [Package(f"text {n}", "net", f"s{n}") for n in range(2000)]
    parts = split_by_source(packages, ["net"], {"train": 1, "dev": 5000, "test": 5000}, 3)
    assert 500 < len(parts["dev"]) < 700 and 500 < len(parts["test"]) < 700  # 600, sd 20.5


def test_where_there_is_nothing_to_gather(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "apt-cache"
    script.write_text("#!/bin/sh\necho 'E: no lists' >&2\nexit 100\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    with pytest.raises(UserError, match=r"gives no packages \(E: no lists\); run apt-get update as root"):
        run(monkeypatch, "--output", str(tmp_path / "out"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="apt-cache is not on this machine"):
        run(monkeypatch, "--output", str(tmp_path / "out"))
    with pytest.raises(UserError, match="is there already"):
        run(monkeypatch, "--output", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]
