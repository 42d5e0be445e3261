"""The figures of a table hold its means and seeds."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron.reproduce.pictures import pictures, reach_figure, rows_figure
from megatron.reproduce.table import read_table

TABLE = read_table(Path(__file__).parents[3] / "scripts" / "reproduce" / "headline.yaml")


def record(quality: float, tokens: float) -> dict[str, Any]:
    return {
        "quality": {"bits_per_byte": quality},
        "tokens": {"effective": tokens},
        "cpu_seconds": tokens / 10,
    }


RECORDS = {
    "baseline": {1: record(2.0, 800), 2: record(2.2, 800)},
    "composed_1/4": {1: record(2.3, 200)},
    "composed_3/8": {1: record(1.8, 300), 2: record(2.0, 300)},
}


def test_a_row_is_its_mean_and_its_seeds() -> None:
    (axes,) = rows_figure(TABLE, RECORDS, list(RECORDS)).axes
    drawn = {(float(x), float(y)) for line in axes.lines for x, y in np.asarray(line.get_xydata())}
    assert {(2.0, -0.3), (2.2, 0.3), (2.3, 0.7), (1.8, 1.7)} <= drawn  # seeds, at one height in every row
    assert any(point == pytest.approx((2.1, 0.0)) for point in drawn)
    assert any(point == pytest.approx((1.9, 2.0)) for point in drawn)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(RECORDS)
    assert axes.get_xlabel() == "bits per byte (less is better)"


def test_a_group_is_a_line_by_tokens_and_one_by_time() -> None:
    groups = {"composed": ["composed_3/8", "composed_1/4"]}
    for axes, factor in zip(reach_figure(TABLE, RECORDS, groups).axes, (1.0, 0.1)):
        points = np.asarray(axes.lines[0].get_xydata())
        assert points.ravel() == pytest.approx([200 * factor, 2.3, 300 * factor, 1.9])


@pytest.mark.parametrize("largest", [52.0, 99.0, 8e3, 3e5, 7e11])
@pytest.mark.parametrize("share", [0.98, 0.7, 0.2, 1e-3])
def test_an_amount_has_labels_however_narrow_its_axis_is(largest: float, share: float) -> None:
    rows = ["composed_1/4", "composed_3/8"]
    records = {row: {1: record(2.0, part * largest)} for row, part in zip(rows, (share, 1.0))}
    for axes in reach_figure(TABLE, records, {"composed": rows}).axes:
        (low, high), ticks = axes.get_xlim(), axes.get_xticks()
        assert 2 <= sum(low <= tick <= high for tick in ticks) <= 20
        assert axes.get_xlabel().endswith("logarithmic)")


def test_a_long_title_stays_in_the_figure() -> None:
    table = dataclasses.replace(TABLE, title=" ".join(["many words"] * 20))
    groups = {"composed": ["composed_3/8"]}
    for figure in (rows_figure(table, RECORDS, ["baseline"]), reach_figure(table, RECORDS, groups)):
        figure.draw_without_rendering()
        (title,) = figure.texts
        assert title.get_window_extent().x1 <= figure.bbox.x1


def test_figures_are_of_what_has_finished_and_the_same_every_time() -> None:
    assert pictures(TABLE, {}, list(TABLE.rows)) == []
    found = pictures(TABLE, RECORDS, list(TABLE.rows))
    assert [one.name for one in found] == ["headline_rows.png", "headline_reach.png"]
    assert found == pictures(TABLE, RECORDS, list(TABLE.rows))
    only = pictures(TABLE, {"baseline": RECORDS["baseline"]}, ["baseline"])
    assert [one.name for one in only] == ["headline_rows.png"]
