"""RandAugment's operations beside numbers written out by hand: where a bright spot goes, and what Pillow's
documents say of colours. Strengths are those of torchvision: at 1 a shear of 0.3, a move of 150 pixels of
331, a turn of 30 degrees, and factors of 1 ± 0.9."""

import math

import numpy as np
import pytest
from PIL import Image

from megatron.base.keys import key
from megatron.batches.augment import OPERATIONS, Augmentation, training_pixels

NAMES = ("identity", "shear x", "shear y", "translate x", "translate y", "rotate", "brightness", "color")
NAMES += ("contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize")
DO = dict(zip(NAMES, OPERATIONS, strict=True))
WIDTH, HEIGHT = 331, 662
X, Y = 160, 300
HALF = 5 / 9
"""The strength of factors 1.5 and 0.5."""
ROW = [20, 100, 240]


def changed(name: str, values: object, strength: float, sign: int) -> list:
    """An image of bytes, of gray or with colours last, after an operation."""
    return np.asarray(DO[name](Image.fromarray(np.array(values, np.uint8)), strength, sign)).tolist()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("name", "strength", "moved"),
    [
        ("shear x", 0.5, (-0.15 * Y, 0)),  # 45
        ("shear x", 1.0, (-0.3 * Y, 0)),
        ("shear y", 0.5, (0, -0.15 * X)),  # 24
        ("translate x", 0.2, (-30, 0)),
        ("translate x", 0.6, (-90, 0)),
        ("translate y", 0.2, (0, -60)),
        ("identity", 1.0, (0, 0)),
    ],
)
def test_one_bright_pixel_goes_where_it_should(
    name: str, strength: float, moved: tuple[float, float], sign: int
) -> None:
    image = Image.new("L", (WIDTH, HEIGHT))
    image.putpixel((X, Y), 255)
    ((y, x),) = np.argwhere(np.asarray(DO[name](image, strength, sign)))
    assert (x, y) == (X + round(sign * moved[0]), Y + round(sign * moved[1]))


@pytest.mark.parametrize(("strength", "degrees"), [(1.0, 30), (0.5, 15)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_spot_to_the_right_of_the_middle_turns_about_it(strength: float, degrees: int, sign: int) -> None:
    """Against the clock, whose hand points up where rows are few."""
    image, far = Image.new("L", (WIDTH, HEIGHT)), 100
    image.paste(255, (165 + far - 2, 331 - 2, 165 + far + 3, 331 + 2))
    y, x = np.argwhere(np.asarray(DO["rotate"](image, strength, sign))).mean(0) + 0.5
    angle = math.radians(degrees)
    assert x == pytest.approx(165.5 + far * math.cos(angle), abs=0.5)
    assert y == pytest.approx(331 - sign * far * math.sin(angle), abs=0.5)


@pytest.mark.parametrize(
    ("name", "values", "brighter", "darker"),
    [
        ("brightness", [ROW], [[30, 150, 255]], [[10, 50, 120]]),  # from black
        ("contrast", [ROW], [[0, 90, 255]], [[70, 110, 180]]),  # from the mean, which is 120
        # from its gray: 0.299 · 200 + 0.587 · 100 + 0.114 · 50 is 124
        ("color", [[[200, 100, 50]]], [[[238, 88, 13]]], [[[162, 112, 87]]]),
        # from what is smoothed by 5 in the middle and 1 around it, of 13; its border stays
        (
            "sharpness",
            [[0, 0, 0], [0, 130, 0], [0, 0, 0]],
            [[0, 0, 0], [0, 170, 0], [0, 0, 0]],
            [[0, 0, 0], [0, 90, 0], [0, 0, 0]],
        ),
    ],
)
def test_factors_lead_away_from_what_pillow_names_or_towards_it(
    name: str, values: list, brighter: list, darker: list
) -> None:
    """Rounded by at most one."""
    np.testing.assert_allclose(changed(name, values, HALF, 1), brighter, rtol=0, atol=1)
    np.testing.assert_allclose(changed(name, values, HALF, -1), darker, rtol=0, atol=1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("name", "strength", "values", "wanted"),
    [
        ("posterize", 0.25, [[255, 0b10110111, 3]], [[254, 0b10110110, 2]]),  # 7 bits
        ("posterize", 0.5, [[255, 0b10110111, 3]], [[252, 0b10110100, 0]]),  # 6
        ("posterize", 1.0, [[255, 0b10110111, 3]], [[240, 0b10110000, 0]]),  # 4
        ("solarize", 0.25, [[0, 191, 192, 255]], [[0, 191, 63, 0]]),  # from 192 on inverted
        ("solarize", 0.5, [[0, 127, 128, 200]], [[0, 127, 127, 55]]),
        ("solarize", 1.0, [[0, 1, 128, 255]], [[255, 254, 127, 0]]),
        ("autocontrast", 0.3, [[50, 80, 101]], [[0, 150, 255]]),  # 51 values to 255
        ("equalize", 0.3, [[100] * 255, [200] * 255], [[0] * 255, [255] * 255]),
    ],
)
def test_operations_without_a_sign(name: str, strength: float, values: list, wanted: list, sign: int) -> None:
    assert changed(name, values, strength, sign) == wanted


def test_a_magnitude_is_a_share_of_30_and_every_operation_is_drawn_with_both_signs() -> None:
    numbers = np.random.default_rng(3).integers(0, 200, (16, 20, 3), dtype=np.uint8)
    image, how = Image.fromarray(numbers), Augmentation(16, 20, 1.0, 0.0, "bilinear", 1, 12, 1.0)
    wanted = {np.asarray(do(image, 0.4, sign)).tobytes() for do in OPERATIONS for sign in (1, -1)}
    found = [training_pixels(image, np.uint64(key(number)), how) for number in range(400)]
    assert {np.moveaxis(one, 0, -1).tobytes() for one in found} == wanted and len(wanted) == 2 * 9 + 5
