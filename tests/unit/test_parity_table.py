"""The table of how far layouts are from one rank: which rows it has, and how it grows."""

from collections import defaultdict

import pytest

from megatron.base.errors import UserError
from megatron.config.config import Config
from scripts.parity_table import PAGE, ROWS, Options, read_rows, rows_to_do, with_rows
from tests.support.configurations import make_config
from tests.support.parity import BASE, LAYOUTS, MIXED, MIXTURES, MODELS, pairs, place_of

AXES = ("tensor", "context", "data", "pipeline")
PLAIN = {**dict.fromkeys(AXES, 1), "sp": False, "schedule": "1f1b", "share": "no_shard"}
ZERO = ("optim", "optim_grads", "optim_grads_params")
ALL = [
    {"tensor": 2},
    {"tensor": 4},
    {"tensor": 2, "sp": True},
    {"pipeline": 2},
    {"pipeline": 4},
    {"pipeline": 2, "schedule": "interleaved"},
    {"pipeline": 2, "schedule": "zero-bubble"},
    *({"context": 2, "way": way} for way in ("allgather", "p2p", "a2a")),
    {"context": 4},
    {"data": 2},
    *({"data": 2, "share": share} for share in ZERO),
    {"tensor": 2, "pipeline": 2},
    {"tensor": 2, "data": 2},
    {"tensor": 2, "sp": True, "context": 2},
    {"pipeline": 2, "context": 2},
    {"pipeline": 2, "data": 2, "share": "optim"},
    {"tensor": 2, "data": 2, "share": "optim_grads_params"},
    {"tensor": 2, "pipeline": 2, "data": 2},
]
"""Kinds of layouts, by what is not plain about them."""


def kind(layout: str) -> dict[str, object]:
    """What a layout is, from its flags as a run understands them."""
    more, place, replicas = place_of(LAYOUTS[layout])
    parallel = make_config(BASE + more, replicas).parallel
    return {
        **{axis: getattr(place, axis) for axis in AXES},
        "sp": place.sequence_parallel,
        "schedule": parallel.pipeline_schedule,
        "share": parallel.data_parallel_sharding_strategy,
        "way": place.context_way,
    }


@pytest.mark.parametrize("wanted", ALL, ids=str)
def test_every_kind_of_layout_has_a_row(wanted: dict[str, object]) -> None:
    wanted = PLAIN | wanted
    assert any(wanted.items() <= kind(layout).items() for layout in LAYOUTS)


def features(config: Config) -> set[str]:
    model, tied = config.model, not config.model.untie_embeddings_and_output_weights
    found = {model.position_embedding_type, "tied" if tied else "untied"}
    if config.data.reset_attention_mask:
        found.add("documents")
    return found | {one.split(":")[0] for one in config.data_efficiency.curriculum}


def test_every_feature_is_in_the_rows_of_at_least_two_layouts_of_every_axis() -> None:
    """An axis, or a share of what ranks hold alike, meets each of them at least twice."""
    seen = defaultdict(set)
    for layout, model in pairs():
        sizes = kind(layout)
        axes = [axis for axis in AXES if sizes[axis] > 1]
        for feature in features(make_config(BASE + MODELS[model])):
            for axis in axes:
                seen[axis, feature].add(layout)
    wanted = ("learned_absolute", "rope", "tied", "untied", "documents", "seqlen_truncate", "seqlen_reshape")
    assert {feature for _, feature in seen} == set(wanted)
    assert not [(axis, feature) for axis in AXES for feature in wanted if len(seen[axis, feature]) < 2]


OF_EXPERTS = (
    "--moe-aux-loss-coeff 0.1",
    "--moe-z-loss-coeff",
    "seq_aux_loss",
    "global_aux_loss",
    "sinkhorn",
    "--moe-router-enable-expert-bias",
    "--moe-expert-capacity-factor",
    "--moe-shared-expert-intermediate-size",
    "--moe-input-jitter-eps",
)


@pytest.mark.parametrize("feature", OF_EXPERTS)
def test_every_feature_of_experts_is_in_two_layouts_that_share_them(feature: str) -> None:
    found = [layout for layout, model in MIXED if feature in MIXTURES[model] and "ep" in layout]
    assert len(found) >= 2
    assert any("--moe-expert-capacity-factor" not in one for one in MIXTURES.values())


def test_rows_are_kept_added_and_recomputed_when_asked() -> None:
    first, second, third, *others = ROWS
    old = "| {} | {} | 1e-16 | 2e-16 | 2e-16 | 3e-08 | 7e-08 |"
    lines = ["<!-- parity -->", "| layout |", "|---|", old.format("gone", "gpt"), old.format(*first)]
    page = "\n".join(["before", *lines, "<!-- end of parity -->", "behind"])
    there = read_rows(page)
    assert there[first] == ["1e-16", "2e-16", "2e-16", "3e-08", "7e-08", ""]
    assert rows_to_do(Options(), there, "abc") == [second, third, *others]
    assert rows_to_do(Options(again=True), there, "abc") == ROWS
    there |= {third: [*there[first][:-1], "abc"]}
    grown = with_rows(page, there)
    assert list(read_rows(grown)) == [first, third]
    assert grown.startswith("before\n") and grown.endswith("\nbehind") and with_rows(grown, there) == grown
    assert rows_to_do(Options(again=True), read_rows(grown), "abc") == [first, second, *others]
    assert rows_to_do(Options(again=True), read_rows(grown.replace("abc", "abc+")), "abc+") == ROWS


def test_one_row_can_be_named() -> None:
    def named(*models: str) -> list[tuple[str, str]]:
        return rows_to_do(Options(layouts=("cp4 p2p",), models=models), {}, "abc")

    ((layout, model),) = named()
    assert layout == "cp4 p2p" and named(model) == [("cp4 p2p", model)]
    with pytest.raises(UserError, match=f"no such row; there are cp4 p2p with {model}$"):
        named(next(one for one in MODELS if one != model))


def test_the_page_has_rows_that_the_script_reads() -> None:
    rows = read_rows(PAGE.read_text(encoding="utf-8"))
    assert len(rows) > 20 and rows.keys() <= set(ROWS)
