"""Small faults that can be planted in a source, by what a slip of the hand would have written instead, and
the tests that should notice them.

Messages, docstrings, type hints and progress are left alone."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "megatron/base/keys.py": ("tests/unit/base/test_random.py", "tests/unit/curriculum/test_draws.py"),
    "megatron/base/random.py": ("tests/unit/curriculum/test_draws.py",),
    "megatron/data/index_builder.py": ("tests/unit/data/test_indexed_dataset.py",),
    "megatron/preprocess/document_shuffle.py": ("tests/unit/preprocess/test_preprocess.py",),
    "megatron/preprocess/records.py": ("tests/unit/preprocess/test_documents.py",),
    "megatron/curriculum/analysis.py": ("tests/unit/curriculum/test_difficulty.py",),
    "megatron/curriculum/analyze_dataset.py": ("tests/unit/preprocess/test_with_difficulty.py",),
    "megatron/schedule/data_efficiency_flags.py": ("tests/unit/schedule/test_data_efficiency.py",),
    "megatron/schedule/data_efficiency_rules.py": ("tests/unit/schedule/test_data_efficiency.py",),
    "megatron/schedule/deepspeed_json.py": ("tests/unit/schedule/test_data_efficiency.py",),
    "megatron/schedule/plan_summary.py": ("tests/unit/report/test_plan_run.py",),
    "megatron/config/upcycling.py": ("tests/unit/checkpoint/test_upcycle.py",),
    "megatron/checkpoint/contents.py": ("tests/end_to_end/test_inspect_checkpoint.py",),
    "megatron/train/saving.py": ("tests/distributed/test_async_save.py",),
    "megatron/evaluation": ("tests/unit/train/test_step.py",),
    "megatron/model": ("tests/unit/train/test_step.py", "tests/golden/test_golden.py"),
    "megatron/optim": ("tests/unit/train", "tests/golden/test_golden.py"),
    "megatron/parallel": ("tests/unit/train", "tests/golden/test_golden.py", "tests/distributed"),
    "megatron/checkpoint": ("tests/unit/train/test_resume.py",),
    "megatron/tasks": ("tests/unit/train", "tests/golden/test_golden.py"),
    "megatron/train": ("tests/golden/test_golden.py", "tests/end_to_end/test_resume.py"),
}
"""By what a path begins with: tests under other names than the file's, and outside the folder of its room."""
OPPOSITE = (
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.FloorDiv),
    (ast.LShift, ast.RShift),
    (ast.BitAnd, ast.BitOr),
    (ast.And, ast.Or),
)
OPERATORS = {old: new for pair in OPPOSITE for old, new in (pair, pair[::-1])}
OPERATORS |= {ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitXor: ast.BitOr}
SIDES = (("min", "max"), ("any", "all"), ("floor", "ceil"), ("minimum", "maximum"), ("left", "right"))
NAMES = {old: new for pair in SIDES for old, new in (pair, pair[::-1])}
TOLD = ("UserError", "print", "show", "progress", "advance", "flag")
"""Calls whose arguments a person reads."""
NOT_COMPUTED = ("annotation", "returns", "decorator_list", "exc", "type_params")


class Fault(NamedTuple):
    """The bytes of a file from `begin` to `end`, and what shall stand there instead."""

    file: str
    number: int
    line: int
    begin: int
    end: int
    old: str
    new: str

    def planted(self, source: bytes) -> bytes:
        """The source with the fault."""
        return source[: self.begin] + self.new.encode() + source[self.end :]


def faults_of(file: str, source: bytes) -> list[Fault]:
    """Every fault that can be planted in a file, numbered as they stand in it."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Fault] = []
    for node in _computed(ast.parse(source)):
        for other in _slips(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            old, new = " ".join(source[begin:end].decode().split()), ast.unparse(other)
            new = f"({new})" if isinstance(other, ast.expr) and not isinstance(other, ast.Slice) else new
            found.append(Fault(file, len(found), node.lineno, begin, end, old, new))
    return found


def beside(file: str) -> tuple[str, ...]:
    """The tests of a file, the nearest first: its own, those under other names, those of its room."""
    room = f"tests/unit/{Path(file).parent.name}"
    others = [test for start, tests in ELSEWHERE.items() if file.startswith(start) for test in tests]
    near = [f"{room}/test_{Path(file).name}", *others, room]
    return tuple(dict.fromkeys(test for test in near if (ROOT / test).exists()))


def _computed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it that a program computes with."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Call) and _called(node) in TOLD):
        return
    yield node
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in NOT_COMPUTED:
                yield from _computed(child)


def _slips(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand instead of a node by mistake."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                yield _with(node, ops=[*ops[:place], OPERATORS[type(op)](), *ops[place + 1 :]])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)
        case ast.Slice():
            yield from (_with(node, **{side: None}) for side in ("lower", "upper") if getattr(node, side))
        case ast.Call():
            yield from _other_calls(node)
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Break() | ast.Continue() | ast.If(orelse=[]):
            yield ast.Pass()
        case ast.Expr(value=ast.Call() as call) if _called(call) not in TOLD:
            yield ast.Pass()


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Another function, the first two arguments swapped, an argument by name left out."""
    first, *rest = call.args or [None]
    name = _called(call)
    if name in NAMES and isinstance(call.func, ast.Name):
        yield _with(call, func=ast.Name(NAMES[name]))
    elif name in NAMES and isinstance(call.func, ast.Attribute):
        yield _with(call, func=_with(call.func, attr=NAMES[name]))
    if rest and name not in NAMES and ast.dump(first) != ast.dump(rest[0]):
        yield _with(call, args=[rest[0], first, *rest[1:]])
    for place in range(len(call.keywords)):
        yield _with(call, keywords=call.keywords[:place] + call.keywords[place + 1 :])


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).split(".")[-1]


def _with(node: ast.AST, **fields: object) -> ast.AST:
    """The node with other fields."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
