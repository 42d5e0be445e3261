"""Mixtures of experts in a report: their numbers, and their loads as pictures, from made-up records."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from megatron.base.errors import UserError
from megatron.report.charts import Chart
from megatron.report.conditions import conditions
from megatron.report.experts import (
    UNKNOWN,
    expert_charts,
    expert_facts,
    expert_notes,
    has_experts,
    load_charts,
    loads_over_steps,
)
from megatron.report.records import RecordedRun, read_run
from megatron.report.summary import statement
from tests.support.made_up_runs import write_run
from tools import report

FLAGS = {
    "num_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 64,
    "moe_aux_loss_coeff": 0.01,
    "moe_z_loss_coeff": 0.001,
    "moe_expert_capacity_factor": None,
}
ABOUT = {"config": {"experts": FLAGS}, "parameters": 5000, "active_parameters": 2000, "flops": 1e9}
EVEN = [0.25, 0.25, 0.25, 0.25]

Shares = Callable[[int], dict[str, list[float]] | None]


def leaning(step: int) -> dict[str, list[float]]:
    """Layer 1 is even; in layer 3 expert 2 has half of all choices after step 20, and expert 0 none."""
    return {"1": EVEN, "3": EVEN if step <= 20 else [0.0, 0.25, 0.5, 0.25]}


def mixture(
    folder: Path, shares: Shares = leaning, about: dict | None = ABOUT, name: str = "mix", **more: int
) -> RecordedRun:
    """A made-up run of which every training record has balancing and z loss, and these shares."""
    path = write_run(folder, about=about, **more) / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in (one for one in records if one["kind"] == "train"):
        step = record["iteration"]
        record |= {"load_balancing_loss": 1.5 - step / 100, "z_loss": 2.0}
        if (told := shares(step)) is not None:
            record["expert_shares"] = told
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return read_run(name, folder)


def colours_of(chart: Chart) -> np.ndarray:
    """Of every cell of a picture, RGBA [experts, columns, 4]."""
    (mesh,) = chart.figure.axes[0].collections
    chart.figure.draw_without_rendering()
    return mesh.get_facecolors().reshape(*mesh.get_array().shape, 4)


def test_shares_are_read_by_layer_and_unknown_where_a_record_has_none(tmp_path: Path) -> None:
    run = mixture(tmp_path, lambda step: {"1": EVEN} if step > 10 else None)
    assert run.shares.keys() == {1} and run.shares[1].shape == (40, 4)
    assert np.isnan(run.shares[1][:10]).all() and (run.shares[1][10:] == 0.25).all()
    assert read_run("dense", write_run(tmp_path / "dense")).shares == {}


@pytest.mark.parametrize("told", [[1], {"1": "half"}, {"one": EVEN}, {"1": [0.5, None]}, {"1": []}, {"1": 3}])
def test_shares_that_are_none_are_told(tmp_path: Path, told: object) -> None:
    write_run(tmp_path)
    line = {"kind": "train", "iteration": 41, "consumed_tokens": 9000, "expert_shares": told}
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:45: expert_shares must hold a list of numbers"):
        read_run("run", tmp_path)


def test_a_column_is_the_mean_of_its_steps(tmp_path: Path) -> None:
    """Against a loop over all steps; loads are shares in even shares."""
    draws = np.random.default_rng(0).dirichlet([1.0] * 4, size=41)
    run = mixture(tmp_path, lambda step: {"0": draws[step].tolist()})
    for columns in (40, 20, 7):
        edges, loads = loads_over_steps(run, 0, columns)
        for number in range(columns):
            steps = [step for step in range(1, 41) if edges[number] < step <= edges[number + 1]]
            np.testing.assert_allclose(loads[number], 4 * draws[steps].mean(0), rtol=1e-6)
    assert len(loads_over_steps(run, 0).loads) == 40


def test_a_picture_has_every_load_at_its_place(tmp_path: Path) -> None:
    """White where all is even, red for more, blue for less, grey where nothing is known."""
    late = mixture(tmp_path / "late", lambda step: leaning(step) if step > 10 else None, name="late")
    runs = [mixture(tmp_path / "mix"), late]
    drawn = load_charts(runs)
    assert [chart.name for chart in drawn] == [
        f"experts_layer_{layer}_run_{number}" for layer in (1, 3) for number in (1, 2)
    ]
    assert "layer 3: mix" in drawn[2].words
    even, leans, grey = (colours_of(drawn[number]) for number in (0, 2, 3))
    assert np.ptp(even.reshape(-1, 4), axis=0).max() == 0 and even.min() > 0.95
    (red, _, blue, _), (other_red, _, other_blue, _) = leans[2, -1], leans[0, -1]
    assert red > blue + 0.2 and other_blue > other_red + 0.2
    assert (leans[:, :20] == even[:, :20]).all() and (leans[[1, 3]] == even[[1, 3]]).all()
    np.testing.assert_allclose(grey[:, 9, :3], np.tile([0xB3, 0xBA, 0xC1], (4, 1)) / 255)
    assert (grey[:, 10:] == leans[:, 10:]).all() and UNKNOWN == "#b3bac1"
    assert drawn[3].figure.axes[0].get_legend().get_texts()[0].get_text() == "not recorded"
    assert drawn[2].figure.axes[0].get_legend() is None
    assert drawn[0].figure.axes[0].get_ylim() == (3.5, -0.5)


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ([0.26, 0.26, 0.24, 0.24], 2),
        ([0.07, 0.31, 0.31, 0.31], 4),  # 1 / 0.28
        ([0.67, 0.11, 0.11, 0.11], 4),  # 2.68
        ([0.85, 0.05, 0.05, 0.05], 8),  # 1 / 0.2
        ([0.5, 0.5, 0.0, 0.0], 2),
        ([1.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_the_scale_holds_nearly_all_loads_and_is_one_for_all(
    tmp_path: Path, row: list[float], limit: int
) -> None:
    """But not experts without tokens."""
    runs = [
        mixture(tmp_path / "a", lambda step: {"0": row}),
        mixture(tmp_path / "b", lambda step: {"0": EVEN}),
    ]
    for chart in load_charts(runs):
        norm = chart.figure.axes[0].collections[0].norm
        assert (norm.vmin, norm.vmax) == (1 / limit, limit)


def apart(figure: Figure) -> None:
    """All of a picture lies within its figure, and no two texts of it on each other."""
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (bar,) = axes.child_axes
    texts = [axes._left_title, axes.xaxis.label, axes.yaxis.label, bar.yaxis.label]
    ticks = [tick for one in (axes.xaxis, axes.yaxis, bar.yaxis) for tick in one._update_ticks()]
    texts += [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]
    texts += axes.get_legend().get_texts() if axes.get_legend() else []
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    tight = axes.get_tightbbox()
    assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= figure.bbox.x1 and tight.y1 <= figure.bbox.y1
    assert all(
        box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes
    )
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("experts", [2, 8, 200])
def test_nothing_is_cut_off_or_drawn_over(tmp_path: Path, experts: int) -> None:
    row = [1 / experts] * experts
    runs = [
        mixture(tmp_path / "a", lambda step: {"0": row}, name="W" * 80, steps=1200),
        mixture(tmp_path / "b", lambda step: {"0": row, "11": row} if step > 3 else None, name="µ$_x^2$"),
    ]
    figures = [chart.figure for chart in load_charts(runs)]
    assert len(figures) == 3 and len({tuple(figure.get_size_inches()) for figure in figures}) == 1
    for figure in figures:
        apart(figure)


def test_facts_against_plain_arithmetic(tmp_path: Path) -> None:
    run = mixture(tmp_path / "mix")
    where = "mean of the last 10% of the steps"
    assert expert_facts(run) == {
        "experts of a layer": "4 experts of width 64, 2 for a token",
        "load balancing loss": "1.1000\ncounts 0.01 times",  # 1.5 - 40 / 100
        "seq load balancing loss": "–",
        "global load balancing loss": "–",
        "z loss": "2.0000\ncounts 0.001 times",
        "fullest expert": f"2.00 even shares\nlayer 3, expert 2, {where}",
        "emptiest expert": f"0.00 even shares\nlayer 3, expert 0, {where}",
        "tokens dropped by full experts": "none\nexperts take all tokens",
    }
    limited = {"config": {"experts": FLAGS | {"moe_expert_capacity_factor": 1.25}}}
    found = expert_facts(mixture(tmp_path / "limited", about=limited))
    assert found["tokens dropped by full experts"] == "not recorded\ncapacity factor 1.25"
    dense = read_run(
        "dense", write_run(tmp_path / "dense", about={"config": {"experts": {"num_experts": 1}}})
    )
    assert set(expert_facts(dense).values()) == {"–"} and not has_experts(dense) and has_experts(run)


def test_active_and_total_parameters_are_told(tmp_path: Path) -> None:
    run = mixture(tmp_path / "mix")
    dense = read_run(
        "dense",
        write_run(tmp_path / "dense", about={"parameters": 1990, "active_parameters": 1990, "flops": 1e9}),
    )
    assert conditions(run)["parameters"] == "5,000\n2,000 of them active for a token"
    assert conditions(run)["FLOPs"] == "1.000E+09\nby the experts that compute a token"
    assert conditions(run)["model"].endswith("4 experts of width 64, 2 for a token")
    assert (conditions(dense)["parameters"], conditions(dense)["FLOPs"]) == ("1,990", "1.000E+09")
    assert statement([dense, run]).startswith("Two runs of 1,990 and 5,000 (2,000 active) parameters.")


def test_a_loss_of_experts_has_lines_of_mixtures_alone(tmp_path: Path) -> None:
    """In the colours of their runs, on an axis that shows the differences."""
    runs = [read_run("dense", write_run(tmp_path / "dense")), mixture(tmp_path / "mix")]
    drawn = expert_charts(runs)
    assert [chart.name for chart in drawn] == ["load_balancing_loss", "z_loss"]
    axes = drawn[0].figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mix"]
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata()[1:], 1.5 - np.arange(2, 41) / 100)
    assert 1 < axes.get_ylim()[0] < 1.1


def test_the_page_has_experts_where_a_run_has_some(tmp_path: Path) -> None:
    dense, mix = write_run(tmp_path / "dense"), tmp_path / "mix"
    mixture(mix)

    def page(*runs: str) -> str:
        report.main(["--runs", *runs, "--output", str(tmp_path / "page.html")])
        return (tmp_path / "page.html").read_text()

    html = page(f"dense={dense}", f"mix={mix}")
    assert "<h2>Experts</h2>" in html and "2.00 even shares" in html
    assert "Loads of layer 3: mix, for every expert and step" in html and "may be a mean" not in html
    assert (tmp_path / "page_files" / "experts_layer_3_run_2.png").is_file()
    assert "Experts" not in page(f"dense={dense}")
    mixture(mix, lambda step: None)
    assert "mix recorded no loads of its experts; --moe-per-layer-logging does." in page(f"mix={mix}")


def test_columns_of_several_steps_are_told(tmp_path: Path) -> None:
    row = {"0": EVEN}
    (few,) = expert_notes([mixture(tmp_path / "few", lambda step: row)])
    (many,) = expert_notes([mixture(tmp_path / "many", lambda step: row, steps=1000)])
    assert "column" not in few and "A column is a mean of up to 5 steps." in many  # 1000 / 230
