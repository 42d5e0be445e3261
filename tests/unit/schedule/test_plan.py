"""The plan against the published step and token counts, and against the simplest loop over steps."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.schedule import plan as module
from megatron.schedule.data_efficiency import DataEfficiency, RandomLTD
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.pacing import Pacing
from megatron.schedule.plan import Plan, reference_rows, rows_per_sample
from megatron.tasks.architecture import gpt_flops
from tests.support import configurations
from tests.support.configurations import GPT_1B, make_config

TRUNCATE = "--curriculum seqlen_truncate:min=80,max=2048,pacing=fixed_root,root=1,quantum=8,duration={} "
RESHAPE = TRUNCATE.replace("truncate", "reshape")
RARITY = (
    "--curriculum "
    "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,quantum=1,duration={} "
)
DROPPING = (
    "--random-ltd --random-ltd-min 128 --random-ltd-max 2048 --random-ltd-quantum 16 "
    "--random-ltd-layers 1-22 --random-ltd-duration {} "
)
COUNTERS = ("consumed_samples", "consumed_tokens", "raw_tokens", "drawn_tokens", "layer_tokens")


def plan_of(config: Config) -> Plan:
    return configurations.make_plan(config, describe(config)[0])


def make_plan(flags: str) -> Plan:
    return plan_of(make_config(flags))


def columns(plan: Plan) -> dict[str, np.ndarray]:
    """Every array of a plan by name, the caps among them."""
    arrays = {
        field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.name != "caps"
    }
    return arrays | plan.caps


def assert_equal(one: Plan, other: Plan, steps: int | None = None, but: tuple[str, ...] = ()) -> None:
    """Both plans are the same in their first `steps` steps."""
    assert columns(one).keys() == columns(other).keys()
    for name, values in columns(one).items():
        assert name in but or np.array_equal(values[:steps], columns(other)[name][:steps]), name


# billions of tokens, flags, steps, billions of raw tokens (None: equal to the tokens) and of drawn tokens
# (None: not reference_schedules)
PUBLISHED_RUNS = [
    (300, "", 286_103, None, None),
    (300, TRUNCATE.format(110_000), 339_169, None, 355.6),
    (300, DROPPING.format(200_000), 372_789, 390.9, 390.9),
    (300, TRUNCATE.format(110_000) + DROPPING.format(200_000), 377_264, 339.9, 395.6),
    (200, TRUNCATE.format(73_000), 225_952, None, None),
    (200, DROPPING.format(133_333), 248_526, 260.6, 260.6),
    (150, "", 143_052, None, None),
    (150, TRUNCATE.format(55_000), 169_584, None, None),
    (150, DROPPING.format(100_000), 186_395, 195.4, 195.4),
    (150, TRUNCATE.format(55_000) + DROPPING.format(100_000), 188_632, 170.0, None),
]


@pytest.mark.parametrize("tokens, flags, steps, raw, drawn", PUBLISHED_RUNS)
def test_published_steps_and_tokens_of_the_1b_recipe(
    tokens: int, flags: str, steps: int, raw: float | None, drawn: float | None
) -> None:
    """With and without the switch for published schedules; 512 samples of 2048 tokens a step at most."""
    flags = GPT_1B + f"--train-tokens {tokens}e9 --lr-decay-tokens {tokens}e9 " + flags
    plan, published = make_plan(flags), make_plan(flags + "--reference-schedules")
    assert plan.steps == steps
    assert tokens * 10**9 <= plan.consumed_tokens[-1] < tokens * 10**9 + 512 * 2048
    assert round(plan.raw_tokens[-1] / 1e9, 1) == (raw or tokens)
    assert drawn is None or round(plan.drawn_tokens[-1] / 1e9, 1) == drawn
    assert plan.drawn_tokens[-1] == steps * 512 * 2048
    assert_equal(plan, published, but=("learning_rate",))


def test_curriculum_counts_steps_from_1_and_random_ltd_from_0() -> None:
    plan = make_plan(GPT_1B + "--train-iters 210000 " + TRUNCATE.format(110_000) + DROPPING.format(200_000))
    assert plan.at(109_999).sequence_length == 2040 and plan.at(110_000).sequence_length == 2048
    assert plan.at(200_000).kept_length == 2032 and plan.at(200_001).kept_length == 2048
    assert plan.at(1).sequence_length == plan.at(1).kept_length == 80


def test_steps_of_the_1b_recipe_with_reshaping() -> None:
    flags = GPT_1B + "--train-tokens 300e9 " + RESHAPE.format(110_000)
    assert make_plan(flags).steps == 306_094
    assert make_plan(flags + "--micro-batch-size 1").steps == 306_094, (
        "the micro-batch changes nothing without the switch"
    )


@pytest.mark.parametrize(
    "micro, steps", [(1, 259_494), (2, 289_865), (4, 287_373), (8, 286_563), (16, 286_278)]
)
def test_published_steps_with_reshaping_depend_on_the_micro_batch(micro: int, steps: int) -> None:
    flags = (
        GPT_1B
        + f"--train-tokens 300e9 --reference-schedules --micro-batch-size {micro} "
        + RESHAPE.format(110_000)
    )
    assert make_plan(flags).steps == steps


@given(micro=st.integers(1, 9), full=st.integers(2, 200), length=st.integers(1, 200))
@settings(deadline=None)
def test_reshaped_rows_are_the_pieces_that_slicing_makes(micro: int, full: int, length: int) -> None:
    length = min(length, full)
    row = list(range(full + 1))
    assert rows_per_sample(full, np.array([length]))[0] == len(
        [k for k in range(full) if (k + 1) * length <= full]
    )
    pieces = []
    if length < full:
        for _ in range(micro):
            pieces += [
                row[k : k + length + 1] for k in range(0, full + 1, length + 1) if k + length + 1 <= full + 1
            ]
        pieces += [row[-length - 1 :] for _ in range(micro)]
        pieces = pieces[: math.ceil(micro * (full + 1) / (length + 1))]
        if len(pieces) % 2 and len(pieces) > 1:
            pieces.pop()
    assert reference_rows(micro, full, np.array([length]))[0] == (len(pieces) if length < full else micro)


def step_by_step(config: Config, steps: int) -> dict[str, list[int]]:
    """A plan in plain Python: what every step does follows from the flags and its number."""
    e, training, full, layers = (
        config.data_efficiency,
        config.training,
        config.data.seq_length,
        config.model.num_layers,
    )
    table = {name: [] for name in ("batch_size", "sequence_length", "kept_length", "rows", *COUNTERS)}
    totals = dict.fromkeys(COUNTERS, 0)
    for step in range(1, steps + 1):
        length, rows, batch = full, 1, training.global_batch_size
        if e.curriculum:
            name, pairs = e.curriculum[0].split(":")
            about = {key: int(value) for key, value in (pair.split("=") for pair in pairs.split(","))}
            length = paced(step, about["min"], about["max"], about["duration"], about["quantum"])
            rows = full // length if name == "seqlen_reshape" else 1
        kept, dropping = length, 0
        if e.random_ltd:
            kept = min(
                length,
                paced(
                    step - 1, e.random_ltd_min, e.random_ltd_max, e.random_ltd_duration, e.random_ltd_quantum
                ),
            )
            dropping = layers - 2
        if training.rampup_batch_size:
            start, increment, samples = training.rampup_batch_size
            stages, consumed = (batch - start) // increment, totals["consumed_samples"]
            if stages and consumed < samples:
                batch = start + increment * math.floor(consumed / (samples / stages))
        effective = (length * (layers - dropping) + kept * dropping) // layers
        layer_tokens = length * (layers - dropping) + kept * dropping
        row = batch * rows
        added = (batch, row * effective, row * length, batch * full, row * layer_tokens)
        totals = {name: totals[name] + more for name, more in zip(COUNTERS, added)}
        for name, value in {
            "batch_size": batch,
            "sequence_length": length,
            "kept_length": kept,
            "rows": row,
            **totals,
        }.items():
            table[name].append(value)
    return table


def paced(step: int, low: int, high: int, duration: int, quantum: int) -> int:
    if step >= duration:
        return high
    value = math.floor(step / duration * (high - low) + low)
    return min(max(value // quantum * quantum, math.ceil(low / quantum) * quantum), high)


@st.composite
def runs(draw) -> str:
    """Flags of a small run of up to 60 steps, with any of curriculum, random-LTD and batch ramp-up; none
    of them says when to stop."""
    flags = f"--num-layers {draw(st.integers(3, 6))} --global-batch-size 12 "
    flags += "--lr-decay-style constant --lr-warmup-iters 5 "
    if draw(st.booleans()):
        low = draw(st.integers(1, 100))
        shape = draw(st.sampled_from(["truncate", "reshape"]))
        high, duration = draw(st.integers(low, 128)), draw(st.integers(1, 70))
        flags += f"--curriculum seqlen_{shape}:min={low},max={high},duration={duration}"
        flags += f",quantum={draw(st.integers(1, 20))} "
    if draw(st.booleans()):
        flags += f"--random-ltd --random-ltd-min {draw(st.integers(1, 128))} "
        flags += f"--random-ltd-duration {draw(st.integers(1, 70))} "
        flags += f"--random-ltd-quantum {draw(st.integers(1, 20))} "
    if draw(st.booleans()):
        start, increment = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from([2, 4]))
        flags += f"--rampup-batch-size {start} {increment} {draw(st.integers(0, 500))} "
    return flags


@given(runs(), st.integers(1, 60))
@settings(deadline=None)
def test_a_plan_is_what_a_plain_loop_over_steps_counts(flags: str, steps: int) -> None:
    config = make_config(flags + f"--train-iters {steps}")
    plan = plan_of(config)
    for name, expected in step_by_step(config, steps).items():
        assert columns(plan)[name].tolist() == expected, name


@given(runs(), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_a_longer_run_begins_like_a_shorter_one(flags: str, steps: int, more: int) -> None:
    short, long = (
        make_plan(flags + f"--train-iters {steps}"),
        make_plan(flags + f"--train-iters {steps + more}"),
    )
    assert (short.steps, long.steps) == (steps, steps + more)
    assert_equal(short, long, steps)


@pytest.mark.parametrize("at_a_time", [1, 2, 7])
@pytest.mark.parametrize("shape", ["truncate", "reshape"])
@pytest.mark.parametrize("switch", ["", "--reference-schedules"])
def test_block_boundaries_change_nothing(
    monkeypatch: pytest.MonkeyPatch, at_a_time: int, shape: str, switch: str
) -> None:
    flags = (
        "--global-batch-size 12 --train-tokens 60e3 --lr-warmup-tokens 5000 --rampup-batch-size 2 2 100 "
        f"{switch} "
        f"--curriculum seqlen_{shape}:min=10,max=127,duration=40,quantum=8 --random-ltd --random-ltd-min "
        "16 --random-ltd-duration 50 "
        "--curriculum vocab_rarity:difficulty=percentile,min=2,max=100,pacing=fixed_root,duration=30 "
        "--curriculum other:pacing=fixed_discrete,values=3/5/9,until=14/15"
    )
    whole = make_plan(flags)
    assert whole.steps > 3 * at_a_time
    monkeypatch.setattr(module, "STEPS_AT_A_TIME", at_a_time)
    assert_equal(make_plan(flags), whole)


def test_a_ramp_up_that_ends_between_two_steps_does_not_depend_on_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step 88 begins when exactly 232 samples are drawn, and 232 / (232 / 7) is below 7 in floating point."""
    flags = "--micro-batch-size 1 --global-batch-size 8 --rampup-batch-size 1 1 232 --train-iters 100"
    whole = make_plan(flags)
    assert 232 in whole.consumed_samples
    monkeypatch.setattr(module, "STEPS_AT_A_TIME", 1)
    assert_equal(make_plan(flags), whole)


@given(runs(), st.integers(1, 40), st.integers(1, 300), st.integers(1, 30_000))
@settings(deadline=None)
def test_the_first_limit_reached_stops_the_run(flags: str, iters: int, samples: int, tokens: int) -> None:
    plan = make_plan(flags + f"--train-iters {iters} --train-samples {samples} --train-tokens {tokens}")
    reached = {
        "iters": plan.steps >= iters,
        "samples": plan.consumed_samples[-1] >= samples,
        "tokens": plan.consumed_tokens[-1] >= tokens,
    }
    assert any(reached.values())
    if plan.steps > 1:
        assert (
            plan.steps - 1 < iters
            and plan.consumed_samples[-2] < samples
            and plan.consumed_tokens[-2] < tokens
        )
    for unit, limit in (("iters", iters), ("samples", samples), ("tokens", tokens)):
        assert make_plan(flags + f"--train-{unit} {limit}").steps >= plan.steps


def test_counters_grow_and_read_back_by_step() -> None:
    plan = make_plan(
        "--train-iters 30 --global-batch-size 4 --random-ltd --random-ltd-min 16 --random-ltd-duration 20"
    )
    for name in COUNTERS:
        assert np.all(np.diff(getattr(plan, name)) > 0)
    assert plan.totals(0) == dict.fromkeys(COUNTERS, 0)
    assert plan.totals(30) == {name: int(getattr(plan, name)[29]) for name in COUNTERS}
    step = plan.at(3)
    assert (step.number, step.batch_size, step.drawn_before, step.rows) == (3, 4, 8, 4)
    assert step.learning_rate == plan.learning_rate[2] and step.kept_length == plan.kept_length[2]
    assert not plan.caps and step.caps == {}


def test_caps_of_every_metric_are_in_the_plan() -> None:
    plan = make_plan(GPT_1B + "--train-iters 3000 " + TRUNCATE.format(1_000) + RARITY.format(2_000))
    expected = [
        math.floor((step / 2_000) ** 0.5 * 99 + 1) if step < 2_000 else 100 for step in range(1, 3_001)
    ]
    assert plan.caps.keys() == {"vocab_rarity"} and plan.caps["vocab_rarity"].tolist() == expected
    assert plan.at(500).caps == {"vocab_rarity": 50}


def test_the_last_step_of_a_token_run_is_at_the_minimum_rate() -> None:
    plan = make_plan(
        GPT_1B
        + "--train-tokens 3e9 --lr-warmup-tokens 3e8 "
        + TRUNCATE.format(1_000)
        + DROPPING.format(2_000)
    )
    assert plan.learning_rate[-1] == pytest.approx(1e-6, rel=1e-12)
    assert plan.learning_rate[0] > 0 and plan.learning_rate.max() == pytest.approx(2e-4, rel=1e-2)


def test_published_rates_start_with_two_steps_at_zero() -> None:
    plan = make_plan(GPT_1B + "--train-tokens 30e9 --reference-schedules")
    per_step = 2e-4 * 512 * 2048 / 3e9
    assert plan.learning_rate[:4].tolist() == pytest.approx([0, 0, per_step, 2 * per_step], rel=1e-12)


def test_flops_of_a_row_by_hand() -> None:
    """Two layers, 8 wide, two heads of 4 that share one key-value head, SwiGLU of 16, 10 words, 6 tokens
    of which one layer keeps 3."""
    shape = (
        "--num-layers 2 --hidden-size 8 --num-attention-heads 2 --group-query-attention "
        "--num-query-groups 1 --swiglu --ffn-hidden-size 16 "
    )
    weights = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8 + 3 * 8 * 16
    linear = 6 * weights * 6 + 6 * weights * 3
    attention = (
        3 * 2 * 2 * 8 * (6 * 6 + 3 * 3) / 2
    )  # 2 matmuls of 2·T·T·8 FLOPs, half of them causal, and twice that backward
    logits = 6 * 8 * 10 * 6
    first = 6 * weights * 6 + 3 * 2 * 2 * 8 * 6 * 6 / 2  # the layer that drops nothing
    selective = "--recompute-granularity selective --attention-dropout"
    for flags, again in (
        ("", 0),
        ("--recompute-granularity full", (linear + attention) / 3),
        ("--recompute-granularity full --recompute-method block", first / 3),
        (f"{selective} 0.1", attention / 3),
        (f"{selective} 0", 0),
    ):
        config = make_config(shape + flags)
        efficiency = DataEfficiency(random_ltd=RandomLTD((1,), Pacing("fixed_linear")))
        model, hardware = gpt_flops(config, efficiency, 10)(np.array([6]), np.array([3]))
        assert model.tolist() == [linear + attention + logits]
        assert hardware.tolist() == [linear + attention + logits + again]


def test_flops_count_every_row_and_the_vocabulary_once() -> None:
    config = make_config(
        "--train-iters 40 --global-batch-size 4 --curriculum "
        "seqlen_reshape:min=32,max=128,duration=30,quantum=32"
    )
    efficiency = describe(config)[0]
    plain, with_words = (configurations.make_plan(config, efficiency, words) for words in (0, 100))
    assert np.array_equal(with_words.flops - plain.flops, 6 * 64 * 100 * np.diff(plain.raw_tokens, prepend=0))
    assert plain.flops[0] < plain.flops[-1], "shorter rows of as many tokens need less attention"


def falling(step: int) -> int:
    return 20 if step <= 8 else 10


def one_over_step(step: int) -> int:
    return 100 - 50 // step


def nothing_before_step_5(step: int) -> int:
    return 0 if step < 5 else 64


def custom(name: str) -> str:
    spec = f"seqlen_truncate:pacing=custom,max=100,function={__name__}:{name}"
    return f"--train-iters 20 --curriculum {spec}"


@pytest.mark.parametrize("at_a_time", [1, 8, 1000])
def test_a_pacing_that_decreases_is_refused_even_where_two_blocks_meet(
    monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(module, "STEPS_AT_A_TIME", at_a_time)
    with pytest.raises(UserError, match="curriculum seqlen_truncate: falls from 20 to 10 at step 9"):
        make_plan(custom("falling"))


def test_a_custom_pacing_is_asked_for_steps_from_1_on() -> None:
    assert make_plan(custom("one_over_step")).sequence_length[:3].tolist() == [50, 75, 84]


def test_a_custom_pacing_without_tokens_is_refused() -> None:
    """Otherwise a run that stops by tokens is planned for ever."""
    with pytest.raises(UserError, match="seqlen_truncate"):
        make_plan(custom("nothing_before_step_5"))
