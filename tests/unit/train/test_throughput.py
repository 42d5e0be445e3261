"""TFLOP/s, MFU and HFU against numbers worked out by hand."""

import pytest

from megatron.schedule.data_efficiency_flags import describe
from megatron.train.throughput import device_peak, explain, rates
from tests.support.configurations import make_config, make_plan

COUNTED = (
    "throughput: 6 FLOPs a weight and token, causal attention counted half, every layer at its own kept "
    "length; HFU adds the recomputed forward pass"
)


def test_rates_of_a_model_counted_by_hand() -> None:
    """4 layers of width 64: 4·64² weights of attention and 8·64² of the MLP each, 100 words, rows of 128."""
    config = make_config("--global-batch-size 4 --train-iters 5 --recompute-granularity full")
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency, 100)
    linear = 6 * 4 * 12 * 64**2 * 128
    attention = 6 * 4 * 64 * 128**2  # two products of 2·64·128² each, forward and twice backward, half of it
    head = 6 * 64 * 100 * 128
    step, again = 4 * (linear + attention + head), 4 * (linear + attention) / 3
    speed = rates(plan, 1, 4, seconds=0.5, ranks=2, peak=0.01)
    assert speed.teraflops == pytest.approx(3 * step / 0.5 / 2 / 1e12, rel=1e-12)
    assert speed.mfu == pytest.approx(3 * step / 1e10, rel=1e-12)
    assert speed.hfu == pytest.approx(3 * (step + again) / 1e10, rel=1e-12)


def test_dropping_layers_count_their_kept_length() -> None:
    """Layers 1 and 2 of 4 keep 32 of 128 tokens."""
    config = make_config(
        "--global-batch-size 4 --train-iters 5 --random-ltd --random-ltd-min 32 --random-ltd-duration 1000"
    )
    efficiency, _ = describe(config)
    linear, attention = 6 * 12 * 64**2 * (2 * 128 + 2 * 32), 6 * 64 * (2 * 128**2 + 2 * 32**2)
    speed = rates(make_plan(config, efficiency, 100), 0, 1, seconds=1.0, ranks=1, peak=1.0)
    assert speed.teraflops == pytest.approx(4 * (linear + attention + 6 * 64 * 100 * 128) / 1e12, rel=1e-12)
    assert speed.mfu == speed.hfu == speed.teraflops


@pytest.mark.parametrize(
    ("more", "again"),
    [
        ("--attention-dropout 0.1", True),
        ("--attention-dropout 0 --attention-backend unfused", True),
        ("--attention-dropout 0", False),
        ("--attention-dropout 0.1 --attention-backend fused", False),
    ],
)
def test_gated_grouped_and_selectively_recomputed_layers(more: str, again: bool) -> None:
    """Two groups of 4 heads of 8 channels, three matrices of 96; explicit attention runs again."""
    config = make_config(
        "--train-iters 5 --swiglu --ffn-hidden-size 96 --kv-channels 8 --group-query-attention "
        f"--num-query-groups 2 --recompute-granularity selective {more}"
    )
    linear = 6 * 4 * (64 * (2 * 32 + 2 * 16) + 3 * 64 * 96) * 128
    attention = 6 * 4 * 32 * 128**2
    model = 2 * (linear + attention + 6 * 64 * 100 * 128)
    speed = rates(make_plan(config, describe(config)[0], 100), 0, 1, seconds=1.0, ranks=1, peak=1.0)
    assert speed.mfu == pytest.approx(model / 1e12, rel=1e-12)
    assert speed.hfu == pytest.approx((model + 2 * attention / 3 * again) / 1e12, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("A100-SXM4-40GB", 312),
        ("NVIDIA B200", 2250),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GB200", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_peaks_of_devices_in_bf16(name: str, peak: float | None) -> None:
    assert device_peak(make_config("--train-iters 1 --bf16"), name) == peak
    assert device_peak(make_config("--train-iters 1"), name) is None
    assert device_peak(make_config("--train-iters 1 --device-peak-tflops 1.5"), name) == 1.5


def test_how_it_is_counted_is_said() -> None:
    bf16, stated = (
        make_config("--train-iters 1 --bf16"),
        make_config("--train-iters 1 --device-peak-tflops 2"),
    )
    lines = [
        f"{COUNTED}\npeak of NVIDIA H200: 989 TFLOP/s, bf16, dense",
        f"{COUNTED}\npeak of cpu: 2 TFLOP/s, as --device-peak-tflops states",
        f"{COUNTED}\nno MFU: the bf16 peak of cpu is not known; --device-peak-tflops states it",
    ]
    assert [
        explain(bf16, "NVIDIA H200", 989.0),
        explain(stated, "cpu", 2.0),
        explain(bf16, "cpu", None),
    ] == lines
