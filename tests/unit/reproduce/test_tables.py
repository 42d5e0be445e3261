"""Tables of scripts/reproduce as data, their plans and prices, and what is told of records."""

import math
from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.reproduce.outcome import edge_of, goal_grid, grid, sentences, warnings
from megatron.reproduce.plans import HARDWARE, divided, plan_row, price
from megatron.reproduce.runs import Places, Size, make_run, rate_of
from megatron.reproduce.table import Table, read_table

ROOT = Path(__file__).parents[3]
TABLES = sorted((ROOT / "scripts" / "reproduce").glob("*.yaml"))
TABLES = [path for path in TABLES if not path.name.startswith("without_")]
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
    table = read("headline")
    whole, half = (plan_row(table, table.rows[name], *SIZE) for name in ("composed", "composed_1/2"))
    assert divided(table, table.rows["composed_1/2"], *SIZE) == 800
    assert half.tokens / whole.tokens == pytest.approx(0.5, rel=0.01)
    ends = [int((one.plan.kept_length < 256).sum()) / one.plan.steps for one in (whole, half)]
    assert ends[1] == pytest.approx(ends[0], rel=0.02)


def test_the_rate_is_the_recipes_times_the_papers_rule_and_the_tuned_factor() -> None:
    gpt, headline = read("gpt"), read("headline")
    whole = rate_of(gpt, "baseline", 1.0, SIZE)
    assert rate_of(gpt, "baseline_1/2", 1.0, SIZE) == pytest.approx(2 * whole, rel=0.01)
    assert rate_of(headline, "composed_1/2", 0.5, SIZE) == pytest.approx(whole, rel=0.01)


def test_the_same_run_of_two_tables_has_one_name(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", tmp_path)
    names = [
        make_run(read(one), "composed", 1, 1.0, SIZE, places).name for one in ("gpt", "curve", "headline")
    ]
    assert len(set(names)) == 1
    assert make_run(read("gpt"), "composed", 2, 1.0, SIZE, places).name not in names


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
        "a: [": "can be read",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_table(path)


def record(quality: float, tokens: float, seconds: float, **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("effective", "raw", "drawn"), tokens)
    qualities = {"bits_per_byte": quality}
    return {"quality": qualities, "tokens": counts, "cpu_seconds": seconds, "rate": 1e-3} | more


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


def test_the_goal_by_hand() -> None:
    """Half of the logarithm between 50 and 100 tokens is 70.7."""
    table = read("headline")
    shares = {"1/4": 25, "1/2": 50, "3/4": 75}
    qualities = {"1/4": 2.4, "1/2": 2.1, "3/4": 1.9}
    records = {f"composed_{one}": {1: record(qualities[one], shares[one], shares[one])} for one in shares}
    records |= {"composed": {1: record(1.8, 100, 100)}, "baseline": {1: record(2.0, 100, 100)}}
    rows = {row[0]: row[1:] for row in goal_grid(table, records).rows}
    assert rows["composed"] == [f"{math.sqrt(50 * 75):.1f}"] * 2 + ["1", "1"]
    assert rows["without_voc"] == ["-", "-", "0", "0"]


def test_a_best_rate_at_the_end_of_the_grid_is_told() -> None:
    assert edge_of({"0.5": "2.1", "1": "2.0", "2": "2.2"}, 1) == []
    assert "2 times the recipe's" in edge_of({"0.5": "2.1", "1": "2.0", "2": "1.9"}, 1)[0]
    assert edge_of({"1": "2.0"}, 1) == []
