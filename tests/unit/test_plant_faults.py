"""scripts/plant_faults.py: which faults there are, and that one is planted and
noticed or not, and leaves nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from scripts.plant_faults import drawn
from tests.support.faults import ROOT, beside, faults_of

SCRIPT = [sys.executable, str(ROOT / "scripts" / "plant_faults.py")]


def faults(source: str) -> set[str]:
    """The source with each of its faults."""
    text = source.encode()
    return {fault.planted(text).decode() for fault in faults_of("a.py", text)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["(a <= b)"]),
        ("a < b == c", ["(a <= b == c)", "(a < b != c)"]),
        ("a + b", ["(a - b)"]),
        ("a %= b", ["a //= b"]),
        ("x = 7", ["x = (8)"]),
        ("x = 0.5", ["x = (1.5)"]),
        ("x = True", ["x = (False)"]),
        ("a and b", ["(a or b)"]),
        ("not a", ["(a)"]),
        ("-a", ["(a)"]),
        ("x = a if b else c", ["x = (c if b else a)"]),
        ("x = min(a)", ["x = (max(a))"]),
        ("x = np.maximum(a)", ["x = (np.minimum(a))"]),
        ("x = f(a, b)", ["x = (f(b, a))"]),
        ("x = f(a, k=b)", ["x = (f(a))"]),
        ("x = f(a, a)", []),
        ("x = min(a, b)", ["x = (max(a, b))"]),
        ("x = a[b:c]", ["x = a[:c]", "x = a[b:]"]),
        ("def f():\n    return a", ["def f():\n    return None"]),
        ("if a:\n    b()", ["pass", "if a:\n    pass"]),
        ("raise UserError(1 + 2)", ["pass"]),
        ("größe = 1 < b", ["größe = (1 <= b)", "größe = (2) < b"]),
    ],
)
def test_the_faults_of_a_source(source: str, expected: list[str]) -> None:
    assert faults(source) == set(expected)


def test_what_is_only_told_has_no_faults() -> None:
    assert not faults('"""1 < 2"""\nfrom a import b\nx: list[1] = f"{1 + 2}"\ny = flag(3, at_least=4)')


def test_faults_are_drawn_by_the_seed_and_found_by_their_number() -> None:
    name = "megatron/base/random.py"
    first = list(drawn(name, 4, 1))
    assert len(set(first)) == 4 and first == list(drawn(name, 4, 1)) != list(drawn(name, 4, 2))
    assert [one for fault in first for one in drawn(f"{name}:{fault.number}", 1, 3)] == first


def test_the_tests_of_a_file_begin_with_its_own() -> None:
    assert beside("megatron/data/corpora.py") == ("tests/unit/data/test_corpora.py", "tests/unit/data")
    assert beside("megatron/preprocess/records.py")[0] == "tests/unit/preprocess/test_documents.py"
    assert "tests/golden/test_golden.py" in beside("megatron/optim/optimizer.py")


def test_a_fault_is_noticed_or_not_and_the_tree_stays(tmp_path: Path) -> None:
    units = ROOT / "megatron/base/units.py"
    source = units.read_bytes()
    number = {fault.new: fault.number for fault in faults_of("", source)}
    asked = [f"{units.relative_to(ROOT)}:{number[new]}" for new in ("(seconds <= 120)", "(seconds <= 7200)")]
    test = tmp_path / "test_duration.py"
    test.write_text(
        "from megatron.base.units import duration\n\n"
        "def test_two_hours():\n    assert duration(7200) == '2 h 00 min'\n"
    )
    done = subprocess.run(
        [*SCRIPT, "--files", *asked, "--tests", str(test)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{asked[0]} line ")
    assert lines[0].endswith(": seconds < 120 → (seconds <= 120)  [NOT noticed]")
    assert lines[1].startswith(f"{asked[1]} line ") and "[test_two_hours failed after " in lines[1]
    assert lines[-2].split()[1:-1] == ["all", "│", "2", "│", "1", "│", "50%"]
    assert units.read_bytes() == source


def test_tests_that_fail_without_a_fault_judge_nothing(tmp_path: Path) -> None:
    test = tmp_path / "test_wrong.py"
    test.write_text("def test_wrong():\n    assert False\n")
    words = ["--files", "megatron/base/keys.py", "--tests", str(test)]
    done = subprocess.run([*SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: {test}: test_wrong failed after ")
    assert "without a fault" in done.stderr


@pytest.mark.parametrize("name", ["megatron/no_file.py", "/etc", "megatron/base/keys.py:9999"])
def test_a_name_without_faults_is_told(name: str) -> None:
    with pytest.raises(UserError, match=f"--files {name}: "):
        list(drawn(name, 1, 1))
