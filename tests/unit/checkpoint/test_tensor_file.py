"""Files of tensors: byte for byte what the safetensors library writes, and their own checksum."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.checkpoint.tensor_file import PIECE, TYPES, write_tensors


def random_bytes(count: int, dtype: torch.dtype) -> Tensor:
    """Any bits, NaN and denormal numbers among them."""
    if dtype == torch.bool:
        return torch.randint(2, (count,)).bool()
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(256, (count * size,), dtype=torch.uint8).view(dtype)


def of_every_type() -> dict[str, Tensor]:
    torch.manual_seed(3)
    named = {f"{name.lower()}.weight": random_bytes(6, dtype).view(2, 3) for dtype, name in TYPES.items()}
    return named | {f"a.{name}": random_bytes(1, dtype)[0] for dtype, name in TYPES.items()}


SETS = {
    "none": {},
    "one of every type, and a scalar": of_every_type(),
    "names beyond ASCII": {"größe": torch.ones(3), 'with "quotes" \\ and\ttab': torch.zeros(1, 2)},
    "nothing in it": {"empty": torch.zeros(0, 4), "full": torch.ones(2)},
    "larger than a piece": {"large": torch.arange(PIECE // 4 + 17.0), "small": torch.ones(1)},
}


@pytest.mark.parametrize("name", SETS)
def test_bytes_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    tensors, ours, theirs = SETS[name], tmp_path / "ours", tmp_path / "theirs"
    size, digest = write_tensors(ours, tensors)
    save_file(tensors, theirs)
    content = ours.read_bytes()
    assert content == theirs.read_bytes()
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    found = load_file(ours)
    assert found.keys() == tensors.keys()
    for one, tensor in tensors.items():
        assert found[one].dtype == tensor.dtype and found[one].shape == tensor.shape


def test_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    """Also where they share memory, as rows of one buffer do."""
    whole = torch.arange(12.0).view(3, 4)
    write_tensors(tmp_path / "file", {"columns": whole[:, 1:3], "transposed": whole.T, "rows": whole[1:]})
    found = load_file(tmp_path / "file")
    assert torch.equal(found["columns"], whole[:, 1:3]) and torch.equal(found["transposed"], whole.T)
    assert torch.equal(found["rows"], whole[1:])


def test_a_type_that_the_format_has_not_is_named(tmp_path: Path) -> None:
    assert torch.int8 in TYPES and torch.int16 in TYPES  # which others write
    with pytest.raises(ValueError, match=r"b is of torch\.complex64, which a safetensors file"):
        write_tensors(tmp_path / "file", {"a": torch.ones(1), "b": torch.ones(1, dtype=torch.complex64)})
    assert not (tmp_path / "file").exists()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"a": torch.ones(1)})
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "file", {"a": torch.zeros(1)})
