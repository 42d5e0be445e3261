"""Write scikit-learn's handwritten digits, 1,797 images of 8 x 8 shades of grey, as a folder of images:
train/ and val/, and in each a folder for each class."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from megatron.base.errors import UserError
from megatron.base.files import whole_folder
from megatron.base.keys import key
from megatron.config.arguments import flag, parse

EXAMPLES = """\
  python tools/collect_images.py --output data/digits
  python pretrain_vit.py --data-path data/digits --img-h 8 --img-w 8 --patch-dim 2 --num-channels 1 ..."""
WHITE = 16
"""The largest number of a pixel there."""


@dataclass(frozen=True)
class Options:
    output: str = flag(help="folder for train/ and val/", metavar="FOLDER")
    val: int = flag(360, "images for validation", at_least=1, at_most=1000)
    most: int | None = flag(None, "write at most so many images of all; all 1,797", at_least=20)
    seed: int = flag(1234, "of which images go where")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES)
    if Path(options.output).exists():
        raise UserError(f"--output {options.output}: is there already; choose another folder or move it away")
    counts = write_digits(Path(options.output), options.val, options.seed, options.most)
    for split, found in counts.items():
        words = ", ".join(f"{digit} {count}" for digit, count in sorted(found.items()))
        print(f"{options.output}/{split}: {sum(found.values()):,} images ({words})")


def write_digits(output: Path, held_out: int, seed: int, most: int | None = None) -> dict[str, Counter[int]]:
    """Write the images, so many of them for validation, by keys of their numbers. How many of each digit are
    where."""
    from sklearn.datasets import load_digits  # (which takes a while to import)

    digits = load_digits()
    order = sorted(range(len(digits.images)), key=lambda number: key(seed, "digits", number))[:most]
    if held_out >= len(order):
        raise UserError(f"--val {held_out}: leaves none of {len(order)} images for training; lower it")
    counts: dict[str, Counter[int]] = {"train": Counter(), "val": Counter()}
    with whole_folder(output) as folder:
        for place, number in enumerate(order):
            split, digit = "val" if place < held_out else "train", int(digits.target[number])
            path = folder / split / str(digit) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.round(digits.images[number] * (255 / WHITE)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
            counts[split][digit] += 1
    return counts


if __name__ == "__main__":
    run_command(main)
