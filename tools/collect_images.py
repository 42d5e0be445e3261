"""Write small images that this machine has as a folder of images: train/ and val/, and in each a folder for
each class. They are scikit-learn's 1,797 handwritten digits, 8 x 8 shades of grey, or 62 letters and digits
in 21 fonts of matplotlib, drawn like them."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.base.keys import key
from megatron.config.arguments import parse
from megatron.config.flags import flag

EXAMPLES = """\
  python tools/collect_images.py --output data/digits
  python tools/collect_images.py --images letters --output data/letters
  python pretrain_vit.py --data-path data/digits --img-h 8 --img-w 8 --patch-dim 2 --num-channels 1 ..."""
WHITE = 16
"""The largest number of a pixel of scikit-learn's digits."""
SIDE, DRAWN = 8, 64
"""Pixels of an image's side, and of a letter before it is made as small."""
LETTERS = string.digits + string.ascii_letters
FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmti10", "cmtt10")
"""How the names of matplotlib's fonts begin that have all of these."""


@dataclass(frozen=True)
class Options:
    output: str = flag(help="folder for train/ and val/", metavar="FOLDER")
    images: str = flag(
        "digits", "handwritten digits, or printed letters and digits", choices=("digits", "letters")
    )
    val: int = flag(360, "images for validation", at_least=1, at_most=1000)
    most: int | None = flag(None, "write at most so many images of all", at_least=20)
    seed: int = flag(1234, "of which images go where")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    if Path(options.output).exists():
        raise UserError(f"--output {options.output}: is there already; choose another folder or move it away")
    counts = write_images(Path(options.output), options.images, options.val, options.seed, options.most)
    for split, found in counts.items():
        words = ", ".join(f"{name} {count}" for name, count in sorted(found.items()))
        print(f"{options.output}/{split}: {sum(found.values()):,} images ({words})")


def write_images(
    output: Path, images: str, held_out: int, seed: int, most: int | None = None
) -> dict[str, Counter[str]]:
    """Write the images, so many of them for validation, by keys of their numbers. How many of each class are
    where."""
    every = list(IMAGES[images]())
    order = sorted(range(len(every)), key=lambda number: key(seed, images, number))[:most]
    if held_out >= len(order):
        raise UserError(f"--val {held_out}: leaves none of {len(order)} images for training; lower it")
    counts: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    with whole_folder(output) as folder:
        for place, number in enumerate(order):
            split, (name, pixels) = "val" if place < held_out else "train", every[number]
            path = folder / split / name / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            counts[split][name] += 1
    return counts


def _digits() -> Iterator[tuple[str, np.ndarray]]:
    """Class and pixels, uint8 [8, 8], of every handwritten digit."""
    from sklearn.datasets import load_digits  # (which takes a while to import)

    digits = load_digits()
    for target, shades in zip(digits.target, digits.images):
        yield str(target), np.round(shades * (255 / WHITE)).astype(np.uint8)


def _letters() -> Iterator[tuple[str, np.ndarray]]:
    """Class and pixels, uint8 [8, 8], of every letter in every font; light on dark, and as high or as wide as
    the image, as the handwritten digits are."""
    for path in _fonts():
        font = ImageFont.truetype(path, DRAWN)
        for letter in LETTERS:
            yield _class_of(letter), _drawn(letter, font)


def _fonts() -> list[Path]:
    """Fonts that matplotlib brings. UserError where it has none: packages of a system keep them elsewhere."""
    from matplotlib import get_data_path

    folder = Path(get_data_path(), "fonts", "ttf")
    named = (path for path in folder.glob("*.ttf") if path.stem.startswith(FONTS))
    if found := sorted(path for path in named if "Display" not in path.stem):
        return found
    raise UserError(f"{folder}: holds no font named {FONTS[0]}*; install matplotlib by pip, which brings it")


def _class_of(letter: str) -> str:
    """A folder's name that differs in more than its case."""
    return f"small_{letter}" if letter.islower() else letter


def _drawn(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    left, top, right, bottom = (round(side) for side in font.getbbox(letter))
    side = max(right - left, bottom - top)
    canvas = Image.new("L", (side, side))
    corner = ((side - right + left) // 2 - left, (side - bottom + top) // 2 - top)
    ImageDraw.Draw(canvas).text(corner, letter, font=font, fill=255)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))


IMAGES: dict[str, Callable[[], Iterator[tuple[str, np.ndarray]]]] = {"digits": _digits, "letters": _letters}


if __name__ == "__main__":
    run_command(main)
