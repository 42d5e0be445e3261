"""How much memory a rank takes: on a GPU what PyTorch's allocator says, on a CPU the process's peak."""

import resource
import sys

import torch

MB = 1 << 20


def peak_resident_bytes() -> int:
    """The most memory that this process has held; the system counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_line(rank: int, iteration: int, device: torch.device) -> str:
    """Megatron's line of a rank's memory."""
    if device.type == "cuda":
        parts = {
            "allocated": torch.cuda.memory_allocated(device),
            "max allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "max reserved": torch.cuda.max_memory_reserved(device),
        }
    else:
        parts = {"peak resident": peak_resident_bytes()}
    shown = " | ".join(f"{name}: {size / MB:.2f}" for name, size in parts.items())
    return f"[Rank {rank}] (after {iteration} iterations) memory (MB) | {shown}"


def memory_scalars(device: torch.device) -> dict[str, float]:
    """A rank's memory under Megatron's names; on a CPU under one of its own."""
    if device.type != "cuda":
        return {"mem-max-resident-bytes": float(peak_resident_bytes())}
    stats = torch.cuda.memory_stats(device)
    return {
        "mem-reserved-bytes": float(stats["reserved_bytes.all.current"]),
        "mem-allocated-bytes": float(stats["allocated_bytes.all.current"]),
        "mem-max-allocated-bytes": float(stats["allocated_bytes.all.peak"]),
        "mem-allocated-count": float(stats["allocation.all.current"]),
    }
