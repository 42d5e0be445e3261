"""One description from flags, YAML or a DeepSpeed JSON; the JSON is the published one of the 1.3B recipe,
rendered."""

import copy
import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.base.errors import UserError
from megatron.schedule.data_efficiency import (
    ALIASES,
    CurriculumMetric,
    DataEfficiency,
    RandomLTD,
    same_dropping,
    saved_form,
    saved_meaning,
)
from megatron.schedule.data_efficiency_flags import describe, switched_off
from megatron.schedule.deepspeed_json import read_deepspeed_json
from megatron.schedule.pacing import Pacing, levels
from megatron.train.configure import read_config
from tests.support.configurations import GPT_1B, make_config, problems_of
from tools import plan_run

RARITY = CurriculumMetric("vocab_rarity", "percentile", Pacing("fixed_root", 1, 100, 110_000, 1, 2.0))
LENGTH = Pacing("fixed_root", 80, 2048, 110_000, 8, 1.0)
DROPPING = RandomLTD(tuple(range(1, 23)), Pacing("fixed_linear", 128, 2048, 200_000, 16))
RARITY_SPEC = (
    "vocab_rarity:difficulty=percentile,min=1,max=100,pacing=fixed_root,root=2,duration=110000,quantum=1"
)
LENGTH_SPEC = (
    "seqlen_truncate:difficulty=value,min=80,max=2048,pacing=fixed_root,root=1,duration=110000,quantum=8"
)
RECIPE_FLAGS = {
    "voc": f"--curriculum {RARITY_SPEC} ",
    "seqlen_truncate": f"--curriculum {LENGTH_SPEC} ",
    "random_ltd": "--random-ltd --random-ltd-min 128 --random-ltd-max 2048 --random-ltd-quantum 16 "
    "--random-ltd-duration 200000 ",
}


def curriculum_metric(
    difficulty: str, clustering: str, low: int, high: int, quantum: int, root: int
) -> dict[str, Any]:
    return {
        "index_to_sample_path": "dummy",
        "index_to_metric_path": "dummy",
        "difficulty_type": difficulty,
        "clustering_type": clustering,
        "min_difficulty": low,
        "max_difficulty": high,
        "schedule_type": "fixed_root",
        "schedule_config": {
            "total_curriculum_step": 110_000,
            "difficulty_step": quantum,
            "root_degree": root,
        },
    }


RECIPE = {
    "train_batch_size": 512,
    "train_micro_batch_size_per_gpu": 8,
    "steps_per_print": 10,
    "zero_optimization": {"stage": 1},
    "gradient_clipping": 1.0,
    "prescale_gradients": False,
    "fp16": {"enabled": True, "loss_scale": 0, "initial_scale_power": 11},
    "dataloader_drop_last": True,
    "data_efficiency": {
        "enabled": True,
        "seed": 1234,
        "data_routing": {
            "enabled": True,
            "random_ltd": {
                "enabled": True,
                "total_layer_num": 24,
                "random_ltd_layer_num": 22,
                "random_ltd_layer_id": list(range(1, 23)),
                "model_mask_name": "attention_mask",
                "model_type": "decoder",
                "hidden_state_order": "seq_batch_dim",
                "random_ltd_schedule": {
                    "min_value": 128,
                    "max_value": 2048,
                    "schedule_type": "fixed_linear",
                    "schedule_config": {"require_steps": 200_000, "seq_per_step": 16},
                },
            },
        },
        "data_sampling": {
            "enabled": True,
            "num_epochs": 1,
            "num_workers": 0,
            "curriculum_learning": {
                "enabled": True,
                "data_cluster_path": "clusters",
                "curriculum_metrics": {
                    "voc": curriculum_metric("percentile", "schedule_based", 1, 100, 1, 2),
                    "seqlen_truncate": curriculum_metric("value", "single_cluster", 80, 2048, 8, 1),
                },
            },
        },
    },
}
ROUTING, SAMPLING = ("data_efficiency", "data_routing"), ("data_efficiency", "data_sampling")
LTD, CURRICULUM = (*ROUTING, "random_ltd"), (*SAMPLING, "curriculum_learning")
METRICS = (*CURRICULUM, "curriculum_metrics")


def recipe(*parts: str) -> dict[str, Any]:
    """The published JSON with these of voc, seqlen_truncate and random_ltd; sections that hold nothing are
    disabled."""
    content = copy.deepcopy(RECIPE)
    metrics = at(content, METRICS)
    for name in set(metrics) - set(parts):
        del metrics[name]
    if not metrics:
        at(content, SAMPLING)["enabled"] = at(content, CURRICULUM)["enabled"] = False
    if "random_ltd" not in parts:
        at(content, ROUTING)["enabled"] = at(content, LTD)["enabled"] = False
    return content


def at(content: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        content = content[name]
    return content


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    """Writes a JSON and gives the flag that names it."""

    def to_file(content: Any) -> str:
        path = tmp_path / "run.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return f"--data-efficiency-config {path} "

    return to_file


def described(flags: str) -> DataEfficiency:
    return describe(make_config(GPT_1B + flags))[0]


def problems(flags: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        described(flags)
    return caught.value.problems


def changed(path: tuple[str, ...], **values: Any) -> dict[str, Any]:
    """The whole recipe with other values in one of its sections; None takes a key away."""
    content = recipe("voc", "seqlen_truncate", "random_ltd")
    for name, value in values.items():
        at(content, path)[name] = value
        if value is None:
            del at(content, path)[name]
    return content


def test_nothing_asked_for_is_nothing() -> None:
    assert described("") == DataEfficiency(seed=1234)
    assert described("--seed 5").seed == 5
    assert described("--seed 5 --data-efficiency-seed 0 --reference-schedules") == DataEfficiency(
        seed=0, reference_schedules=True
    )


def test_the_recipe_by_flags() -> None:
    assert described("".join(RECIPE_FLAGS.values())) == DataEfficiency(
        (RARITY,), "seqlen_truncate", LENGTH, DROPPING, (), 1234, False
    )
    assert (
        described(RECIPE_FLAGS["seqlen_truncate"].replace("truncate", "reshape")).length_metric
        == "seqlen_reshape"
    )


@pytest.mark.parametrize("alias", ["voc:", "vocab_rarity:"])
def test_defaults_of_a_spec(alias: str) -> None:
    metric = described(f"--curriculum {alias}min=5,max=50,duration=1e3").metrics[0]
    assert metric == CurriculumMetric("vocab_rarity", "value", Pacing("fixed_linear", 5, 50, 1000, 1, 1.0))
    metric = described(f"--curriculum {alias}min=5,max=50,duration=10,pacing=fixed_root").metrics[0]
    assert metric.pacing.root == 2.0
    metric = described(f"--curriculum {alias}pacing=fixed_discrete,values=8/16/32,until=100/200").metrics[0]
    assert metric.pacing == Pacing("fixed_discrete", 0, 0, 1, 1, 1.0, (8, 16, 32), (100, 200))
    metric = described(f"--curriculum {alias}pacing=custom,max=9,function=math:sqrt").metrics[0]
    assert (metric.pacing.curve, metric.pacing.maximum, metric.pacing.function) == ("custom", 9, "math:sqrt")


@given(
    name=st.sampled_from(["vocab_rarity", "mine"]),
    difficulty=st.sampled_from(["value", "percentile"]),
    low=st.integers(1, 50),
    high=st.integers(50, 100),
    duration=st.integers(1, 10**6),
    quantum=st.integers(1, 64),
    root=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    order=st.randoms(),
)
@settings(deadline=None)
def test_a_spec_is_read_back_in_any_order(
    name: str, difficulty: str, low: int, high: int, duration: int, quantum: int, root: float, order: Any
) -> None:
    pairs = [
        f"difficulty={difficulty}",
        f"min={low}",
        f"max={high}",
        f"duration={duration}",
        f"quantum={quantum}",
        f"root={root}",
    ]
    pairs.append("pacing=fixed_root")
    order.shuffle(pairs)
    (metric,) = described(f"--curriculum {name}:{','.join(pairs)}").metrics
    assert metric == CurriculumMetric(
        name, difficulty, Pacing("fixed_root", low, high, duration, quantum, root)
    )


@pytest.mark.parametrize(
    "spec, words",
    [
        ("vocab_rarity", ["nothing follows the name"]),
        ("vocab_rarity:", ["nothing follows the name"]),
        ("none", ["is a word for nothing; leave it out, or in a YAML file the value empty"]),
        ("vocab_rarity:min=1,max=2,speed=3", ["unknown speed", "known are", "duration"]),
        ("vocab_rarity:min=one,max=2,duration=3", ["min takes a whole number, not one"]),
        ("vocab_rarity:min=0.5,max=2,duration=3", ["min takes a whole number, not 0.5"]),
        ("vocab_rarity:min=1,max=2,duration=80.7", ["duration takes a whole number, not 80.7"]),
        (
            "vocab_rarity:min=1,max=2,duration=3,pacing=fixed_root,root=x",
            ["root takes a number, not x"],
        ),
        ("vocab_rarity:min=1,max=2,duration=inf", ["duration=inf"]),
        ("vocab_rarity:min=1,max=2,root=x", ["root=x"]),
        ("vocab_rarity:values=1/x,until=5,pacing=fixed_discrete", ["values=1/x"]),
        ("vocab_rarity:min=1,max=2,duration=3,min=5", ["min stands twice"]),
        ("my_metrics:longest_id:min=1,max=2,duration=3", ["named by its function: longest_id:..."]),
        ("seqlen_truncate:pacing=fixed_discrete,values=[8,16],until=[3]", ["such as values=8/16/64"]),
    ],
)
def test_a_spec_that_is_not_understood_is_told_with_an_example(spec: str, words: list[str]) -> None:
    (problem,) = problems(f"--curriculum {spec}")
    assert problem.startswith(f"--curriculum {spec}: ")
    assert "an example: vocab_rarity:difficulty=percentile" in problem or "twice" in problem
    assert all(word in problem for word in words)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "vocab_rarity:min=1,max=2,duration=3,root=2",
            "root does nothing with pacing=fixed_linear; leave it out, or write pacing=fixed_root",
        ),
        (
            "vocab_rarity:pacing=fixed_discrete,values=1/2,until=5,duration=9,quantum=8",
            "duration, quantum do nothing with pacing=fixed_discrete; leave them out, or write "
            "pacing=fixed_linear",
        ),
        (
            "vocab_rarity:pacing=custom,function=math:sqrt,min=1,max=9",
            "min does nothing with pacing=custom; leave it out, or write pacing=fixed_linear",
        ),
    ],
)
def test_keys_that_a_pacing_does_not_use_are_noted(spec: str, told: str) -> None:
    assert describe(make_config(GPT_1B + f"--curriculum {spec}"))[1] == [f"--curriculum {spec}: {told}"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "vocab_rarity:pacing=custom,function=math:sqrt,max=9,values=1/2",
            "values does nothing with pacing=custom; leave it out, or write pacing=fixed_discrete",
        ),
        (
            "vocab_rarity:min=1,max=2,values=1/2,root=2",
            "root, values do nothing with pacing=fixed_linear; leave them out",
        ),
    ],
)
def test_values_of_another_pacing_are_refused(spec: str, told: str) -> None:
    assert problems(f"--curriculum {spec}") == (f"--curriculum {spec}: {told}",)


@pytest.mark.parametrize("lengths", ["", "--curriculum seqlen_reshape:min=8,max=64,duration=9 "])
def test_difficulties_that_nothing_orders_by_are_noted(lengths: str) -> None:
    notes = describe(make_config(GPT_1B + lengths + "--difficulty-path folder"))[1]
    assert notes == ["--difficulty-path folder: not used, as no curriculum orders by difficulty"]
    ordered = "--curriculum voc:min=1,max=5,duration=9 --difficulty-path folder"
    assert describe(make_config(GPT_1B + lengths + ordered))[1] == []


def test_spaces_in_a_spec_are_none_of_its_words() -> None:
    """As a YAML file or a quoted word has them."""
    spaced = "--curriculum 'voc: difficulty = percentile, min=5, max=50 ,duration=10'"
    assert described(spaced) == described("--curriculum voc:difficulty=percentile,min=5,max=50,duration=10")


@pytest.mark.parametrize(
    "spec, word",
    [
        ("vocab_rarity:min=1,duration=10", "max"),
        ("vocab_rarity:min=1,max=100", "duration"),
        ("vocab_rarity:max=100,pacing=fixed_root", "duration"),
        ("vocab_rarity:values=1/2,until=5", "fixed_discrete"),
        ("vocab_rarity:pacing=custom,function=math:sqrt", "max"),
        (":min=1,max=100,duration=5", "name"),
    ],
)
def test_a_spec_without_what_its_pacing_needs_is_refused(spec: str, word: str) -> None:
    """Otherwise a curriculum that was asked for silently does nothing."""
    (problem,) = problems(f"--curriculum {spec}")
    assert word in problem


@pytest.mark.parametrize(
    "parts",
    [
        ("voc",),
        ("seqlen_truncate",),
        ("voc", "seqlen_truncate"),
        ("random_ltd",),
        ("voc", "seqlen_truncate", "random_ltd"),
        (),
    ],
)
def test_the_published_json_is_the_recipe_by_flags(
    parts: tuple[str, ...], write: Callable[[Any], str]
) -> None:
    flags = "".join(RECIPE_FLAGS[part] for part in parts)
    json_flag = write(recipe(*parts))
    expected = DataEfficiency(
        metrics=(RARITY,) if "voc" in parts else (),
        length_metric="seqlen_truncate" if "seqlen_truncate" in parts else "",
        length=LENGTH if "seqlen_truncate" in parts else None,
        random_ltd=DROPPING if "random_ltd" in parts else None,
    )
    assert described(flags) == expected
    assert described(json_flag) == expected
    assert described(json_flag + flags) == expected, "flags and a JSON that say the same are accepted"
    assert described(json_flag.replace("--data-efficiency-config", "--deepspeed_config")) == expected


def test_the_same_metrics_in_another_order_are_the_same(write: Callable[[Any], str]) -> None:
    json_flag = write(recipe("voc", "seqlen_truncate"))
    assert described(json_flag + RECIPE_FLAGS["seqlen_truncate"] + RECIPE_FLAGS["voc"]).metrics == (RARITY,)


def test_the_bare_flag_random_ltd_goes_with_the_json_that_describes_it(write: Callable[[Any], str]) -> None:
    """As every launch script of Megatron-DeepSpeed has it."""
    flags = "--deepspeed --data-efficiency-curriculum-learning --random-ltd"
    assert described(write(recipe("voc", "random_ltd")) + flags).random_ltd == DROPPING


@pytest.mark.parametrize(
    "flags, name",
    [
        (RECIPE_FLAGS["voc"], "--curriculum"),
        (RECIPE_FLAGS["voc"] + RECIPE_FLAGS["seqlen_truncate"].replace("80", "88"), "--curriculum"),
        (RECIPE_FLAGS["random_ltd"].replace("200000", "100000"), "--random-ltd"),
        (RECIPE_FLAGS["random_ltd"] + "--random-ltd-layers 2-21", "--random-ltd"),
        ("--data-efficiency-seed 7", "--data-efficiency-seed"),
    ],
)
def test_flags_and_a_json_that_differ_are_refused(flags: str, name: str, write: Callable[[Any], str]) -> None:
    (problem,) = problems(write(recipe("voc", "seqlen_truncate", "random_ltd")) + flags)
    assert problem.startswith(name) and "differ" in problem and "--data-efficiency-config" in problem


def test_what_flags_say_of_dropping_beside_a_json_is_never_passed_over(write: Callable[[Any], str]) -> None:
    """The bare flag goes with the JSON; more of it says how it drops, and must say all of it."""
    file = write(recipe("random_ltd"))
    (problem,) = problems(file + "--random-ltd --random-ltd-min 64")
    assert "--random-ltd-duration" in problem
    (problem,) = problems_of(f"{GPT_1B} --train-iters 9 {file} --random-ltd-min 64")
    assert problem.startswith("--random-ltd-min: without effect, as --random-ltd is not given")


def test_a_json_that_drops_does_not_win_over_the_switch_that_is_off(write: Callable[[Any], str]) -> None:
    flags = write(recipe("random_ltd"))
    given = {"data_efficiency_config": flags.split()[1], "num_layers": 24}
    assert not switched_off(given) and not switched_off(given | {"random_ltd": True})
    (told,) = switched_off(given | {"random_ltd": False})
    assert told.startswith("--random-ltd false, and ") and "run.json enables random_ltd; leave" in told
    words = shlex.split(f"{GPT_1B} --mock-data --vocab-size 9 {flags} --random-ltd false")
    with pytest.raises(UserError) as caught:
        read_config(words, "", "")
    assert told in caught.value.problems
    with pytest.raises(UserError) as caught:
        plan_run.main(words)
    assert told in caught.value.problems
    for agreeing in (recipe("voc"), changed(LTD, enabled=False)):
        write(agreeing)
        assert not switched_off(given | {"random_ltd": False})


def test_the_seed_of_a_json_is_that_of_the_order_of_samples(write: Callable[[Any], str]) -> None:
    assert described(write(changed(("data_efficiency",), seed=77))).seed == 77
    assert described(write(changed(("data_efficiency",), seed=None)) + "--seed 9").seed == 9


def test_unused_keys_are_noted(write: Callable[[Any], str]) -> None:
    notes = describe(make_config(GPT_1B + write(recipe("voc", "seqlen_truncate", "random_ltd"))))[1]
    unused = [
        "steps_per_print",
        "prescale_gradients",
        "dataloader_drop_last",
        "data_sampling.num_epochs",
        "data_sampling.num_workers",
        "data_cluster_path",
    ]
    for key in unused:
        assert sum(f"{key} is not used" in note for note in notes) == 1, key
    used = (
        "train_batch_size",
        "gradient_clipping",
        "fp16",
        "seed",
        "enabled",
        "curriculum_metrics",
        "min_difficulty",
        "random_ltd_layer_id",
        "require_steps",
    )
    assert not [note for note in notes if note.split(" is not used")[0].endswith(used)]


@pytest.mark.parametrize(
    "path",
    [
        *(("data_efficiency",), ROUTING, CURRICULUM, (*METRICS, "voc"), (*METRICS, "voc", "schedule_config")),
        *(LTD, (*LTD, "random_ltd_schedule"), (*LTD, "random_ltd_schedule", "schedule_config")),
    ],
)
def test_a_misspelt_key_at_any_depth_is_noted(path: tuple[str, ...], write: Callable[[Any], str]) -> None:
    """A misspelt section would otherwise switch a lever off without a word."""
    notes = describe(make_config(GPT_1B + write(changed(path, data_smapling={"enabled": True}))))[1]
    assert any("data_smapling" in note for note in notes)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("path", [CURRICULUM, LTD])
@pytest.mark.parametrize("value", [False, None])
def test_an_outer_off_around_an_inner_on_is_refused(
    depth: int, path: tuple[str, ...], value: bool | None, write: Callable[[Any], str]
) -> None:
    told = problems(write(changed(path[:depth], enabled=value)))
    inner, outer = ".".join(path[1:]), path[depth - 1]
    assert [problem for problem in told if f"{inner} is enabled inside {outer}, which is not" in problem]
    assert len(told) == (2 if depth == 1 else 1), "the outermost switch is around both levers"


def test_everything_off_is_nothing(write: Callable[[Any], str]) -> None:
    content = recipe()
    content["data_efficiency"]["enabled"] = False
    assert described(write(content)) == DataEfficiency(seed=1234)
    assert described(write({"data_efficiency": {}})) == DataEfficiency(seed=1234)


@pytest.mark.parametrize(
    "alias, name",
    [
        ("voc", "vocab_rarity"),
        ("vocabularyrarity", "vocab_rarity"),
        ("vocabulary_rarity", "vocab_rarity"),
        ("vocabrarity", "vocab_rarity"),
        ("seqlenvocabrarity", "seqlen_vocab_rarity"),
        ("mine", "mine"),
    ],
)
def test_metrics_of_a_json_are_chosen_by_their_key(
    alias: str, name: str, write: Callable[[Any], str]
) -> None:
    content = recipe("voc")
    at(content, METRICS)[alias] = at(content, METRICS).pop("voc")
    assert described(write(content)).metrics == (CurriculumMetric(name, RARITY.difficulty, RARITY.pacing),)
    assert ALIASES.get(alias, alias) == name


def test_a_discrete_schedule_of_a_json(write: Callable[[Any], str]) -> None:
    about = {
        "schedule_type": "fixed_discrete",
        "schedule_config": {"difficulty": [512, 1024, 2048], "max_step": [100, 200]},
    }
    length = described(write(changed((*METRICS, "seqlen_truncate"), **about))).length
    assert length is not None and (length.values, length.until) == ((512, 1024, 2048), (100, 200))


DISCRETE = {"schedule_type": "fixed_discrete", "min_difficulty": 8, "max_difficulty": 16}
LISTS = {"difficulty": [8, 16, 32], "max_step": [10, 20]}
DISCRETE_SPEC = "--curriculum seqlen_truncate:pacing=fixed_discrete,values=8/16/32,until=10/20 "


@pytest.mark.parametrize(
    ("values", "low", "high", "taken"),
    [
        ([8, 16, 32], 8, 16, [8, 16, 16]),
        ([8, 16, 32], 8, 20, [8, 16, 32]),
        ([8, 16, 32], 8, 64, [8, 16, 32]),
        ([8, 16, 32], 8, 8, [8, 8, 8]),
        ([8, 16, 32], 24, 16, [24, 24, 24]),
    ],
)
def test_a_list_past_its_maximum_stays_as_in_deepspeed_behind_the_flag(
    values: list[int], low: int, high: int, taken: list[int], write: Callable[[Any], str]
) -> None:
    """DeepSpeed updates what is below the maximum and nothing else."""
    json_flag = write(
        changed(
            (*METRICS, "seqlen_truncate"),
            **DISCRETE | {"min_difficulty": low, "max_difficulty": high, "schedule_config": LISTS},
        )
    )
    described_run, notes = describe(make_config(GPT_1B + json_flag + "--reference-schedules"))
    length = described_run.length
    assert length is not None
    assert [levels(length, step, 1, reference_schedules=True)[0] for step in (1, 15, 25)] == taken
    assert any("stays at" in note for note in notes) == (length.values != (8, 16, 32))
    if max(values) > high or low > values[0]:
        told = problems(json_flag)
        assert any(f"above the maximum {high}" in line or f"the minimum {low}" in line for line in told)
    else:
        assert described(json_flag).length is not None


def test_a_discrete_curriculum_by_flags_or_json_means_the_same(write: Callable[[Any], str]) -> None:
    about = DISCRETE | {"max_difficulty": 2048, "schedule_config": LISTS}
    content = changed((*METRICS, "seqlen_truncate"), **about)
    del at(content, METRICS)["voc"]
    at(content, LTD)["enabled"] = at(content, ROUTING)["enabled"] = False
    for flags in ("", "--reference-schedules "):
        both = described(write(content) + DISCRETE_SPEC + flags)
        assert both.length is not None and both.length.values == (8, 16, 32)
    (problem,) = problems(write(content) + DISCRETE_SPEC.replace("/20", "/21"))
    assert "differ" in problem


@pytest.mark.parametrize(
    ("legacy", "spec"),
    [
        (
            {
                "schedule_type": "fixed_linear",
                "schedule_config": {"total_curriculum_step": 20, "difficulty_step": 8},
            },
            "seqlen_truncate:min=16,max=64,duration=20,quantum=8",
        ),
        (
            {
                "schedule_type": "fixed_root",
                "schedule_config": {"total_curriculum_step": 20, "difficulty_step": 8, "root_degree": 2},
            },
            "seqlen_truncate:min=16,max=64,duration=20,quantum=8,pacing=fixed_root,root=2",
        ),
        (
            {"schedule_type": "fixed_discrete", "schedule_config": LISTS},
            "seqlen_truncate:pacing=fixed_discrete,values=8/16/32,until=10/20",
        ),
    ],
)
def test_the_older_section_is_told_with_the_flag_that_says_the_same(
    legacy: dict[str, Any], spec: str, write: Callable[[Any], str]
) -> None:
    older = {
        "enabled": True,
        "curriculum_type": "seqlen",
        "min_difficulty": 16,
        "max_difficulty": 64,
    } | legacy
    (problem,) = problems(write({"train_batch_size": 8, "curriculum_learning": older}))
    assert problem.endswith(f"write --curriculum {spec}")
    assert described(f"--curriculum {spec}").length is not None


def test_single_cluster_on_an_ordering_metric_is_refused(write: Callable[[Any], str]) -> None:
    (problem,) = problems(write(changed((*METRICS, "voc"), clustering_type="single_cluster")))
    assert "voc" in problem and "single_cluster" in problem and "schedule_based" in problem


@pytest.mark.parametrize(
    "path, values, words",
    [
        (CURRICULUM, {"curriculum_metrics": None}, ["curriculum_metrics"]),
        (CURRICULUM, {"curriculum_metrics": {}}, ["curriculum_metrics"]),
        ((*METRICS, "voc"), {"schedule_type": None}, ["voc", "schedule_type"]),
        ((*METRICS, "voc"), {"schedule_type": "quadratic"}, ["vocab_rarity", "quadratic", "fixed_linear"]),
        ((*METRICS, "voc"), {"max_difficulty": None}, ["voc", "max_difficulty"]),
        (
            (*METRICS, "voc"),
            {"min_difficulty": "easy"},
            ["voc", "takes a whole number, not easy"],
        ),
        ((*METRICS, "voc"), {"max_difficulty": 9.5}, ["voc", "max_difficulty takes a whole number, not 9.5"]),
        (
            (*LTD, "random_ltd_schedule", "schedule_config"),
            {"require_steps": 80.7},
            ["random_ltd", "require_steps takes a whole number, not 80.7"],
        ),
        ((*METRICS, "voc"), {"difficulty_type": "rank"}, ["vocab_rarity", "rank", "percentile"]),
        ((*METRICS, "voc"), {"schedule_config": None}, ["voc", "schedule_config"]),
        (
            (*METRICS, "voc"),
            {"schedule_config": {"difficulty_step": 1, "root_degree": 2}},
            ["voc", "total_curriculum_step"],
        ),
        (
            (*METRICS, "voc", "schedule_config"),
            {"difficulty_step": None, "dificulty_step": 1},
            ["voc.schedule_config needs difficulty_step; it has dificulty_step, root_degree"],
        ),
        (
            (*METRICS, "voc"),
            {"min_difficulty": None, "min_dificulty": 1},
            ["voc needs min_difficulty; it has", "min_dificulty"],
        ),
        (
            (*LTD, "random_ltd_schedule", "schedule_config"),
            {"seq_per_step": None, "seq_per_steps": 16},
            ["schedule_config needs seq_per_step; it has require_steps, seq_per_steps"],
        ),
        (METRICS, {"voc": 3}, ["voc must be a section"]),
        ((*METRICS, "voc"), {"schedule_config": [1]}, ["voc.schedule_config must be a section"]),
        (LTD, {"random_ltd_schedule": 3}, ["random_ltd_schedule must be a section"]),
        (LTD, {"random_ltd_schedule": None}, ["random_ltd", "random_ltd_schedule"]),
        (LTD, {"random_ltd_layer_id": ["first"]}, ["random_ltd", "first"]),
        (LTD, {"total_layer_num": 12}, ["total_layer_num 12", "--num-layers 24"]),
        (LTD, {"total_layer_num": "all"}, ["random_ltd", "all"]),
        (LTD, {"random_ltd_layer_num": 3}, ["random_ltd_layer_num 3", "22"]),
        (
            (*LTD, "random_ltd_schedule"),
            {"schedule_type": "fixed_root"},
            ["random_ltd", "fixed_linear alone", "fixed_root"],
        ),
        (
            LTD,
            {"layer_token_lr_schedule": {"enabled": True}},
            ["layer_token_lr_schedule", "--lr-decay-tokens"],
        ),
        (LTD, {"layer_token_lr_schedule": True}, ["random_ltd"]),
        (ROUTING, {"random_ltd": [1]}, ["data_routing.random_ltd must be a section"]),
        (SAMPLING, {"dynamic_batching": {"enabled": True}}, ["dynamic_batching"]),
        (("data_efficiency",), {"seed": "lucky"}, ["seed", "lucky"]),
        (
            ("data_efficiency",),
            {"enabled": "false"},
            ['data_efficiency.enabled takes true or false, not "false"'],
        ),
        (LTD, {"enabled": "true"}, ['data_routing.random_ltd.enabled takes true or false, not "true"']),
        (LTD, {"random_ltd_layer_id": "123"}, ["random_ltd_layer_id takes a list of whole numbers"]),
        (LTD, {"random_ltd_layer_id": [1.5]}, ["random_ltd_layer_id takes a whole number, not 1.5"]),
    ],
)
def test_every_mistake_in_a_json_is_one_problem_that_names_the_file(
    path: tuple[str, ...], values: dict[str, Any], words: list[str], write: Callable[[Any], str]
) -> None:
    (problem,) = problems(write(changed(path, **values)))
    assert "run.json" in problem or path == (*METRICS, "voc")
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", ["cannot be read as JSON"]),
        ('{"seed": 1, # why\n "a": 2}', ["line 1 column 13", "JSON has no comments, take them out"]),
        ('// head\n{"seed": 1}', ["line 1 column 1", "JSON has no comments, take them out"]),
        ('{"seed": 1 /* why */}', ["JSON has no comments, take them out"]),
        ('{"seed": 1,\n}', ["line 2 column 1", "no comma behind the last of several, take it out"]),
        ('{"a": [1, 2,]}', ["no comma behind the last of several, take it out"]),
        ("[1]", ["no data_efficiency section"]),
        ('{"data_efficiency": 3}', ["no data_efficiency section"]),
        ('{"curriculum_learning": {"enabled": true}}', ["curriculum_learning is enabled", "seqlen_truncate"]),
        ('{"data_efficiency": {"seed": 1, "enabled": false, "seed": 2}}', ["the key seed stands twice"]),
    ],
)
def test_a_file_that_is_no_such_json(content: str, words: list[str], write: Callable[[Any], str]) -> None:
    (problem,) = problems(write(content))
    assert "run.json" in problem and all(word in problem for word in words)
    (problem,) = problems("--data-efficiency-config /no/such.json")
    assert "/no/such.json" in problem


def test_a_deepspeed_json_without_our_section_says_nothing(write: Callable[[Any], str]) -> None:
    json_flag = write(
        {"train_batch_size": 8, "gradient_clipping": 1.0, "curriculum_learning": {"enabled": False}}
    )
    described_run, notes = describe(make_config(f"--train-iters 5 {json_flag}"))
    assert not (described_run.metrics or described_run.length_metric or described_run.random_ltd)
    assert [note.split(": ")[1] for note in notes] == ["curriculum_learning is not used"]


def test_paths_of_a_json_are_taken_where_they_hold_an_analysis(
    tmp_path: Path, write: Callable[[Any], str]
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    json_flag = write(changed((*METRICS, "voc"), index_to_sample_path=str(tmp_path)))
    assert described(json_flag).difficulty_paths == (str(tmp_path),)
    assert described(json_flag + "--difficulty-path mine --difficulty-path yours").difficulty_paths == (
        "mine",
        "yours",
    )


LTD_FLAGS = "--random-ltd --random-ltd-duration 10 "


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--curriculum vocab_rarity:min=5,max=1,duration=9", ["vocab_rarity", "minimum 5", "maximum 1"]),
        ("--curriculum vocab_rarity:min=1,max=5,duration=0", ["vocab_rarity", "duration 0"]),
        ("--curriculum vocab_rarity:min=1,max=5,duration=9,pacing=cubic", ["vocab_rarity", "cubic"]),
        (
            "--curriculum vocab_rarity:min=1,max=5,duration=9,difficulty=rank",
            ["vocab_rarity", "rank", "percentile"],
        ),
        (
            "--curriculum vocab_rarity:min=1,max=101,duration=9,difficulty=percentile",
            ["vocab_rarity", "101", "100"],
        ),
        (
            "--curriculum vocab_rarity:pacing=fixed_discrete,values=1/101,until=5,difficulty=percentile",
            ["vocab_rarity", "101", "100"],
        ),
        (
            "--curriculum vocab_rarity:min=-5,max=100,duration=9,difficulty=percentile",
            ["vocab_rarity", "minimum -5 is below 0"],
        ),
        (
            "--curriculum seqlen_truncate:min=8,max=4096,duration=9",
            ["seqlen_truncate", "4096", "--seq-length 2048"],
        ),
        (
            "--curriculum seqlen_truncate:pacing=fixed_discrete,values=8/4096,until=5",
            ["seqlen_truncate", "4096", "--seq-length 2048"],
        ),
        ("--curriculum seqlen_truncate:min=0,max=64,duration=9", ["seqlen_truncate", "minimum"]),
        (
            "--curriculum seqlen_truncate:pacing=fixed_discrete,values=0/64,until=5",
            ["seqlen_truncate", "at least one token"],
        ),
        ("--curriculum seqlen_truncate:pacing=fixed_discrete", ["seqlen_truncate", "fixed_discrete"]),
        (
            "--curriculum seqlen_reshape:min=8,max=64,duration=9,difficulty=percentile",
            ["seqlen_reshape", "difficulty=value"],
        ),
        (
            "--curriculum seqlen_truncate:min=8,max=64,duration=9 --curriculum "
            "seqlen_reshape:min=8,max=64,duration=9",
            ["seqlen_truncate", "seqlen_reshape", "only one"],
        ),
        (
            "--curriculum voc:min=1,max=5,duration=9 --curriculum vocab_rarity:min=1,max=5,duration=9",
            ["vocab_rarity", "twice"],
        ),
        ("--random-ltd", ["--random-ltd-duration"]),
        (LTD_FLAGS + "--random-ltd-layers first", ["--random-ltd-layers first", "1-22"]),
        (LTD_FLAGS + "--random-ltd-layers 5-3", ["--random-ltd-layers 5-3"]),
        (LTD_FLAGS + "--random-ltd-layers 1-24", ["24", "0-23"]),
        (LTD_FLAGS + "--random-ltd-layers 3,1-4", ["3", "twice"]),
        (LTD_FLAGS + "--num-layers 2", ["2 layers", "--random-ltd-layers"]),
        (LTD_FLAGS + "--random-ltd-max 4096", ["4096", "--seq-length 2048"]),
        (LTD_FLAGS + "--random-ltd-min 0", ["kept length 0", "at least 1"]),
        (LTD_FLAGS + "--random-ltd-min 3000", ["random-LTD", "3000", "2048"]),
        (LTD_FLAGS + "--random-ltd-quantum 0", ["random-LTD", "quantum 0"]),
        ("--random-ltd --random-ltd-duration 0", ["random-LTD", "duration 0"]),
    ],
)
def test_every_rule_broken_alone_is_one_problem(flags: str, words: list[str]) -> None:
    (problem,) = problems(flags)
    assert all(word in problem for word in words), problem


def test_all_problems_are_told_together(write: Callable[[Any], str]) -> None:
    content = changed((*METRICS, "voc"), clustering_type="single_cluster")
    at(content, LTD)["total_layer_num"] = 12
    told = problems(
        write(content) + "--curriculum vocab_rarity:speed=3 " + LTD_FLAGS + "--random-ltd-layers first"
    )
    assert len(told) == 4


def test_layers_of_random_ltd_default_to_all_but_the_first_and_the_last() -> None:
    random_ltd = described(LTD_FLAGS + "--num-layers 5").random_ltd
    assert random_ltd == RandomLTD((1, 2, 3), Pacing("fixed_linear", 128, 2048, 10, 16))
    random_ltd = described(LTD_FLAGS + "--random-ltd-layers 0,2-4").random_ltd
    assert random_ltd is not None and random_ltd.layers == (0, 2, 3, 4)


def test_a_yaml_file_describes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "data_efficiency:\n"
        "  curriculum:\n"
        "    voc: {difficulty: percentile, min: 1, max: 100, pacing: fixed_root, root: 2, duration: "
        "110000, quantum: 1}\n"
        "    seqlen_truncate: {min: 80, max: 2048, pacing: fixed_root, root: 1, duration: 110_000, "
        "quantum: 8}\n"
        "  random-ltd: true\n"
        "  random-ltd-duration: 200e3\n"
        "  random-ltd-layers: 1-22\n"
    )
    assert described(f"--config {path}") == described("".join(RECIPE_FLAGS.values()))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 3000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "fixed_root", "value", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["enabled", "min_value", "voc"]), inner, max_size=3)
    ),
    max_leaves=4,
)
PLACES = st.sampled_from(
    [
        ("data_efficiency",),
        ROUTING,
        SAMPLING,
        LTD,
        CURRICULUM,
        METRICS,
        (*METRICS, "voc"),
        (*METRICS, "seqlen_truncate"),
    ]
)


@given(place=PLACES, name=st.integers(0, 20), value=JSON_VALUES)
@settings(deadline=None, max_examples=200)
def test_a_json_with_any_value_anywhere_is_described_or_told(
    tmp_path_factory: pytest.TempPathFactory, place, name: int, value: Any
) -> None:
    content = recipe("voc", "seqlen_truncate", "random_ltd")
    section = at(content, place)
    section[sorted(section)[name % len(section)]] = value
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        assert isinstance(described(f"--data-efficiency-config {path}"), DataEfficiency)
    except UserError as error:
        assert error.problems and all(error.problems)


def test_layers_in_any_order_drop_alike() -> None:
    root_of_one = Pacing("fixed_root", 8, 64, 10, 8, root=1.0, values=(1,))
    same = same_dropping(RandomLTD((3, 1, 2), root_of_one))
    assert same is not None
    assert (same.layers, same.pacing) == ((1, 2, 3), Pacing("fixed_linear", 8, 64, 10, 8))
    assert same_dropping(None) is None


LISTED = Pacing("fixed_discrete", values=(1, 5), until=(9,))
SAVED = DataEfficiency(
    metrics=(
        CurriculumMetric("b", "value", Pacing("fixed_root", 1, 9, 5)),
        CurriculumMetric("a", "value", LISTED),
    ),
    length_metric="seqlen_truncate",
    length=Pacing("fixed_linear", 8, 64, 10, 8, function="unused"),
    random_ltd=RandomLTD((2, 1), Pacing("fixed_linear", 8, 64, 10, 8)),
    difficulty_paths=("here",),
    seed=5,
)


def test_what_a_checkpoint_says_is_compared_by_what_it_means() -> None:
    """Through JSON, where tuples become lists."""
    saved = json.loads(json.dumps(saved_form(SAVED)))
    assert saved["seed"] == 5 and saved["difficulty_paths"] == []
    written_otherwise = dataclasses.replace(
        SAVED,
        metrics=SAVED.metrics[::-1],
        length=Pacing("fixed_root", 8, 64, 10, 8, root=1.0),
        random_ltd=RandomLTD((1, 2), Pacing("fixed_linear", 8, 64, 10, 8, root=3.0)),
        difficulty_paths=("there", "too"),
    )
    assert saved_meaning(saved) == saved_meaning(json.loads(json.dumps(saved_form(written_otherwise))))
    changes = {
        "metrics": SAVED.metrics[:1],
        "length_metric": "seqlen_reshape",
        "length": Pacing("fixed_linear", 8, 64, 11, 8),
        "random_ltd": RandomLTD((1, 3), Pacing("fixed_linear", 8, 64, 10, 8)),
        "seed": 6,
        "reference_schedules": True,
    }
    for name, value in changes.items():
        other = saved_form(dataclasses.replace(SAVED, **{name: value}))
        assert saved_meaning(json.loads(json.dumps(other))) != saved_meaning(saved), name
    for damaged in ({}, {"metrics": 3}, saved | {"random_ltd": {"layers": [1]}}):
        assert saved_meaning(damaged) == damaged


def test_a_json_that_is_no_utf8_names_the_way(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"data_efficiency": {}}', encoding="utf-16")
    with pytest.raises(UserError, match=r"byte 1 is no UTF-8 .* iconv -f UTF-16 -t UTF-8"):
        read_deepspeed_json(str(path))
