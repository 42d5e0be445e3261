"""Pickles that are made to do harm: they grow, or change what later files are read with."""

from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.conversion.saved_by_torch import KNOWN, Call, Named, read_pickle

BEGIN, END = b"\x80\x02", b"."


def name(path: str) -> bytes:
    module, _, word = path.rpartition(".")
    return f"c{module}\n{word}\n".encode()


def read(path: Path, content: bytes) -> object:
    path.write_bytes(BEGIN + content + END)
    return read_pickle(path)


@pytest.mark.parametrize("kind", ["str", "int", "float", "bool", "unicode", "long"])
def test_numbers_and_texts_are_made_of_such_alone(kind: str, tmp_path: Path) -> None:
    """The text of a list of lists, each twice what is in it, would double with every ten bytes."""
    nested = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (level, level, level + 1) for level in range(4))
    assert read(tmp_path / "a", name(f"builtins.{kind}") + b"K\x01\x85R") == (
        "1" if kind in ("str", "unicode") else 1
    )
    with pytest.raises(UserError, match="is made of no number or text"):
        read(tmp_path / "b", nested + name(f"builtins.{kind}") + b"h\x04\x85R")


@pytest.mark.parametrize("state", [b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x01\x00\x00\x00aK\x01s\x86"])
@pytest.mark.parametrize("known", sorted(KNOWN))
def test_nothing_can_be_set_on_what_a_name_stands_for(known: str, state: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read(tmp_path / "a", name(known) + state + b"b")
    found = KNOWN[known]
    assert not hasattr(found.function if isinstance(found, Call) else found, "a")
    assert not hasattr(Named, "a")


def test_names_of_modules_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    for path in ("copy_reg._reconstructor", "copyreg._reconstructor", "__builtin__.eval"):
        with pytest.raises(UserError, match="which is neither a tensor nor a plain container"):
            read(tmp_path / "a", name(path))
