"""Datasets as training opens them: their three files belong together, and any number of them may be open.
Their splits, blends and samples."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.data.corpora import (
    SPLITS,
    Corpus,
    identity,
    mock_corpus,
    open_corpus,
    open_source,
    open_sources,
    open_splits,
    parse_blend,
    require_samples,
    unevaluated,
)
from megatron.data.index_builder import IndexedDatasetBuilder, existing_dataset
from megatron.data.indexed_dataset import read_sidecar, write_sidecar
from tests.support.configurations import make_config

ROOT = Path(__file__).parents[3]
SIDECAR = {"tokenizer": {"type": "made up"}, "vocab_size": 1000, "eod": 0}


def build(prefix: Path, lengths: list[int], seed: int = 0) -> str:
    """A dataset of random tokens, with its .json."""
    with IndexedDatasetBuilder(prefix, np.uint16) as builder:
        builder.add_documents(np.random.default_rng(seed).integers(0, 1000, sum(lengths)), lengths)
        builder.sidecar = SIDECAR
    return str(prefix)


def test_a_sidecar_names_its_files(tmp_path: Path) -> None:
    source = open_source(build(tmp_path / "a", [30, 20, 50]), False)
    counts = {"documents": 3, "sequences": 3, "tokens": 100, "fingerprint": source.fingerprint}
    assert source.sidecar == SIDECAR | counts
    for ending in (".bin", ".idx", ".json"):
        os.rename(tmp_path / f"a{ending}", tmp_path / f"b{ending}")
    assert open_source(str(tmp_path / "b"), False).sidecar == source.sidecar


OTHERS = {
    "more documents": ([25, 25, 25, 25], 0, "was written for 4 documents against 3, 4 sequences against 3"),
    "more tokens": ([30, 20, 60], 0, "was written for 110 tokens against 100"),
    "other lengths": ([50, 20, 30], 0, "was written for other bytes; copy the three files together again"),
    "other tokens": ([30, 20, 50], 1, "was written for other bytes; copy the three files together again"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_sidecar_of_another_dataset(tmp_path: Path, name: str) -> None:
    lengths, seed, wanted = OTHERS[name]
    prefix, other = build(tmp_path / "a", [30, 20, 50]), build(tmp_path / "b", lengths, seed)
    shutil.copy(other + ".json", prefix + ".json")
    with pytest.raises(UserError, match=rf"a\.json: is not of this \.bin and \.idx, it {wanted}"):
        open_source(prefix, False)
    os.unlink(prefix + ".json")
    assert open_source(prefix, False).sidecar is None


@pytest.mark.parametrize("ending", [".idx", ".bin"])
def test_a_file_of_another_run_of_the_same_size(tmp_path: Path, ending: str) -> None:
    """The lengths add up as before, so that only the .json tells."""
    prefix, other = build(tmp_path / "a", [30, 20, 50]), build(tmp_path / "b", [20, 30, 50], 1)
    shutil.copy(other + ending, prefix + ending)
    with pytest.raises(UserError, match=r"a\.json: is not of this \.bin and \.idx.*other bytes"):
        open_source(prefix, False)


def test_sidecars_that_say_less_are_taken(tmp_path: Path) -> None:
    prefix = build(tmp_path / "a", [30, 20, 50])
    for content in (SIDECAR, SIDECAR | {"documents": 3}):
        write_sidecar(prefix, content)
        assert open_source(prefix, False).sidecar == content
    write_sidecar(prefix, SIDECAR | {"documents": 4})
    with pytest.raises(UserError, match="4 documents against 3"):
        open_source(prefix, False)


def test_trailing_bytes_that_are_accepted_are_no_other_dataset(tmp_path: Path) -> None:
    prefix = build(tmp_path / "a", [30, 20, 50])
    with open(prefix + ".bin", "ab") as file:
        file.write(b"\0\0")
    with pytest.raises(UserError, match="--append-eod"):
        open_source(prefix, False)
    assert open_source(prefix, True).sidecar == read_sidecar(prefix)


def test_all_datasets_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    prefixes = [build(tmp_path / name, [9, 4]) for name in "abc"]
    os.truncate(prefixes[0] + ".bin", 20)
    os.unlink(prefixes[2] + ".idx")
    with pytest.raises(UserError) as error:
        open_sources(prefixes, False)
    first, second = error.value.problems
    assert first.startswith(f"{tmp_path}/a.bin: has 20 bytes where {tmp_path}/a.idx says 26")
    assert second.startswith(f"{tmp_path}/c.idx: does not exist")


def notes(config: Config, folder: Path, flags: str) -> list[str]:
    """What is told of the parts of a large dataset `a` and a small one `b`."""
    named = dict(pair.split("=", 1) for pair in flags.split())
    paths = {
        name: tuple(str(folder / letter) for letter in letters)
        for name, letters in named.items()
        if name != "split"
    }
    data = dataclasses.replace(config.data, mock_data=False, split=named.get("split", "1"), **paths)
    config = dataclasses.replace(config, data=data)
    return unevaluated(config, open_splits(config))


def test_parts_without_a_sample_are_told(tmp_path: Path) -> None:
    build(tmp_path / "a", [20] * 40)
    build(tmp_path / "b", [20] * 2)
    config = make_config("--seq-length 8 --train-iters 1")
    left = "no sample of 8 tokens is left for"
    small = f"{tmp_path}/b: it is left out there"
    assert notes(config, tmp_path, "data_path=a split=90,5,5") == []
    assert notes(config, tmp_path, "data_path=b split=90,10") == [f"{left} validation in {small}"]
    assert notes(config, tmp_path, "data_path=ab split=90,5,5") == [
        f"{left} {what} in {small}" for what in ("validation", "the test")
    ]
    assert notes(config, tmp_path, "data_path=b split=100,0,0") == []  # none is asked for
    assert notes(config, tmp_path, "train_data_path=a") == []
    assert notes(config, tmp_path, "train_data_path=a valid_data_path=ab") == []
    quiet = make_config("--seq-length 8 --train-iters 1 --eval-iters 0")
    assert notes(quiet, tmp_path, "data_path=b split=90,10") == []


def test_what_would_be_lost(tmp_path: Path) -> None:
    prefix = str(tmp_path / "a")
    assert existing_dataset(prefix) == []
    (tmp_path / "a.json").touch()
    assert [f"{prefix} has .json already" in problem for problem in existing_dataset(prefix)] == [True]
    build(tmp_path / "a", [3])
    assert existing_dataset(prefix) == [
        f"--output-prefix: {prefix} has .bin, .idx, .json already; choose another, or replace what is there "
        "with --overwrite"
    ]


MANY = """\
import dataclasses, json, os, pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from megatron.curriculum.analysis_folder import load_column
from megatron.data.corpora import open_splits
from tests.support.configurations import make_config
from tools import merge_datasets

folder, *prefixes = sys.argv[1:]
blend = tuple(word for number, prefix in enumerate(prefixes) for word in (str(1 + number), prefix))
config = make_config("--seq-length 8 --split 1")
data = dataclasses.replace(config.data, mock_data=False, data_path=blend)
train = open_splits(dataclasses.replace(config, data=data))["train"]
columns = [load_column(pathlib.Path(folder), "column", 3) for _ in prefixes]
sys.argv = ["merge", "--input", *prefixes, "--output-prefix", folder + "/merged"]
merge_datasets.main()
firsts = [int(corpus.window(0)[0]) for _, corpus in train]
print(json.dumps([firsts, [weight for weight, _ in train], sum(map(len, columns))]))
"""


def test_many_datasets_with_few_open_files(tmp_path: Path) -> None:
    """A hundred datasets and analyses in a process that may open 64 files."""
    prefixes = [build(tmp_path / f"{number:03}", [9, 4], seed=number) for number in range(100)]
    np.save(tmp_path / "column.npy", np.arange(3))
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), *prefixes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    firsts, weights, values = json.loads(done.stdout.splitlines()[-1])
    parts = [np.random.default_rng(number).integers(0, 1000, 13) for number in range(100)]
    assert firsts == [part[0] for part in parts]
    assert weights == list(range(1, 101)) and values == 300
    merged = open_source(str(tmp_path / "merged"), False).dataset
    assert np.array_equal(merged.tokens, np.concatenate(parts)) and len(merged) == 200


def config_of(flags: str, **data) -> Config:
    """A configuration with samples of 8 tokens from files."""
    config = make_config("--seq-length 8 " + flags)
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, **{"mock_data": False, "data_path": None, **data})
    )


@pytest.mark.parametrize(("tokens", "windows"), [(9, 1), (16, 1), (17, 2), (24, 2), (25, 3), (100, 12)])
def test_a_sample_needs_one_token_more_than_its_length(tmp_path: Path, tokens: int, windows: int) -> None:
    """Sample i is the tokens i*S to i*S + S, both of them included."""
    corpus = open_corpus(open_source(build(tmp_path / "a", [tokens]), False), (0.0, 1.0), 8, "train")
    assert corpus is not None and corpus.windows == windows
    all_tokens = np.random.default_rng(0).integers(0, 1000, tokens).tolist()
    for i in range(windows):
        assert corpus.window(i).tolist() == all_tokens[i * 8 : i * 8 + 9]
        assert corpus.window(i, 3, 4).tolist() == all_tokens[i * 8 + 3 : i * 8 + 8]
        assert corpus.window(i, 8, 0).tolist() == [all_tokens[i * 8 + 8]]


def test_splits_are_ranges_of_whole_sequences(tmp_path: Path) -> None:
    """Ten sequences by 8,1,1; the bounds of 7,2,1 of five are 3.5 and 4.5, rounded to the even 4."""
    lengths = [12, 9, 30, 11, 10, 9, 20, 13, 40, 9]
    tokens = np.random.default_rng(0).integers(0, 1000, sum(lengths))
    prefix = build(tmp_path / "a", lengths)
    source = open_source(prefix, False)
    for split, sequences in (("8,1,1", [(0, 8), (8, 9), (9, 10)]), ("1,1", [(0, 5), (5, 10), (10, 10)])):
        opened = open_splits(config_of("", data_path=(prefix,), split=split))
        assert list(opened) == list(SPLITS)
        for name, (first, last) in zip(SPLITS, sequences):
            part = tokens[sum(lengths[:first]) : sum(lengths[:last])]
            if first == last:
                assert opened[name] == []
                continue
            ((weight, corpus),) = opened[name]
            assert weight is None and corpus.tokens.tolist() == part.tolist()
            assert identity(corpus) == {
                "fingerprint": source.fingerprint,
                "sequences": [first, last],
                "seq_length": 8,
                "samples": (len(part) - 1) // 8,
            }
            assert (corpus.name, corpus.sidecar) == (prefix, source.sidecar)
    five = open_source(build(tmp_path / "b", [20] * 5), False)
    found = [open_corpus(five, share, 8, "valid") for share in ((0.0, 0.7), (0.7, 0.9), (0.9, 1.0))]
    assert [one and one.sequences for one in found] == [(0, 4), None, (4, 5)]


def test_a_split_too_small_for_a_sample_is_refused_in_training_alone(tmp_path: Path) -> None:
    source = open_source(build(tmp_path / "a", [8, 20]), False)
    said = "its train split has 1 of 2 sequences with 8 tokens, and a sample needs 9;"
    with pytest.raises(UserError, match=said):
        open_corpus(source, (0.0, 0.5), 8, "train")
    assert open_corpus(source, (0.0, 0.5), 8, "valid") is None
    assert open_corpus(source, (0.5, 0.5), 8, "train") is None


def test_a_blend_has_weights_where_every_other_word_is_a_number() -> None:
    assert parse_blend(("a",)) == [(None, "a")]
    assert parse_blend(("a", "b")) == [(None, "a"), (None, "b")]
    assert parse_blend(("0.3", "a", "7e-1", "b")) == [(0.3, "a"), (0.7, "b")]
    assert parse_blend(("1", "2")) == [(1.0, "2")]
    assert parse_blend(("1",)) == [(None, "1")]
    assert parse_blend(("0.3", "a", "b")) == [(None, "0.3"), (None, "a"), (None, "b")]
    assert parse_blend(("0.3", "a", "b", "c")) == [(None, name) for name in ("0.3", "a", "b", "c")]
    for weight in ("0", "-1", "inf", "nan"):
        with pytest.raises(UserError, match=f"^--x 1 a {weight} b: weights must be above 0 and finite"):
            parse_blend(("1", "a", weight, "b"), "--x")


WHOLE = {"first": [30, 12], "second": [25], "small": [8]}


def test_a_blend_of_files_of_their_own_for_every_split(tmp_path: Path) -> None:
    first, second, small = (
        build(tmp_path / name, lengths, seed) for seed, (name, lengths) in enumerate(WHOLE.items())
    )
    flags = {
        "train_data_path": ("3", first, "1", second),
        "valid_data_path": (second, small),
        "test_data_path": (),
    }
    splits = open_splits(config_of("", **flags))
    found = {
        name: [(weight, corpus.name, corpus.windows) for weight, corpus in some]
        for name, some in splits.items()
    }
    assert found == {"train": [(3.0, first, 5), (1.0, second, 3)], "valid": [(None, second, 3)], "test": []}


def test_a_run_needs_samples_to_train_on_and_to_validate_on(tmp_path: Path) -> None:
    prefix = build(tmp_path / "a", [30, 12])

    def problems(flags: str, split: str, name: str = "data_path") -> list[str]:
        config = config_of(flags, split=split, **{name: (prefix,)})
        try:
            require_samples(config, open_splits(config))
        except UserError as error:
            return list(error.problems)
        return []

    (of_training,) = problems("", "0,1")
    assert of_training == "no data is left for training; raise its share in --split 0,1"
    (of_validation,) = problems("--eval-interval 10 --eval-iters 1", "1")
    assert of_validation.startswith("no sample of 8 tokens is left for validation")
    assert of_validation.endswith("raise its share in --split 1, or set --eval-iters 0")
    (alone,) = problems("--eval-interval 10 --eval-iters 1", "1", "train_data_path")
    assert alone.endswith("name some data by --valid-data-path, or set --eval-iters 0")
    assert problems("--eval-interval 10 --eval-iters 0", "1") == []
    assert problems("--eval-interval 10 --eval-iters 1", "1,1") == []


@pytest.mark.parametrize(
    ("split", "parts"), [("969,30,1", "train valid test"), ("1", "train"), ("1,0,1", "train test")]
)
def test_parts_without_a_share_are_not_made_up(split: str, parts: str) -> None:
    config = make_config(f"--mock-data --vocab-size 40 --seq-length 8 --train-iters 1 --split {split}")
    assert [name for name, blend in open_splits(config).items() if blend] == parts.split()


def test_made_up_tokens_walk_through_the_vocabulary() -> None:
    """256 windows; from token to token 0 to 15 further, and behind the last id from 0 again."""

    def made(flags: str, split: str) -> Corpus:
        return mock_corpus(make_config("--seq-length 8 --vocab-size 40 " + flags), split)

    corpus = made("--seed 3", "train")
    assert (corpus.windows, len(corpus.tokens), corpus.sequences) == (256, 256 * 8 + 1, (0, 256))
    assert set(corpus.tokens.tolist()) == set(range(40))
    assert set((np.diff(corpus.tokens) % 40).tolist()) == set(range(16))
    assert np.array_equal(corpus.tokens, made("--seed 3", "train").tokens)
    assert not np.array_equal(corpus.tokens, made("--seed 3", "valid").tokens)
    assert not np.array_equal(corpus.tokens, made("--seed 4", "train").tokens)
    assert (corpus.name, corpus.source) == ("mock train", "mock-40")
