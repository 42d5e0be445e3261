"""Tables of scripts/reproduce as data, their plans and prices, and what is told of records."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.reproduce import plans
from megatron.reproduce.outcome import edge_of, goal_grid, grid, sentences, warnings
from megatron.reproduce.plans import HARDWARE, divided, plan_row, price
from megatron.reproduce.runs import Places, Size, earlier_record, make_run, rate_of, record_path
from megatron.reproduce.table import Table, read_table
from tools.reproduce_table import _names

ROOT = Path(__file__).parents[3]
TABLES = sorted((ROOT / "scripts" / "reproduce").glob("*.yaml"))
TABLES = [path for path in TABLES if "\nrows:" in path.read_text(encoding="utf-8")]  # the others are recipes
SIZE = Size("mini", None)


def read(name: str) -> Table:
    return read_table(ROOT / "scripts" / "reproduce" / f"{name}.yaml")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_is_planned_small_and_every_script_names_its_table(path: Path) -> None:
    table = read_table(path)
    assert all(plan_row(table, row, *SIZE).flops > 0 for row in table.rows.values())
    scripts = (path.parent).glob("*.sh")
    assert [one for one in scripts if f"\ntable={path.stem}\n" in one.read_text(encoding="utf-8")]


def test_a_share_shortens_all_of_a_run() -> None:
    table = read("curve")
    whole, half = (plan_row(table, table.rows[name], *SIZE) for name in ("composed_1/2", "composed_1/4"))
    assert divided(table, table.rows["composed_1/4"], *SIZE) == 1600
    assert half.tokens / whole.tokens == pytest.approx(0.5, rel=0.01)
    ends = [int((one.plan.kept_length < 256).sum()) / one.plan.steps for one in (whole, half)]
    assert ends[1] == pytest.approx(ends[0], rel=0.02)


def test_the_rate_is_the_recipes_times_the_papers_rule_and_the_tuned_factor() -> None:
    gpt, headline = read("gpt"), read("headline")
    whole = rate_of(gpt, "baseline", 1.0, SIZE)
    assert rate_of(gpt, "baseline_1/2", 1.0, SIZE) == pytest.approx(2 * whole, rel=0.01)
    assert rate_of(headline, "composed_3/8", 0.5, SIZE) == pytest.approx(whole / 2, rel=0.01)
    assert rate_of(headline, "composed_3/8_faster", 0.5, SIZE) == pytest.approx(whole, rel=0.01)


def test_the_same_run_of_two_tables_has_one_name(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", tmp_path)
    names = [make_run(read(one), "composed", 1, 1.0, SIZE, places).name for one in ("gpt", "curve")]
    assert len(set(names)) == 1
    assert make_run(read("gpt"), "composed", 2, 1.0, SIZE, places).name not in names


OWN = "title: t\npaper: p\nscript: pretrain_gpt.py\ndata: text\nmeasures: [loss]\nscale_steps: 400\n"


def own_table(folder: Path, text: str = "rows: {a: {recipe: mine, share: 0.5}}", recipe: str = "") -> Table:
    included = f"include: {ROOT}/recipes/gpt3_1.3b/cl_voc_300b.yaml\n"
    (folder / "mine.yaml").write_text(included + recipe)
    (folder / "t.yaml").write_text(OWN + text)
    return read_table(folder / "t.yaml")


def test_a_batch_that_64_gpus_cannot_share_has_no_price(tmp_path: Path) -> None:
    table = own_table(tmp_path, recipe="global_batch_size: 256\n")
    with pytest.raises(UserError, match="mine has a batch of 256 at full size, too few for 64 GPUs"):
        price(table, table.rows["a"], HARDWARE["H100"], 0.4)


def test_a_changed_recipe_is_another_run_and_a_moved_one_the_same(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", tmp_path)
    (tmp_path / "other").mkdir()

    def name(folder: Path, recipe: str) -> str:
        plans._planned.cache_clear()
        return make_run(own_table(folder, recipe=recipe), "a", 1, 1.0, SIZE, places).name

    first = name(tmp_path, "")
    assert name(tmp_path, "clip_grad: 2.0\n") != first
    assert name(tmp_path, "") == first == name(tmp_path / "other", "")


def test_changed_weights_to_begin_with_are_another_run(tmp_path: Path) -> None:
    places, table = Places(tmp_path / "data", tmp_path), read("finetune")
    assert table.source
    first = make_run(table, "seqres", 1, 1.0, SIZE, places).name
    other = dataclasses.replace(table, source=dataclasses.replace(table.source, rate=2.0))
    assert make_run(other, "seqres", 1, 1.0, SIZE, places).name != first


def test_difficulties_are_of_the_length_and_of_sentences_the_seed_of_the_run(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", tmp_path)
    for scale, length in {"mini": "256", "small": "1024"}.items():
        run = make_run(read("gpt"), "voc", 2, 1.0, Size(scale, 400), places)
        assert run.steps[-1].words[-4:-2] == ("--seq-length", length)
        assert run.steps[-1].outputs[0] in run.commands[0]
    runs = [make_run(read("bert"), "composed", seed, 1.0, SIZE, places) for seed in (1, 2)]
    for seed, run in enumerate(runs, 1):
        words = run.steps[-1].words
        assert words[words.index("--seed") + 1] == str(seed) and run.steps[-1].outputs[0] in run.commands[0]
    assert runs[0].steps[:-1] == runs[1].steps[:-1] and runs[0].steps[-1] != runs[1].steps[-1]
    assert not any(
        "analyze" in step.words[0] for step in make_run(read("bert"), "baseline", 1, 1.0, SIZE, places).steps
    )


def test_a_share_of_a_recipe_that_scales_its_steps_itself(tmp_path: Path) -> None:
    table = dataclasses.replace(own_table(tmp_path, recipe="scale_steps: 2000\n"), scale_steps=None)
    assert divided(table, table.rows["a"], "mini", None) == 4000
    assert divided(table, table.rows["a"], "full", None) is None


def test_a_recipe_that_is_not_there_is_told(tmp_path: Path) -> None:
    table = own_table(tmp_path, "rows: {a: {recipe: nobody}}")
    with pytest.raises(UserError, match=r"recipe nobody: there is no .*/nobody\.yaml and no "):
        plan_row(table, table.rows["a"], *SIZE)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", tmp_path)
    run = make_run(own_table(tmp_path), "a", 1, 1.0, SIZE, places)
    assert earlier_record(places, run) is None
    places.results.mkdir()
    whole = {"format": 1, "rate": 1.0, "cpu_seconds": 2, "quality": {"loss": 3.0}}
    whole["tokens"] = {"effective": 1, "raw": 1, "drawn": 1}
    for change in ({}, {"quality": {}}, {"tokens": {"raw": 1}}, {"rate": None}, {"cpu_seconds": math.nan}):
        record_path(places, run).write_text(json.dumps(whole | change))
        if not change:
            assert earlier_record(places, run) == whole
            continue
        with pytest.raises(UserError, match="move it away"):
            earlier_record(places, run)


def test_the_price_of_the_baseline_is_its_flops_at_the_efficiency() -> None:
    """Computing alone, with what is computed again, is below the price; sending adds less than half."""
    table = read("gpt")
    row = table.rows["baseline"]
    computed = float(plan_row(table, row, "full").plan.hardware_flops.sum()) / (989e12 * 0.4) / 3600
    found = price(table, row, HARDWARE["H100"], 0.4)
    assert computed < found.gpu_hours < 1.5 * computed
    assert found.dollars == pytest.approx(found.gpu_hours * HARDWARE["H100"].dollars)


def test_the_price_of_v100_is_the_papers() -> None:
    assert HARDWARE["V100"].dollars == pytest.approx(46_300 / (64 * 260), abs=0.005)


def test_mistakes_of_a_table_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    head = "title: t\npaper: p\nscript: pretrain_gpt.py\ndata: text\nmeasures: [loss]\n"
    for text, words in {
        "rows": "needs rows",
        head + "rows: {a: {recipe: r, wrong: 1}}": "unknown wrong; known are recipe",
        head + "rows: {a: {share: 1}}": "recipe is missing",
        head + "rows: {a: {recipe: r, against: [b]}}": "b is no row",
        head.replace("loss", "beauty") + "rows: {a: {recipe: r}}": "choose of bits_per_byte",
        head + "rows: {a: {recipe: r, share: half}}": "row a: share 'half': write a number",
        head + "rows: {a: {recipe: r, share: 0}}": "row a: share 0: must be above 0",
        head + "rows: {a: {recipe: r, flags: [--num-layers, 4]}}": "write a list of texts",
        head + "rows: {a: {recipe: r, paper: {hours: 2 h}}}": "hours 2 h: write a number",
        head + "rows: {1: {recipe: r}}": "rows .*: write a mapping",
        head + "rates: 2\nrows: {a: {recipe: r}}": "rates 2: write a list of numbers",
        head + "gpus: 0\nrows: {a: {recipe: r}}": "gpus 0: must be at least 1",
        head + "vocabulary: 9\nrows: {a: {recipe: r}}": "write a list of two whole numbers",
        head.replace("[loss]", "loss") + "rows: {a: {recipe: r}}": "measures 'loss': write a list of texts",
        head.replace("[loss]", "[]") + "rows: {a: {recipe: r}}": "name one at least",
        "a: [": "can be read",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_table(path)


def record(quality: float, tokens: float, seconds: float, **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("effective", "raw", "drawn"), tokens)
    qualities = {"bits_per_byte": quality}
    amounts = {"tokens": counts, "flops": tokens, "cpu_seconds": seconds}
    return {"quality": qualities, **amounts, "rate": 1e-3} | more


def test_a_table_of_records_by_hand() -> None:
    table = read("gpt")
    records = {
        "baseline": {1: record(2.0, 100, 10, data="x"), 2: record(2.2, 100, 20, data="x")},
        "composed": {1: record(1.9, 100, 10, data="x"), 2: record(2.1, 100, 20, data="y")},
    }
    names = ("baseline", "composed", "voc")
    cells = dict(zip(("row", *grid(table, records, names).columns), grid(table, records, names).rows[1]))
    assert cells["paper: 0-shot"] == "43.8" and cells["seeds"] == "2" and cells["CPU time"] == "15.0 s"
    assert cells["bits per byte"] == "2.0000 ± 0.1414"
    assert sentences(table, records, names)[0].startswith("seen: composed is 0.1000 ± 0.0000 bits per byte")
    assert sentences(table, records, names)[1] == "voc against baseline: no seed of both has finished."
    assert warnings(records) == ["Runs are of different data, so their qualities do not compare: x; y."]


def test_rows_may_have_commas_between() -> None:
    assert _names(read("gpt"), ["composed,baseline"]) == ("baseline", "composed")
    with pytest.raises(UserError, match="--rows dense: choose of baseline, "):
        _names(read("gpt"), ["baseline,dense"])


def test_the_goal_by_hand() -> None:
    """Half of the logarithm between 50 and 75 tokens is 61.2."""
    table = read("headline")
    shares = {"1/4": (2.2, 50), "3/8": (1.8, 75)}
    records = {f"composed_{one}": {1: record(told[0], told[1], told[1])} for one, told in shares.items()}
    records |= {"baseline": {1: record(2.0, 100, 100)}}
    rows = {row[0]: row[1:] for row in goal_grid(table, records).rows}
    assert rows["composed"] == [f"{math.sqrt(50 * 75):.1f}"] * 3 + ["1", "1"]
    assert rows["without_voc"] == ["-", "-", "-", "0", "0"]


def test_a_best_rate_at_the_end_of_the_grid_is_told() -> None:
    assert edge_of({0.5: 2.1, 1.0: 2.0, 2.0: 2.2}, 1) == []
    assert "2 times the recipe's" in edge_of({0.5: 2.1, 1.0: 2.0, 2.0: 1.99999}, 1)[0]
    assert edge_of({0.5: 0.7, 1.0: 0.8, 2.0: 0.6}, -1) == []
    assert edge_of({1.0: 2.0}, 1) == edge_of({}, 1) == []
