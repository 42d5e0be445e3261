"""What is said about a plan before anything starts, and warm-ups that cannot end."""

import pytest

from megatron.base.errors import UserError
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan_notes import plan_notes
from tests.support.configurations import make_config, make_plan

RAMP = "--global-batch-size 4 --rampup-batch-size 2 2 100 "


def notes_of(flags: str) -> list[str]:
    """What is said of the small model's run: 2 samples of 128 tokens a step."""
    config = make_config(flags)
    efficiency, _ = describe(config)
    return plan_notes(config, efficiency, make_plan(config, efficiency))


def test_a_run_that_says_all_needs_no_note() -> None:
    assert notes_of("--train-iters 10 --lr-warmup-iters 10") == []
    assert notes_of("--train-iters 10 --curriculum voc:min=1,max=5,duration=10") == []


LTD = "--train-iters 10 --random-ltd --random-ltd-duration 5 "


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (LTD, "random-LTD drops nothing: 128 of 128 tokens are kept at step 1"),
        (LTD + "--random-ltd-min 16 --random-ltd-quantum 200", "random-LTD drops nothing"),
        (
            "--train-iters 10 --curriculum voc:difficulty=percentile,min=100,max=100,duration=5",
            "curriculum vocab_rarity admits all samples from step 1 on",
        ),
        (
            "--train-iters 10 --curriculum seqlen_truncate:min=8,max=128,duration=5,quantum=128",
            "curriculum seqlen_truncate has all 128 tokens from step 1 on",
        ),
    ],
)
def test_what_begins_at_its_end_is_told(flags: str, words: str) -> None:
    """At a --seq-length of 128, the usual --random-ltd-min is all tokens."""
    (note,) = notes_of(flags)
    assert note.startswith(words)


def test_what_has_an_effect_is_not_told() -> None:
    assert notes_of(LTD + "--random-ltd-min 64") == []
    assert notes_of("--train-iters 10 --curriculum seqlen_truncate:min=64,max=64,duration=5") == []
    shorter = "--curriculum seqlen_truncate:min=64,max=128,duration=3,quantum=8 "
    assert notes_of(LTD + shorter + "--random-ltd-min 96") == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--train-iters 10 --lr-warmup-samples 21", ["--lr-warmup-samples 21", "step 10, after 20 samples"]),
        ("--train-iters 10 --lr-warmup-tokens 1e6", ["--lr-warmup-tokens 1000000", "2560 tokens"]),
        ("--train-samples 20 --lr-warmup-iters 11", ["--lr-warmup-iters 11", "step 10, after 10 iters"]),
        ("--train-tokens 2560 --lr-warmup-iters 11", ["--lr-warmup-iters 11", "step 10"]),
        ("--train-tokens 2560 --lr-warmup-samples 21", ["--lr-warmup-samples 21", "step 10"]),
        ("--train-iters 100 --lr-decay-samples 20 --lr-warmup-iters 11", ["step 10, after 10 iters"]),
        ("--train-iters 100 --lr-decay-tokens 2560 --lr-warmup-samples 21", ["after 20 samples"]),
        ("--train-iters 10 --train-tokens 1e9 --lr-warmup-samples 21", ["step 10, after 20 samples"]),
        (RAMP + "--train-iters 10 --lr-warmup-samples 40", ["step 10, after 20 samples"]),
        ("--train-iters 10 --lr-warmup-samples 21 --reference-schedules", ["step 10, after 20 samples"]),
    ],
)
@pytest.mark.parametrize("style", ["linear", "cosine", "constant", "inverse-square-root"])
def test_a_warm_up_that_the_decay_cuts_off_is_refused(flags: str, words: list[str], style: str) -> None:
    with pytest.raises(UserError) as caught:
        notes_of(f"{flags} --lr-decay-style {style}")
    (problem,) = caught.value.problems
    assert "--lr 0.001" in problem and all(word in problem for word in words), problem


def test_a_warm_up_ends_before_the_last_part_of_wsd() -> None:
    flags = "--train-iters 10 --lr-decay-style WSD --lr-wsd-decay-iters 5 "
    assert notes_of(flags + "--lr-warmup-iters 5") == notes_of(flags + "--lr-warmup-samples 10") == []
    for warmup in ("iters 6", "samples 11", "tokens 1281"):
        with pytest.raises(UserError, match="whose last part begins at step 5"):
            notes_of(f"{flags} --lr-warmup-{warmup}")


@pytest.mark.parametrize(
    "flags",
    [
        "--train-iters 10 --lr-warmup-samples 20",
        "--train-iters 10 --lr-warmup-tokens 2560",
        "--train-samples 20 --lr-warmup-iters 10",
        "--train-tokens 2560 --lr-warmup-iters 10",
        "--train-tokens 2500 --lr-warmup-fraction 0.99",
    ],
)
def test_a_warm_up_as_long_as_the_decay_is_none_too_long(flags: str) -> None:
    assert notes_of(flags) == []
    assert notes_of("--train-iters 10 --lr-decay-iters 1000 --lr-warmup-samples 20") == [
        "the run ends before its decay of 1000 iters: the rate ends at 0.001, --min-lr is 0"
    ]


def test_a_short_run_of_a_long_recipe_says_that_it_is_still_warming_up() -> None:
    flags = "--train-iters 10 --lr-decay-iters 5000 --lr-warmup-"
    for warmup in ("iters 20", "samples 40"):
        (note,) = notes_of(flags + warmup)
        assert "inside its warm-up of" in note and "rises to 0.0005 of 0.001" in note


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (
            "--train-iters 10 --train-samples 100",
            "the run ends at step 10 by --train-iters 10; not reached: --train-samples 100",
        ),
        (
            "--train-iters 100 --train-samples 19",
            "the run ends at step 10 by --train-samples 19; not reached: --train-iters 100",
        ),
        (
            "--train-iters 10 --train-samples 20",
            "the run ends at step 10 by --train-samples 20 and --train-iters 10, at the same step",
        ),
        (
            "--train-iters 10 --train-samples 200 --train-tokens 9999",
            "the run ends at step 10 by --train-iters 10; not reached: "
            "--train-tokens 9999 and --train-samples 200",
        ),
    ],
)
def test_which_of_several_limits_ends_the_run(flags: str, note: str) -> None:
    assert notes_of(f"{flags} --lr-decay-style constant") == [note]


def test_what_grows_for_longer_than_the_run_is_said() -> None:
    flags = (
        "--train-iters 10 --curriculum voc:min=0,max=100,duration=20,difficulty=percentile --curriculum "
        "seqlen_truncate:min=28,max=128,duration=20 --random-ltd --random-ltd-min 8 --random-ltd-duration 30 "
    )
    assert notes_of(flags) == [
        "curriculum vocab_rarity ends at 50 of 100: the run is over after 10 steps",
        "curriculum seqlen_truncate ends at 78 of 128: the run is over after 10 steps",
        "random-LTD ends at 32 of 128: the run is over after 10 steps",
    ]
    shorter = (
        "--train-iters 30 --curriculum seqlen_truncate:min=8,max=64,duration=10 --random-ltd "
        "--random-ltd-min 8 --random-ltd-duration 10"
    )
    assert notes_of(shorter) == []  # rows of 64 tokens keep no more than 64
    discrete = "--train-iters 10 --curriculum voc:pacing=fixed_discrete,values=1/5,until="
    assert notes_of(discrete + "9") == []
    assert notes_of(discrete + "10") == [
        "curriculum vocab_rarity ends at 1 of 5: the run is over after 10 steps"
    ]


EARLY = "ends at step 80 of 100: the rate is 0.0001 from there on"
LATE = "the run ends before its decay of 200"


@pytest.mark.parametrize(
    ("decay", "note"),
    [
        ("samples 160", f"the decay of 160 samples {EARLY}"),
        ("tokens 20480", f"the decay of 20480 tokens {EARLY}"),
        ("iters 80", f"the decay of 80 iters {EARLY}"),
        ("iters 100", None),
        ("samples 200", None),
        ("iters 200", f"{LATE} iters: the rate ends at 0.00055, --min-lr is 0.0001"),  # half-way down
    ],
)
def test_a_decay_that_is_shorter_or_longer_than_the_run(decay: str, note: str | None) -> None:
    flags = f"--train-iters 100 --min-lr 1e-4 --lr-decay-{decay} --lr-decay-style "
    assert notes_of(flags + "linear") == ([note] if note else [])
    assert len(notes_of(flags + "cosine")) == len(notes_of(flags + "linear"))
    assert notes_of(flags + "constant") == []
