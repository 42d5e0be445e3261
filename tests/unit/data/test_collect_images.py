"""Images that this machine has: how many, of which classes, and what they show."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from megatron.base.errors import UserError
from tools.collect_images import write_images


def read(folder: Path) -> list[tuple[str, np.ndarray]]:
    return [(path.parent.name, np.asarray(Image.open(path))) for path in sorted(folder.glob("*/*/*.png"))]


@pytest.mark.parametrize("images, count, classes", [("digits", 1797, 10), ("letters", 62 * 21, 62)])
def test_every_image_is_written_once_and_the_same_every_time(
    images: str, count: int, classes: int, tmp_path: Path
) -> None:
    counts = write_images(tmp_path / "a", images, 300, 7)
    assert sum(counts["val"].values()) == 300 and sum(counts["train"].values()) == count - 300
    assert set(counts["train"]) == {path.name for path in (tmp_path / "a" / "train").iterdir()}
    assert len({name.lower() for name in counts["train"]}) == classes  # on file systems without cases, too
    found = read(tmp_path / "a")
    assert len(found) == count and {one.shape for _, one in found} == {(8, 8)}
    write_images(tmp_path / "b", images, 300, 7)
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, read(tmp_path / "b")))


def test_digits_are_those_of_the_library(tmp_path: Path) -> None:
    write_images(tmp_path / "digits", "digits", 1, 7)
    digits = load_digits()
    for path in list(tmp_path.glob("digits/*/*/*.png"))[:20]:
        number = int(path.stem)
        assert path.parent.name == str(digits.target[number])
        assert np.asarray(Image.open(path)) / 255 * 16 == pytest.approx(digits.images[number], abs=0.04)


def test_letters_differ_by_class_and_by_font_and_fill_their_image(tmp_path: Path) -> None:
    counts = write_images(tmp_path / "letters", "letters", 62, 7)
    assert (counts["train"] + counts["val"]) == Counter(dict.fromkeys(counts["train"] | counts["val"], 21))
    found = read(tmp_path / "letters")
    sides = [(one.max(1)[[0, -1]].min(), one.max(0)[[0, -1]].min()) for _, one in found]
    assert sum(max(pair) > 0 for pair in sides) > 0.99 * len(found)  # a faint edge may round to nothing
    assert len({one.tobytes() for _, one in found}) == len(found)  # none is in both splits, or in two classes


def test_a_matplotlib_without_fonts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"holds no font named DejaVuSans\*; install matplotlib by pip"):
        write_images(tmp_path / "letters", "letters", 20, 7)
    assert not (tmp_path / "letters").exists()


def test_too_many_for_validation_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves none of 20 images"):
        write_images(tmp_path / "few", "digits", 20, 7, most=20)
    assert not (tmp_path / "few").exists()
