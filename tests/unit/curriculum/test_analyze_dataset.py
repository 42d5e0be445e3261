"""From a dataset on disk to its analysis and the table of it; what is refused before the data is read."""

from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.curriculum.analyze_dataset import (
    AnalysisOptions,
    analysis_problems,
    analyze_dataset,
    metrics_at_stake,
)
from megatron.data.index_builder import IndexedDatasetBuilder

LENGTHS = [90, 90, 90, 90, 9, 31]
"""By --split 4,1,1: four sequences, one and one."""
TOKENS = np.random.default_rng(0).integers(0, 30, sum(LENGTHS))


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    with IndexedDatasetBuilder(tmp_path / "data" / "a", np.uint16) as builder:
        builder.add_documents(TOKENS, LENGTHS)
    return str(tmp_path / "data" / "a")


def options(prefix: str, folder: Path, *more: str) -> AnalysisOptions:
    words = ["--data-path", prefix, "--seq-length", "10", "--output-dir", str(folder), "--vocab-size", "30"]
    return parse(
        AnalysisOptions, [*words, "--metrics", "distinct_tokens", "--split", "4,1,1", *more], description=""
    )


@pytest.mark.parametrize(
    ("part", "first", "windows"), [("train", 0, 35), ("test", 369, 3)], ids=["train", "test"]
)
def test_the_table_tells_the_samples_of_the_part(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, first: int, windows: int
) -> None:
    analyze_dataset(options(prefix, tmp_path / "out", "--part", part))
    values = sorted(len({*TOKENS[first + i * 10 : first + i * 10 + 11]}) for i in range(windows))
    assert sorted(np.load(tmp_path / "out" / "distinct_tokens.npy").tolist()) == values
    at = [values[min(windows - 1, share * windows // 100)] for share in (0, 10, 25, 50, 75, 90, 100)]
    said = capsys.readouterr().out
    assert f"{windows} samples of 10 tokens, {part} part of" in said.replace("\n", " ")
    (row,) = (line.split() for line in said.splitlines() if "distinct_tokens" in line)
    told = [word for word in row if word not in ("│", "distinct_tokens")]
    assert told == [*map(str, at), f"{sum(values) / windows:.1f}"]
    assert f"wrote {tmp_path / 'out'}" in said


def test_a_part_without_a_sample_is_refused_and_leaves_nothing(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^--split 4,1,1 leaves no sample of 10 tokens for valid; use more data"
    ):
        analyze_dataset(options(prefix, tmp_path / "out", "--part", "valid"))
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_told_without_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data" / "a"
    assert analysis_problems(options(str(data), tmp_path / "out")) == []
    (problem,) = analysis_problems(
        options(str(data), tmp_path / "out", "--split", "1,0,1", "--part", "valid")
    )
    assert problem == "--split 1,0,1 leaves nothing for valid, which is to be analysed; give it a share"
    for folder in (tmp_path / "data", tmp_path):
        (problem,) = analysis_problems(options(str(data), folder), "--folder")
        assert problem.startswith(f"--folder {folder} is the folder of the data {data};")
    several = options(str(data), tmp_path, "--metrics", "colour", "--split", "0,1")
    assert len(analysis_problems(several)) == 3
    (problem,) = analysis_problems(options(str(data), tmp_path / "out", "--bert-passes", "5"))
    assert problem.startswith("--bert-passes: ") and "give --task bert, or leave it out" in problem


def test_an_analysis_is_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    wish = options(str(tmp_path / "data" / "a"), folder)
    assert analysis_problems(wish) == []
    (folder / "old.npy").touch()
    (problem,) = analysis_problems(wish)
    assert problem.startswith(f"--output-dir {folder} holds other files")
    (folder / "manifest.json").touch()
    assert analysis_problems(wish) == []
    (folder / "thesis.txt").touch()
    assert len(analysis_problems(wish)) == 1
    (problem,) = analysis_problems(options(str(tmp_path / "data" / "a"), folder / "thesis.txt"))
    assert problem == f"--output-dir {folder / 'thesis.txt'} is a file; choose a folder"


def test_metrics_that_an_older_analysis_has_alone_are_not_lost(prefix: str, tmp_path: Path) -> None:
    wish = options(prefix, tmp_path / "out")
    assert metrics_at_stake(wish) == []
    analyze_dataset(wish)
    assert metrics_at_stake(wish) == []
    (problem,) = metrics_at_stake(options(prefix, tmp_path / "out", "--metrics", "vocab_rarity"))
    assert problem.startswith(f"--output-dir {tmp_path / 'out'} holds distinct_tokens, which would be gone")
    both = ["--metrics", "vocab_rarity", "distinct_tokens"]
    assert metrics_at_stake(options(prefix, tmp_path / "out", *both)) == []


def test_a_length_needs_no_analysis(prefix: str, tmp_path: Path) -> None:
    (problem,) = analysis_problems(options(prefix, tmp_path / "out", "--metrics", "seqtru", "vocab_rarity"))
    assert problem.startswith("--metrics seqlen_truncate: a length of samples needs no analysis; ")
