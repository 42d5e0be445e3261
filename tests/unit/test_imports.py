"""Imports point one way, in the order that CONTRIBUTING.md states; a file at the top of megatron/ belongs to the foundation."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEGATRON = ROOT / "megatron"
FILES = sorted(MEGATRON.rglob("*.py"))
STATED = re.search(r"`(errors, .* <- [^`]*)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")).group(1).split(" <- ")
ORDER = ["foundation", *STATED[1:-1]]


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


def rank(name: str) -> int:
    """The place in the order of a file or folder of megatron/."""
    layer = "foundation" if (MEGATRON / f"{name}.py").is_file() else name
    assert layer in ORDER, f"megatron/{name} has no place in the order that CONTRIBUTING.md states"
    return ORDER.index(layer)


def test_imports_point_one_way() -> None:
    wrong = []
    for path in FILES:
        mine = rank(path.relative_to(MEGATRON).parts[0].removesuffix(".py"))
        for name in imported(path):
            first, *rest = name.split(".")
            if first in ("tools", "tests") or first.startswith("pretrain_"):
                wrong.append(f"{path} imports {name}")
            if first == "megatron" and rank(rest[0]) > mine:
                wrong.append(f"{path} imports {name}, which comes after it")
    assert len(FILES) >= 11 and len(ORDER) >= 7
    assert not wrong


def test_the_foundation_has_no_import_cycle() -> None:
    files = {path.stem: path for path in MEGATRON.glob("*.py")}
    uses = {stem: {name.split(".")[1] for name in imported(path) if name.startswith("megatron.")} for stem, path in files.items()}
    uses = {stem: {other for other in others if other in files} for stem, others in uses.items()}
    assert not [stem for stem, others in uses.items() if stem in others]
    order = list(TopologicalSorter(uses).static_order())  # raises CycleError
    assert order.index("errors") < order.index("pacing") < order.index("plan")


def test_data_does_not_know_torch_distributed() -> None:
    for path in (MEGATRON / "data").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith("torch.distributed")], path
        assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_no_init_file_so_that_other_megatrons_fit_beside() -> None:
    assert not list(MEGATRON.rglob("__init__.py"))
