"""An image's augmentation is a function of its key; crops have the shares that are asked for, and validation
sees the middle."""

import numpy as np
import pytest
from PIL import Image

from megatron.base.keys import key
from megatron.base.random import draw_each
from megatron.batches.augment import (
    OPERATIONS,
    Augmentation,
    plain_pixels,
    random_box,
    training_pixels,
)

PLAIN = Augmentation(24, 32, 1.0, 0.0, "bilinear", 0, 9, 1.0)
CROPPED = Augmentation(24, 32, 0.2, 0.5, "bicubic", 2, 9, 0.875)


def picture(mode: str = "RGB", width: int = 50, height: int = 40) -> Image.Image:
    numbers = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(numbers).convert(mode)


def uniform(number: int, count: int = 41) -> np.ndarray:
    return (draw_each(np.uint64(key(number)), np.arange(count)) >> np.uint64(11)) * 2.0**-53


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_key_gives_the_same_pixels_and_another_others(mode: str, channels: int) -> None:
    one, again, other = (
        training_pixels(picture(mode), np.uint64(key("a", number)), CROPPED) for number in (1, 1, 2)
    )
    assert one.shape == (channels, 24, 32) and one.dtype == np.uint8
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_without_augmentation_an_image_is_resized_alone() -> None:
    wanted = np.asarray(picture().resize((32, 24), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(training_pixels(picture(), np.uint64(5), PLAIN), wanted)
    exact = Augmentation(40, 50, 1.0, 1.0, "bilinear", 0, 9, 1.0)
    mirrored = np.asarray(picture()).transpose(2, 0, 1)[:, :, ::-1]
    assert np.array_equal(training_pixels(picture(), np.uint64(5), exact), mirrored)


def test_half_of_the_images_are_mirrored() -> None:
    half = Augmentation(40, 50, 1.0, 0.5, "bilinear", 0, 9, 1.0)
    plain = np.asarray(picture()).transpose(2, 0, 1)
    same = [np.array_equal(training_pixels(picture(), np.uint64(key(n)), half), plain) for n in range(400)]
    assert abs(sum(same) - 200) < 5 * 10  # five standard deviations


@pytest.mark.parametrize(("width", "height"), [(50, 40), (640, 31), (8, 8), (1, 1), (1, 300)])
def test_crops_lie_inside_and_have_the_shares_and_sides_that_are_asked_for(width: int, height: int) -> None:
    how = Augmentation(8, 8, 0.3, 0.5, "bilinear", 0, 9, 1.0)
    boxes = [random_box(width, height, how, uniform(number)) for number in range(300)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    if width == 50:
        shares = [(b.right - b.left) * (b.bottom - b.top) / (width * height) for b in boxes]
        ratios = [(b.right - b.left) / (b.bottom - b.top) for b in boxes]
        assert 0.27 < min(shares) < 0.35 and max(shares) <= 1 and min(ratios) > 0.7 and max(ratios) < 1.43
        assert abs(np.mean(shares) - 0.6) < 0.1


def test_validation_sees_the_middle_of_an_image_that_is_not_stretched() -> None:
    """A square of one colour in the middle stays square, and with a smaller crop of the whole is larger."""
    image = Image.new("L", (100, 60))
    image.paste(255, (40, 20, 60, 40))
    sides = []
    for crop in (1.0, 0.5):
        (pixels,) = plain_pixels(image, Augmentation(48, 48, 1, 0, "bilinear", 0, 9, crop))
        rows, columns = (int((pixels > 127).any(axis).sum()) for axis in (1, 0))
        assert rows == columns
        assert np.array_equal(pixels, pixels[::-1]) and np.array_equal(pixels, pixels[:, ::-1])
        sides.append(rows)
    assert sides == [16, 32]
    (same,) = plain_pixels(Image.new("L", (7, 9), 3), Augmentation(9, 7, 1, 0, "bilinear", 0, 9, 1.0))
    assert same.shape == (9, 7) and (same == 3).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_operations_keep_size_and_mode_at_every_strength(number: int, mode: str) -> None:
    for strength in (0.0, 0.3, 1.0):
        for sign in (1, -1):
            changed = OPERATIONS[number](picture(mode), strength, sign)
            assert changed.size == (50, 40) and changed.mode == mode


def test_most_operations_do_nothing_at_strength_0() -> None:
    """All but those that look at an image's own values."""
    plain = np.asarray(picture())
    same = [np.array_equal(np.asarray(each(picture(), 0.0, 1)), plain) for each in OPERATIONS]
    assert same[:12] == [True] * 12
