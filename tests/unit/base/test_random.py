import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.keys import key
from megatron.base.random import choose, draw, mix, normal, permute, shuffle

WORD = 1 << 64
NORMALS = [-0.20529554859944546, -0.41210545881290045, 0.04428406216287016, -0.21081342686124507]


def plain_mix(x: int) -> int:
    """MurmurHash3's finaliser, in Python's own integers."""
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD % WORD
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 % WORD
    return x ^ (x >> 33)


def image(size: int, keyed: int) -> list[int]:
    return [int(permute(index, size, np.uint64(keyed))) for index in range(size)]


def chosen(length: int, wanted: int, keyed: int) -> np.ndarray:
    out = np.full(wanted, -1, np.int64)
    choose(length, out, np.uint64(keyed))
    return out


@given(x=st.integers(0, WORD - 1), counter=st.integers(0, 2**62))
@settings(deadline=None)
def test_mix_and_draw_are_the_published_mixer_over_a_weyl_sequence(x: int, counter: int) -> None:
    assert int(mix(np.uint64(x))) == plain_mix(x)
    assert int(draw(np.uint64(x), counter)) == plain_mix((x + (counter + 1) * 0x9E3779B97F4A7C15) % WORD)


def test_keys_never_change() -> None:
    """Data order and weights of every run hang on these numbers."""
    assert key(1234, "layers.3.mlp.up.weight") == 10668612132822512135
    assert key(1, 2, 3) == 5956392525945967625


def test_draws_never_change() -> None:
    assert image(10, key("permute")) == [5, 9, 2, 1, 7, 3, 0, 6, 8, 4]
    assert chosen(20, 6, key("choose")).tolist() == [1, 2, 3, 11, 12, 17]
    values = np.arange(8)
    shuffle(values, np.uint64(key("shuffle")))
    assert values.tolist() == [0, 6, 2, 5, 3, 4, 7, 1]
    # logarithm and cosine may differ in the last bit between machines
    assert normal(key("normal"), (2, 2), (0, 0), (2, 2)).ravel().tolist() == pytest.approx(NORMALS, rel=1e-13)


def test_keys_depend_on_every_part_and_on_their_order() -> None:
    parts = [
        (),
        (0,),
        (1,),
        (0, 0),
        (0, 1),
        (1, 0),
        ("a",),
        ("a", 0),
        (0, "a"),
        ("a", "b"),
        ("b", "a"),
        ("ab",),
        (-1,),
    ]
    assert len({key(*part) for part in parts}) == len(parts)
    assert all(0 <= key(*part) < WORD for part in parts)
    assert len({key(seed, step) for seed in range(100) for step in range(100)}) == 10_000


def test_what_key_returns_goes_straight_into_every_draw() -> None:
    keys = [key(seed) for seed in range(20)]
    assert min(keys) < 2**63 < max(keys)
    for keyed in sorted(keys):
        assert permute(3, 10, keyed) == permute(3, 10, np.uint64(keyed))
        assert draw(keyed, 3) == draw(np.uint64(keyed), 3)
        out, values = np.zeros(4, np.int64), np.arange(10)
        choose(10, out, keyed)
        assert np.array_equal(out, chosen(10, 4, keyed))
        shuffle(values, keyed)
        assert sorted(values) == list(range(10))


def test_a_permutation_of_every_small_size_is_one_to_one() -> None:
    for size in range(1, 301):
        assert sorted(image(size, key(7, size))) == list(range(size))


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1])
def test_a_permutation_of_a_large_size_is_one_to_one(size: int) -> None:
    assert sorted(image(size, key("large", size))) == list(range(size))


@pytest.mark.parametrize("size", [10**9 + 7, 2**40, 3 * 2**50 + 1])
def test_a_huge_permutation_stays_inside_and_never_repeats(size: int) -> None:
    places = [
        int(permute(index, size, np.uint64(5)))
        for index in itertools.chain(range(2_000), range(size - 2_000, size))
    ]
    assert len(set(places)) == 4_000 and min(places) >= 0 and max(places) < size
    # Places are as if uniform: the mean of n has standard deviation size/sqrt(12 n); 5 of them.
    assert abs(np.mean(places) / size - 0.5) < 5 / math.sqrt(12 * 4_000)


def test_different_keys_give_different_permutations() -> None:
    assert len({tuple(image(50, key(seed))) for seed in range(200)}) == 200
    assert {tuple(image(3, key(seed))) for seed in range(200)} == set(itertools.permutations(range(3)))
    assert {tuple(image(4, key(seed))) for seed in range(2_000)} == set(itertools.permutations(range(4)))


@pytest.mark.parametrize("size", [2, 7, 30])
def test_an_index_goes_anywhere_alike(size: int) -> None:
    """The place of one index is uniform over keys: every count within 5 standard deviations of a binomial."""
    keys = 4_000
    counts = np.bincount(
        [permute(size // 2, size, np.uint64(key("uniform", seed))) for seed in range(keys)], minlength=size
    )
    assert np.all(np.abs(counts - keys / size) < 5 * math.sqrt(keys / size * (1 - 1 / size)))


def test_shuffle_keeps_the_values_and_moves_them_anywhere_alike() -> None:
    counts = np.zeros((6, 6), int)
    rounds = 4_000
    for seed in range(rounds):
        values = np.arange(6)
        shuffle(values, np.uint64(key("shuffle", seed)))
        assert sorted(values) == list(range(6))
        counts[np.arange(6), values] += 1
    assert np.all(
        np.abs(counts - rounds / 6) < 5 * math.sqrt(rounds / 6 * 5 / 6)
    )  # 5 standard deviations of a binomial


@given(length=st.integers(0, 300), share=st.floats(0, 1), keyed=st.integers(0, WORD - 1))
@settings(deadline=None)
def test_choose_is_ascending_and_inside(length: int, share: float, keyed: int) -> None:
    wanted = int(length * share)
    out = chosen(length, wanted, keyed)
    assert np.all(np.diff(out) > 0)
    assert wanted == 0 or (out[0] >= 0 and out[-1] < length)


@pytest.mark.parametrize("length", [1, 2, 64, 1000])
def test_choosing_all_is_the_identity(length: int) -> None:
    assert np.array_equal(chosen(length, length, key(length)), np.arange(length))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("length, wanted", [(40, 15), (9, 1), (9, 8)])
def test_choose_is_uniform_over_positions_and_pairs(seed: int, length: int, wanted: int) -> None:
    """Every position, and every pair of neighbours, is kept as often as a uniform draw keeps it: 5
    standard deviations of a binomial, so a true draw fails in one of 10^4 tests."""
    rounds = 4_000
    single, pair = np.zeros(length), np.zeros(length - 1)
    for turn in range(rounds):
        kept = np.zeros(length)
        kept[chosen(length, wanted, key(seed, turn))] = 1
        single += kept
        pair += kept[1:] * kept[:-1]
    for counts, chance in (
        (single, wanted / length),
        (pair, wanted * (wanted - 1) / (length * (length - 1))),
    ):
        assert np.all(np.abs(counts - rounds * chance) <= 5 * math.sqrt(rounds * chance * (1 - chance)))


@st.composite
def boxes(shapes) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A global shape, and the offset and shape of a box inside it."""
    whole = tuple(shapes(st.lists(st.integers(1, 7), max_size=4)))
    offset = tuple(shapes(st.integers(0, size - 1)) for size in whole)
    return whole, offset, tuple(shapes(st.integers(1, size - start)) for size, start in zip(whole, offset))


@given(boxes(), st.integers(0, WORD - 1))
@settings(deadline=None)
def test_any_box_of_normal_numbers_is_that_part_of_the_whole(box, keyed: int) -> None:
    whole, offset, shape = box
    full = normal(keyed, whole, (0,) * len(whole), whole)
    part = normal(keyed, whole, offset, shape)
    assert part.shape == shape and part.dtype == np.float64
    assert np.array_equal(part, full[tuple(slice(start, start + size) for start, size in zip(offset, shape))])


def test_normal_numbers_are_normal() -> None:
    """n numbers: mean, mean square, mean fourth power and the share beyond 2 within 5 of their standard
    deviations."""
    n = 200_000
    x = normal(key("normal"), (400, 500), (0, 0), (400, 500)).reshape(-1)
    assert abs(x.mean()) < 5 * math.sqrt(1 / n)
    assert abs((x**2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / n)
    tail = math.erfc(math.sqrt(2))
    assert abs((np.abs(x) > 2).mean() - tail) < 5 * math.sqrt(tail * (1 - tail) / n)
    assert abs((x[1:] * x[:-1]).mean()) < 5 / math.sqrt(n), "neighbours are correlated"
    assert np.all(np.isfinite(x)) and len(np.unique(x)) == n


def test_normal_numbers_of_two_keys_differ_and_are_not_related() -> None:
    a, b = (normal(key(seed, "w"), (20_000,), (0,), (20_000,)) for seed in (1, 2))
    assert abs((a * b).mean()) < 5 / math.sqrt(
        20_000
    )  # the mean of n products has standard deviation 1/sqrt(n)
