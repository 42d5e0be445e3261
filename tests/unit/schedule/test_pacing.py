import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.schedule.pacing import (
    CURVES,
    Pacing,
    first_decrease,
    levels,
    load_function,
    meaning,
    pacing_problems,
)

# Every published GPT and BERT recipe: what counts the steps, and curve, minimum, maximum, duration, quantum,
# root.
GPT = [
    recipe
    for steps, kept_steps in ((110_000, 200_000), (73_000, 133_333), (55_000, 100_000))
    for recipe in (
        ("curriculum", Pacing("fixed_root", 1, 100, steps, 1, 2.0)),
        ("curriculum", Pacing("fixed_root", 80, 2048, steps, 8, 1.0)),
        ("random-LTD", Pacing("fixed_linear", 128, 2048, kept_steps, 16)),
    )
]
BERT = [
    recipe
    for steps, kept_steps in ((960_000, 2_000_000), (640_000, 1_340_000), (480_000, 1_000_000))
    for recipe in (
        ("curriculum", Pacing("fixed_root", 5, 100, steps, 1, 2.0)),
        ("curriculum", Pacing("fixed_root", 128, 512, steps, 8, 1.0)),
        ("random-LTD", Pacing("fixed_linear", 128, 512, kept_steps, 16)),
    )
]


def published_value(pacing: Pacing, step: int, minimum_rounds_up: bool) -> int:
    """DeepSpeed 0.19.8 in plain Python; the random-LTD schedule there is not minimum_rounds_up to the
    minimum, and neither of the two updates a value that begins at the maximum."""
    if pacing.minimum >= pacing.maximum:
        return pacing.minimum
    value = math.floor(
        (step / pacing.duration) ** (1 / pacing.root) * (pacing.maximum - pacing.minimum) + pacing.minimum
    )
    value -= value % pacing.quantum
    if minimum_rounds_up:
        value = max(value, math.ceil(pacing.minimum / pacing.quantum) * pacing.quantum)
    return min(value, pacing.maximum)


def our_value(pacing: Pacing, step: int) -> int:
    """The same, never below its start, and the maximum from the duration on."""
    return (
        pacing.maximum if step >= pacing.duration else published_value(pacing, step, minimum_rounds_up=True)
    )


def first_at(values: np.ndarray, wanted: int, first: int) -> int:
    return first + int(np.argmax(values >= wanted))


@st.composite
def growing(draw) -> Pacing:
    minimum = draw(st.integers(1, 300))
    return Pacing(
        curve=draw(st.sampled_from(["fixed_linear", "fixed_root"])),
        minimum=minimum,
        maximum=minimum + draw(st.integers(0, 300)),
        duration=draw(st.integers(1, 200)),
        quantum=draw(st.integers(1, 40)),
        root=1.0,
    )


@st.composite
def any_growing(draw) -> Pacing:
    pacing = draw(growing())
    root = draw(st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.5])) if pacing.curve == "fixed_root" else 1.0
    return Pacing(pacing.curve, pacing.minimum, pacing.maximum, pacing.duration, pacing.quantum, root)


@given(any_growing(), st.integers(0, 250), st.integers(1, 250))
@settings(deadline=None)
def test_values_are_the_formulas_of_a_plain_loop(pacing: Pacing, first: int, count: int) -> None:
    steps = range(first, first + count)
    assert levels(pacing, first, count).tolist() == [our_value(pacing, step) for step in steps]
    for minimum_rounds_up in (True, False):
        expected = [published_value(pacing, step, minimum_rounds_up) for step in steps]
        assert (
            levels(
                pacing, first, count, reference_schedules=True, minimum_rounds_up=minimum_rounds_up
            ).tolist()
            == expected
        )


@given(any_growing())
@settings(deadline=None)
def test_a_pacing_never_decreases_and_stays_within_its_bounds(pacing: Pacing) -> None:
    for reference_schedules in (False, True):
        values = levels(pacing, 0, 3 * pacing.duration, reference_schedules=reference_schedules)
        assert first_decrease(values, 0) is None
        assert np.all(values >= pacing.minimum) and np.all(values <= pacing.maximum)
        assert np.all((values % pacing.quantum == 0) | (values == pacing.maximum))


@given(any_growing())
@settings(deadline=None)
def test_the_maximum_is_reached_exactly_at_the_duration(pacing: Pacing) -> None:
    values = levels(pacing, 0, pacing.duration + 50)
    assert np.all(values[pacing.duration :] == pacing.maximum)
    if math.ceil(pacing.minimum / pacing.quantum) * pacing.quantum < pacing.maximum:
        assert values[pacing.duration - 1] < pacing.maximum
    # the published rounding is on time only where the maximum is a multiple of the quantum
    published = levels(pacing, pacing.duration, 1, reference_schedules=True)[0]
    assert published == max(
        pacing.maximum // pacing.quantum * pacing.quantum, levels(pacing, 0, 1, reference_schedules=True)[0]
    )


@given(any_growing(), st.integers(0, 200), st.integers(1, 100), st.booleans())
@settings(deadline=None)
def test_any_stretch_is_that_part_of_the_whole(
    pacing: Pacing, first: int, count: int, reference_schedules: bool
) -> None:
    whole = levels(pacing, 0, first + count, reference_schedules=reference_schedules)
    assert np.array_equal(
        levels(pacing, first, count, reference_schedules=reference_schedules), whole[first:]
    )


@pytest.mark.parametrize(
    "pacing, published_arrival",
    [(Pacing("fixed_root", 10, 100, 500, 8, 2.0), 546), (Pacing("fixed_root", 66, 197, 1000, 8, 1.0), 1023)],
)
def test_the_published_rounding_arrives_late(pacing: Pacing, published_arrival: int) -> None:
    assert (
        first_at(levels(pacing, 1, 2_000, reference_schedules=True), pacing.maximum, 1) == published_arrival
    )
    assert first_at(levels(pacing, 1, 2_000), pacing.maximum, 1) == pacing.duration


def test_a_start_between_two_multiples_is_lifted() -> None:
    pacing = Pacing("fixed_linear", 8, 2048, 1000, 16)
    assert levels(pacing, 1, 1)[0] == 16
    assert levels(pacing, 1, 1, reference_schedules=True)[0] == 16
    assert levels(pacing, 0, 1, reference_schedules=True, minimum_rounds_up=False)[0] == 0, (
        "random-LTD does not round its minimum up in DeepSpeed 0.19.8"
    )
    assert levels(pacing, 0, 1, minimum_rounds_up=False)[0] == 16, (
        "without the switch nothing starts below the minimum"
    )
    assert levels(Pacing("fixed_linear", 9, 10, 100, 16), 0, 100).tolist() == [10] * 100


@pytest.mark.parametrize(
    "name, pacing",
    GPT + BERT,
    ids=lambda value: value if isinstance(value, str) else f"{value.curve}-{value.maximum}-{value.duration}",
)
def test_published_schedules_are_the_same_with_and_without_the_switch(name: str, pacing: Pacing) -> None:
    """At the start, around the end and at a hundred places between; values are those of the formula in
    plain Python."""
    curriculum, last = name == "curriculum", pacing.duration
    for first, count in [(int(curriculum), 500), (last - 500, 1000)] + [
        (last * i // 100, 3) for i in range(1, 100)
    ]:
        mine = levels(pacing, first, count)
        assert np.array_equal(
            mine, levels(pacing, first, count, reference_schedules=True, minimum_rounds_up=curriculum)
        )
        assert mine.tolist() == [
            published_value(pacing, step, minimum_rounds_up=False) for step in range(first, first + count)
        ]
    assert levels(pacing, int(curriculum), 1)[0] == pacing.minimum
    assert levels(pacing, last - 1, 2).tolist() == [pacing.maximum - pacing.quantum, pacing.maximum]


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=6)
    .map(sorted)
    .flatmap(
        lambda values: st.tuples(
            st.just(values),
            st.lists(st.integers(1, 60), min_size=len(values) - 1, max_size=len(values) - 1).map(sorted),
        )
    ),
    st.integers(0, 70),
    st.integers(1, 70),
)
@settings(deadline=None)
def test_discrete_values_are_those_of_a_plain_loop(
    table: tuple[list[int], list[int]], first: int, count: int
) -> None:
    values, until = table
    expected = []
    for step in range(first, first + count):
        at = 0
        while at < len(until) and step > until[at]:
            at += 1
        expected.append(values[at])
    pacing = Pacing("fixed_discrete", values=tuple(values), until=tuple(until))
    assert not pacing_problems(pacing, "x")
    for reference_schedules in (False, True):
        assert levels(pacing, first, count, reference_schedules=reference_schedules).tolist() == expected


def squares(step: int) -> float:
    return step**2 + 0.9


def test_a_custom_curve_is_a_function_of_the_step_capped_at_the_maximum() -> None:
    pacing = Pacing("custom", 1, 50, function=f"{__name__}:squares")
    assert levels(pacing, 1, 9).tolist() == [1, 4, 9, 16, 25, 36, 49, 50, 50]
    assert not pacing_problems(pacing, "x")


@pytest.mark.parametrize("name", ["", "math", "math:", ":sqrt", "math:no_such_function", "no_such_module:f"])
def test_a_function_that_cannot_be_loaded_is_a_mistake_of_the_user(name: str) -> None:
    with pytest.raises(UserError, match="written module:function") as caught:
        load_function(name, "a pacing's function")
    assert repr(name) in caught.value.problems[0]
    assert load_function("math:sqrt", "x") is math.sqrt


@pytest.mark.parametrize(
    "pacing, words",
    [
        (Pacing("quadratic", 1, 2), ["'quadratic'", *CURVES]),
        (Pacing("fixed_linear", 5, 3), ["minimum 5", "maximum 3"]),
        (Pacing("fixed_root", 1, 3, 0), ["duration 0", "at least 1"]),
        (Pacing("fixed_root", 1, 3, 5, 0), ["quantum 0", "positive"]),
        (Pacing("fixed_root", 1, 3, 5, 1, 0.0), ["root 0.0", "positive"]),
        (Pacing("fixed_root", 1, 3, 5, 1, math.nan), ["root nan"]),
        (Pacing("custom", 1, 3), ["function=module:function"]),
        (Pacing("fixed_discrete", values=(1, 2), until=()), ["2", "0", "one more value"]),
        (Pacing("fixed_discrete"), ["one more value"]),
        (Pacing("fixed_discrete", values=(2, 1), until=(5,)), ["never decrease"]),
        (Pacing("fixed_discrete", values=(1, 2, 3), until=(9, 5)), ["never decrease"]),
    ],
)
def test_every_wrong_number_is_one_problem(pacing: Pacing, words: list[str]) -> None:
    (problem,) = pacing_problems(pacing, "the metric")
    assert problem.startswith("the metric: ")
    assert all(word in problem for word in words)


def test_several_wrong_numbers_are_told_together() -> None:
    assert len(pacing_problems(Pacing("fixed_root", 5, 3, 0, 0), "x")) == 3
    assert not any(pacing_problems(pacing, "x") for _, pacing in GPT + BERT)


def test_a_decrease_is_found_and_placed() -> None:
    assert first_decrease(np.array([1, 2, 2, 5]), 7) is None
    assert first_decrease(np.array([3]), 7) is None
    message = first_decrease(np.array([1, 4, 2, 1]), 7)
    assert message is not None and "from 4 to 2 at step 9" in message


def test_a_kept_length_that_is_constant_stays_off_the_quantum() -> None:
    """DeepSpeed's random-LTD updates only what is below the maximum."""
    pacing = Pacing("fixed_linear", 100, 100, 10, 16)
    for reference_schedules in (False, True):
        values = levels(pacing, 0, 15, reference_schedules=reference_schedules, minimum_rounds_up=False)
        assert values.tolist() == [100] * 15


LINEAR = Pacing("fixed_linear", 8, 64, 10, 8)
DISCRETE = Pacing("fixed_discrete", values=(8, 16), until=(5,))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LINEAR, Pacing("fixed_linear", 8, 64, 10, 8, root=2.0)),
        (LINEAR, Pacing("fixed_root", 8, 64, 10, 8, root=1.0)),
        (LINEAR, Pacing("fixed_linear", 8, 64, 10, 8, function="a:b", values=(1,))),
        (Pacing("fixed_linear", 8, 8, 10), Pacing("fixed_root", 8, 8, 20, 3, 2.0)),
        (DISCRETE, Pacing("fixed_discrete", 8, 32, 7, 8, 2.0, (8, 16), (5,))),
        (DISCRETE, Pacing("fixed_discrete", values=(8, 8, 16, 16), until=(2, 5, 9))),
        (Pacing("custom", 0, 9, function="a:b"), Pacing("custom", 5, 9, 7, 8, 2.0, function="a:b")),
    ],
)
def test_pacings_that_mean_the_same_are_equal(one: Pacing, other: Pacing) -> None:
    assert meaning(one) == meaning(other)
    if one.curve != "custom":
        assert levels(one, 1, 30).tolist() == levels(other, 1, 30).tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LINEAR, Pacing("fixed_root", 8, 64, 10, 8, root=2.0)),
        (LINEAR, Pacing("fixed_linear", 8, 64, 11, 8)),
        (DISCRETE, Pacing("fixed_discrete", values=(8, 16), until=(6,))),
        (Pacing("custom", 0, 9, function="a:b"), Pacing("custom", 0, 9, function="a:c")),
    ],
)
def test_pacings_that_differ_are_not(one: Pacing, other: Pacing) -> None:
    assert meaning(one) != meaning(other)


def test_deepspeeds_percentiles_are_shares_of_the_maximum_of_a_list() -> None:
    to_half = Pacing("fixed_discrete", 0, 100, values=(10, 50), until=(5,))
    assert meaning(to_half, True) != meaning(Pacing("fixed_discrete", values=(10, 50), until=(5,)), True)
