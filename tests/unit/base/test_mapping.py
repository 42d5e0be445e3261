import os
import resource
from pathlib import Path

import numpy as np
import pytest

from megatron.base.mapping import map_array, map_file


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_a_mapped_file_is_not_open_and_goes_with_its_last_array(tmp_path: Path) -> None:
    path = tmp_path / "a"
    content = np.random.default_rng(0).integers(0, 256, 10_001).astype(np.uint8)
    path.write_bytes(content.tobytes())
    before = open_files()
    array = map_file(path)
    part = array[5001:].view(np.uint8)[::2]
    assert open_files() == before and mapped(path) and not array.flags.writeable
    assert np.array_equal(array, content)
    del array
    assert mapped(path) and np.array_equal(part, content[5001::2])
    del part
    assert not mapped(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert map_file(tmp_path / "a").shape == (0,)


def test_what_is_replaced_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    array = map_file(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"new!")
    os.replace(tmp_path / "b", tmp_path / "a")
    assert array.tobytes() == b"old" and map_file(tmp_path / "a").tobytes() == b"new!"


@pytest.mark.parametrize("shape", [(0,), (7,), (3, 4), ()])
@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_arrays_are_those_of_numpy(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    saved = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", saved)
    found = map_array(tmp_path / "a.npy")
    assert np.array_equal(found, saved) and found.dtype == dtype and found.shape == shape
    np.save(tmp_path / "b.npy", saved.T)
    assert np.array_equal(map_array(tmp_path / "b.npy"), saved.T)


def test_arrays_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100))
    os.truncate(tmp_path / "a.npy", 500)
    with pytest.raises(ValueError, match="cut short: 372 bytes of 800"):
        map_array(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        map_array(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="magic"):
        map_array(tmp_path / "c.npy")


def test_no_room_for_a_map_is_told_with_the_file(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 40)  # a hole of a TiB
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    try:
        with pytest.raises(OSError, match="Cannot allocate memory") as caught:
            map_file(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert caught.value.filename == str(tmp_path / "a")
