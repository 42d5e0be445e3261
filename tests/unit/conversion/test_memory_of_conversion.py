"""Conversion needs the memory of a few tensors, not that of a model."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.support.huggingface_folders import GPT2, LLAMA, MODELS, write_model
from tests.unit.conversion.conftest import Tool

HIDDEN = 256
LARGEST = 4 * 4 * HIDDEN * HIDDEN
"""Bytes of our largest tensors in fp32: of an MLP that is four times as wide, or of four experts together."""
COPIES = 3
"""Of a tensor: put together of parts or experts, and dense as it is written; the one before is let go of when
the next is there. What is read is the file's own memory."""
LIBRARY = ctypes.CDLL(None)
PLACES = ("megatron.conversion.", "megatron.checkpoint.")


class Given(ctypes.Structure):
    """What glibc tells of its memory, as ten sizes."""

    _fields_ = [("sizes", ctypes.c_size_t * 10)]


def held() -> int:
    """Bytes that are given out, of whatever size; a file that is mapped is none of them."""
    sizes = LIBRARY.mallinfo2().sizes
    return int(sizes[4] + sizes[7])  # hblkhd, the large ones, and uordblks


def most_held(work: Callable[[], None]) -> int:
    """Bytes that are held at most while something is done, beside those before: looked at behind every
    function in C that conversion and the files of checkpoints call, so that no tensor is missed."""
    LIBRARY.mallinfo2.restype = Given
    start, peak = held(), [0]

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "c_return" and str(frame.f_globals["__name__"]).startswith(PLACES):
            peak[0] = max(peak[0], held() - start)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(before)
    return peak[0]


def settings(name: str, hidden: int) -> dict[str, Any]:
    if name == "gpt2":
        return GPT2 | {"n_embd": hidden, "n_layer": 8}
    wide = {"hidden_size": hidden, "intermediate_size": hidden, "num_local_experts": 4}
    return LLAMA | wide | {"num_hidden_layers": 6}


@pytest.mark.skipif(not hasattr(LIBRARY, "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_memory_is_that_of_a_few_tensors(
    name: str, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There and back, for one rank and for two of tensors and two of layers, of models that are 20 times as
    large as their largest tensor."""
    for title, hidden in (("small", 32), ("large", HIDDEN)):
        monkeypatch.setitem(MODELS, title, (MODELS[name][0], settings(name, hidden)))
        write_model(title, tmp_path / title)

    def convert(title: str, tensor: int, pipeline: int) -> None:
        ours, again = (tmp_path / f"{title}_{end}_{tensor}" for end in ("ours", "again"))
        sizes = ["--target-tensor-parallel-size", tensor, "--target-pipeline-parallel-size", pipeline]
        tool("hf", "megatron", tmp_path / title, ours, "--no-verify", *sizes)
        tool("megatron", "hf", ours, again, "--no-verify")

    convert("small", 1, 1)  # which imports what is needed
    peaks = [most_held(lambda layout=layout: convert("large", *layout)) for layout in [(1, 1), (2, 2)]]
    assert (tmp_path / "large" / "model.safetensors").stat().st_size > 20 * LARGEST
    assert all(LARGEST < peak < COPIES * LARGEST for peak in peaks), peaks
