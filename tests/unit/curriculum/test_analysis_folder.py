"""Files of an analysis that do not belong together, or are not the ones that were written."""

import json
from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.curriculum.analysis_folder import WHOLE, identify, load_difficulty, read_manifest
from tests.support.corpora import make_analysis, make_corpus

SAMPLES = 40
NAMES = {"vocab_rarity.npy", "vocab_rarity.order.npy"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_analysis(make_corpus(SAMPLES, 16), tmp_path / "a")
    return tmp_path / "a"


def forget_fingerprints(folder: Path) -> None:
    """The manifest as it was written before there were any."""
    manifest = read_manifest(folder)
    for entry in manifest["metrics"].values():
        del entry["fingerprints"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_both_files_are_opened_and_identified(folder: Path) -> None:
    values, order = load_difficulty(folder, "vocab_rarity", SAMPLES)
    assert order.tolist() == sorted(range(SAMPLES), key=lambda sample: (values[sample], sample))
    found = identify(folder, "vocab_rarity")
    entry = read_manifest(folder)["metrics"]["vocab_rarity"]
    assert found == {"vocab_rarity": entry["checksum"], **entry["fingerprints"]}
    assert entry["fingerprints"].keys() == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_changed_file_is_refused_and_identified_as_another(folder: Path, name: str) -> None:
    before = identify(folder, "vocab_rarity")
    column = np.load(folder / name)
    column[[0, 1]] = column[[1, 0]] + [0, 1000 * (name == "vocab_rarity.npy")]
    np.save(folder / name, column)
    with pytest.raises(UserError, match=f"{name}: has changed since its analysis"):
        load_difficulty(folder, "vocab_rarity", SAMPLES)
    after = identify(folder, "vocab_rarity")
    assert {key for key in before if before[key] != after[key]} == {name}


@pytest.mark.parametrize("samples", [SAMPLES, 2 * WHOLE])
@pytest.mark.parametrize("damage", ["other values", "twice", "outside", "below", "ties"])
def test_an_order_of_other_values_is_refused_where_no_fingerprint_is_known(
    folder: Path, samples: int, damage: str
) -> None:
    forget_fingerprints(folder)
    generator = np.random.default_rng(0)
    values = generator.integers(0, 50, samples)
    order = np.argsort(values, kind="stable")
    np.save(folder / "vocab_rarity.npy", values)
    np.save(folder / "vocab_rarity.order.npy", order)
    assert np.array_equal(load_difficulty(folder, "vocab_rarity", samples)[1], order)
    if damage == "other values":
        order = np.argsort(generator.integers(0, 50, samples), kind="stable")
    elif damage == "ties":
        order = order[np.lexsort((-order, values[order]))]
    else:
        order[5] = {"twice": order[4], "outside": samples, "below": -1}[damage]
    np.save(folder / "vocab_rarity.order.npy", order)
    with pytest.raises(UserError, match=r"vocab_rarity\.order\.npy: .* belongs to other values"):
        load_difficulty(folder, "vocab_rarity", samples)


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "is of the older format 0, and this version reads format 1"), (2, "is of the newer format 2")],
)
def test_another_format_is_told_by_its_number(folder: Path, number: int, words: str) -> None:
    manifest = read_manifest(folder) | {"format": number}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=words) as caught:
        read_manifest(folder)
    assert "run tools/analyze_data.py again" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["[]", '"text"', "{}", '{"format": 1}', '{"format": 1, "metrics": []}', '{"format": 1, "metrics": null}'],
)
def test_a_manifest_of_another_shape_is_none(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=f"path {folder}: its manifest.json is not of format 1;"):
        read_manifest(folder)


def test_an_order_is_looked_at_to_its_end(folder: Path) -> None:
    """Up to WHOLE samples every place; of more, stretches all over it."""
    forget_fingerprints(folder)
    values = np.arange(4 * WHOLE)

    def is_refused(samples: int, first: int) -> bool:
        """Whether an order is, that is reversed from a place on."""
        order = np.arange(samples)
        order[first:] = order[first:][::-1]
        np.save(folder / "vocab_rarity.npy", values[:samples])
        np.save(folder / "vocab_rarity.order.npy", order)
        try:
            load_difficulty(folder, "vocab_rarity", samples)
        except UserError:
            return True
        return False

    assert all(is_refused(samples, samples - 2) for samples in (2, 300, WHOLE))
    for eighths in range(8):
        assert is_refused(4 * WHOLE, 4 * WHOLE * eighths // 8)
    assert not is_refused(4 * WHOLE, 4 * WHOLE)
