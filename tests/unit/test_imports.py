"""Imports point one way, in the order that CONTRIBUTING.md states; no file lies at the top of megatron/."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEGATRON = ROOT / "megatron"
FILES = sorted(MEGATRON.rglob("*.py"))
STATED = re.search(r"`(base <- [^`]*)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")).group(1)
ORDER = STATED.replace("\n", " ").split(" <- ")[:-1]
NVIDIA = {"core", "training", "inference", "post_training", "rl", "elastification", "legacy"}
WITHOUT_DISTRIBUTED = ("data", "preprocess", "curriculum", "batches")


def imported(path: Path) -> set[str]:
    """Every module or name that a file imports, dotted, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_one_way() -> None:
    wrong = []
    for path in FILES:
        mine = ORDER.index(path.relative_to(MEGATRON).parts[0])
        for name in imported(path):
            first, *rest = name.split(".")
            if first in ("tools", "tests", "scripts") or first.startswith("pretrain_"):
                wrong.append(f"{path} imports {name}")
            if first == "megatron" and ORDER.index(rest[0]) > mine:
                wrong.append(f"{path} imports {name}, which comes after it")
    assert not wrong


def test_no_file_lies_at_the_top_and_every_room_has_its_place_in_the_order() -> None:
    assert not list(MEGATRON.glob("*.py"))
    assert {path.relative_to(MEGATRON).parts[0] for path in FILES} == set(ORDER)


def test_no_file_is_in_a_circle_of_imports() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    uses = {
        name: {
            module for module in names if any(one == module or one.startswith(module + ".") for one in found)
        }
        for name, path in names.items()
        for found in [imported(path)]
    }
    order = list(TopologicalSorter(uses).static_order())  # raises CycleError
    assert sorted(order) == sorted(names)


def test_what_reads_and_draws_does_not_know_torch_distributed() -> None:
    for room in WITHOUT_DISTRIBUTED:
        for path in (MEGATRON / room).rglob("*.py"):
            assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_other_megatrons_fit_beside() -> None:
    """NVIDIA packs these folders with an __init__.py, and a regular package hides a folder of the same name
    that has none."""
    assert not list(MEGATRON.rglob("__init__.py"))
    assert not NVIDIA & {path.relative_to(MEGATRON).parts[0] for path in FILES}


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("megatron.model.gpt", ("numba", "megatron.curriculum", "megatron.batches", "megatron.data")),
        ("megatron.train.pretrain", ("megatron.report", "matplotlib", "megatron.preprocess")),
        ("megatron.schedule.plan", ("torch", "numba")),
        ("tools.preprocess_data", ("torch", "numba", "megatron.curriculum")),
    ],
)
def test_an_import_brings_only_what_it_needs(module: str, strangers: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = loaded.stdout.split()
    assert not [name for name in names for stranger in strangers if f"{name}.".startswith(f"{stranger}.")]
