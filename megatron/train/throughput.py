"""How fast a run computes: TFLOP/s, and their share of what the device could do.

MFU counts what the model needs: 6 FLOPs a weight and token, causal attention half, every layer at its own
kept length. HFU counts what the device does: recomputed forward passes, too. Both come of the plan.
"""

import re
from typing import NamedTuple

import torch

from megatron.config.config import Config
from megatron.schedule.plan import Plan

# Dense bf16 and fp16 TFLOP/s as NVIDIA states them; the first name that fits counts. A bare H100 is SXM.
PEAKS = {
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "A100": 312.0,
    "B200": 2250.0,
}


class Rates(NamedTuple):
    """A rank's speed: model TFLOP/s, and shares of the device's peak; None where no peak is known."""

    teraflops: float
    mfu: float | None
    hfu: float | None


def rates(plan: Plan, after: int, through: int, seconds: float, ranks: int, peak: float | None) -> Rates:
    """The speed of the steps behind step `after` through step `through`, which took so many seconds. `peak`:
    TFLOP/s of one rank's device."""
    model, hardware = (
        float(flops[after:through].sum()) / seconds / ranks / 1e12
        for flops in (plan.flops, plan.hardware_flops)
    )
    return Rates(model, model / peak if peak else None, hardware / peak if peak else None)


def device_peak(config: Config, device_name: str) -> float | None:
    """Dense TFLOP/s of a device of this name in the run's precision; None where nobody states them."""
    if config.logging.device_peak_tflops is not None:
        return config.logging.device_peak_tflops
    sliced = "MIG" in device_name.split()  # and has a share of its GPU's peak
    if sliced or _precision(config) == "fp32":
        return None
    found = (peak for name, peak in PEAKS.items() if re.match(rf"(NVIDIA )?{name}\b", device_name))
    return next(found, None)


def device_name(device: torch.device) -> str:
    """The name of a GPU as its driver says it, else the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def explain(config: Config, device_name: str, peak: float | None) -> str:
    """How TFLOP/s, MFU and HFU are counted, and of which peak, in two lines."""
    counted = (
        "throughput: 6 FLOPs a weight and token, causal attention counted half, every layer at its own kept "
        "length; HFU adds the recomputed forward pass"
    )
    precision = _precision(config)
    if peak is None:
        return (
            f"{counted}\nno MFU: the {precision} peak of {device_name} is not known; --device-peak-tflops "
            "states it"
        )
    source = "as --device-peak-tflops states" if config.logging.device_peak_tflops else f"{precision}, dense"
    return f"{counted}\npeak of {device_name}: {peak:g} TFLOP/s, {source}"


def _precision(config: Config) -> str:
    """The precision of the run's products in a word."""
    return "bf16" if config.training.bf16 else "fp16" if config.training.fp16 else "fp32"
