"""An image as the model sees it: a random crop, mirrored and distorted in training, the middle of it in
validation. Geometry is Pillow's; every draw is a number of a key, so that nothing has a state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from megatron.base.random import draw_each

TRIES = 10
"""Crops that are drawn until one fits, as in torchvision."""
LOG_RATIOS = (math.log(3 / 4), math.log(4 / 3))
DRAWS_A_TRY = 4
FLIP = TRIES * DRAWS_A_TRY
"""The place of the draw that mirrors; behind it each operation has two: which one, and its sign."""
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
STRONGEST = 30


@dataclass(frozen=True)
class Augmentation:
    """How images become pixels; as the flags of their names."""

    height: int
    width: int
    crop_scale: float
    flip: float
    interpolation: str
    operations: int
    magnitude: int
    eval_crop: float


class Box(NamedTuple):
    """Part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def training_pixels(image: Image.Image, key: np.uint64, how: Augmentation) -> np.ndarray:
    """uint8 [channels, height, width] of an image augmented by the draws of a key."""
    draws = draw_each(key, np.arange(FLIP + 1 + 2 * how.operations))
    uniform = (draws >> np.uint64(11)) * 2.0**-53
    if how.crop_scale < 1:
        image = image.crop(random_box(image.width, image.height, how, uniform))
    image = image.resize((how.width, how.height), FILTERS[how.interpolation])
    if uniform[FLIP] < how.flip:
        image = ImageOps.mirror(image)
    for number in range(how.operations):
        which, sign = uniform[FLIP + 1 + 2 * number :][:2]
        operation = OPERATIONS[int(which * len(OPERATIONS))]
        image = operation(image, how.magnitude / STRONGEST, 1 if sign < 0.5 else -1)
    return _pixels(image)


def plain_pixels(image: Image.Image, how: Augmentation) -> np.ndarray:
    """uint8 [channels, height, width] of the middle of an image, resized so that nothing of it is
    stretched."""
    factor = max(how.height / image.height, how.width / image.width) / how.eval_crop
    size = max(round(image.width * factor), how.width), max(round(image.height * factor), how.height)
    image = image.resize(size, FILTERS[how.interpolation])
    left, top = (size[0] - how.width) // 2, (size[1] - how.height) // 2
    return _pixels(image.crop((left, top, left + how.width, top + how.height)))


def random_box(width: int, height: int, how: Augmentation, uniform: np.ndarray) -> Box:
    """A crop of at least this share of the image, whose sides are as 3 to 4 at most (arXiv 1409.4842); the
    largest such in the middle where none of the tries fits."""
    for number in range(TRIES):
        share, ratio, across, down = uniform[number * DRAWS_A_TRY :][:DRAWS_A_TRY]
        area = width * height * (how.crop_scale + share * (1 - how.crop_scale))
        wide = math.exp(LOG_RATIOS[0] + ratio * (LOG_RATIOS[1] - LOG_RATIOS[0]))
        crop_width, crop_height = round(math.sqrt(area * wide)), round(math.sqrt(area / wide))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(across * (width - crop_width + 1)), int(down * (height - crop_height + 1))
            return Box(left, top, left + crop_width, top + crop_height)
    crop_width = min(width, max(round(height * 4 / 3), 1))
    crop_height = min(height, max(round(width * 4 / 3), 1))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return Box(left, top, left + crop_width, top + crop_height)


def _pixels(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


Operation = Callable[[Image.Image, float, int], Image.Image]
"""From an image, a strength from 0 to 1, and a sign."""


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _enhanced(
    kind: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Operation:
    return lambda image, strength, sign: kind(image).enhance(1 + 0.9 * strength * sign)


OPERATIONS: tuple[Operation, ...] = (
    lambda image, strength, sign: image,
    lambda image, strength, sign: _moved(image, 1, 0.3 * strength * sign, 0, 0, 1, 0),
    lambda image, strength, sign: _moved(image, 1, 0, 0, 0.3 * strength * sign, 1, 0),
    lambda image, strength, sign: _moved(image, 1, 0, 150 / 331 * image.width * strength * sign, 0, 1, 0),
    lambda image, strength, sign: _moved(image, 1, 0, 0, 0, 1, 150 / 331 * image.height * strength * sign),
    lambda image, strength, sign: image.rotate(30 * strength * sign),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Sharpness),
    lambda image, strength, sign: ImageOps.posterize(image, 8 - round(4 * strength)),
    lambda image, strength, sign: ImageOps.solarize(image, int(256 * (1 - strength))),
    lambda image, strength, sign: ImageOps.autocontrast(image),
    lambda image, strength, sign: ImageOps.equalize(image),
)
"""Those of RandAugment (arXiv 1909.13719), with the strengths that torchvision has."""
