"""What a plan comes to, for a run that can be counted by hand."""

import pytest

from megatron.base.terminal import show
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan_summary import summarise, tables
from tests.support.configurations import make_config, make_plan

FLAGS = (
    "--train-iters 10 --global-batch-size 4 --lr-decay-style constant --lr-warmup-iters 4 "
    "--curriculum seqlen_truncate:min=32,max=128,duration=6,quantum=32 "
    "--random-ltd --random-ltd-min 32 --random-ltd-quantum 32 --random-ltd-duration 8"
)
LENGTHS = [32, 64, 64, 96, 96, 128, 128, 128, 128, 128]
"""96 t / 6 + 32, down to a multiple of 32, at the steps t from 1."""
KEPT = [32, 32, 32, 64, 64, 64, 96, 96, 128, 128]
"""96 t / 8 + 32 alike, at t from 0, and at most the length; two of four layers keep so many."""
ROWS = 4


@pytest.fixture(scope="module")
def summary():
    config = make_config(FLAGS)
    efficiency, _ = describe(config)
    return summarise(config, efficiency, make_plan(config, efficiency), 2)


def counted(steps: int) -> dict[str, int]:
    """The totals after so many steps."""
    layers = [2 * length + 2 * kept for length, kept in zip(LENGTHS[:steps], KEPT[:steps])]
    return {
        "consumed_samples": ROWS * steps,
        "consumed_tokens": ROWS * sum(one // 4 for one in layers),
        "raw_tokens": ROWS * sum(LENGTHS[:steps]),
        "drawn_tokens": ROWS * 128 * steps,
        "layer_tokens": ROWS * sum(layers),
    }


def test_growth_and_totals(summary) -> None:
    assert summary["steps"] == 10 and summary["data_parallel_size"] == 2
    assert summary["batch_size"] == {"first": 4, "last": 4, "from_step": 1, "full": 4}
    assert summary["sequence_length"] == {"first": 32, "last": 128, "from_step": 6, "full": 128}
    kept = {"first": 32, "last": 128, "from_step": 9, "full": 128, "layers": 2}
    assert summary["kept_length"] == kept
    assert summary["totals"] == counted(10)
    assert summary["learning_rate"] == {"peak": 1e-3, "peak_step": 4, "last": 1e-3}


def test_milestones(summary) -> None:
    for row, share, step in zip(
        summary["milestones"], (0, 10, 25, 50, 75, 100), (1, 1, 2, 5, 7, 10), strict=True
    ):
        totals = counted(step)
        assert (row["percent"], row["step"], row["batch_size"]) == (share, step, 4)
        assert (row["sequence_length"], row["kept_length"]) == (LENGTHS[step - 1], KEPT[step - 1])
        assert {name: row[name] for name in totals} == totals
        saved = 1 - totals["layer_tokens"] / (4 * totals["raw_tokens"])
        assert row["layer_tokens_saved"] == pytest.approx(saved, abs=1e-15)
        assert row["learning_rate"] == pytest.approx(min(step / 4, 1) * 1e-3, rel=1e-12)


def test_the_tables_say_it_in_words(summary, capsys: pytest.CaptureFixture[str]) -> None:
    show(*tables(summary))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    total = counted(10)
    for line in (
        "steps 10",
        "batch size 4 samples in every step; micro-batches of 2 on 2 data-parallel ranks",
        "sequence length 32 to 128 tokens, full from step 6",
        "kept length 32 to 128 tokens, full from step 9; in 2 of 4 layers",
        "samples 40",
        f"raw tokens {total['raw_tokens']:,}, entered the first layer",
        f"layer tokens {total['layer_tokens'] / 1e3:,.1f} K ({total['layer_tokens']:,}), "
        "summed over the layers",
        "learning rate peak 0.001 at step 4, last 0.001",
    ):
        assert line in lines
    assert any(line.startswith(f"effective tokens {total['consumed_tokens']:,}, ") for line in lines)
    assert "50% 5 4 96 64 1,152 1,408 18.2% 1.000e-03" in lines
