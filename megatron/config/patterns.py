"""Which layers are of a kind, as Megatron writes it: a number, or a pattern of 0 and 1."""

import ast

from megatron.base.errors import UserError


def layer_pattern(text: str, num_layers: int, flag: str, example: str) -> int | list[int]:
    """A number of at least 1, or 0 and 1 for layers. UserError where the text of `flag` is neither."""
    try:
        value = _value(ast.parse(text.strip(" '\""), mode="eval").body, num_layers)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = None
    if isinstance(value, int) and value > 0:
        return value
    if not isinstance(value, list) or set(value) - {0, 1}:
        raise UserError(
            f"{flag} {text!r}: write a number of at least 1, or a pattern of 0 and 1, such as {example}"
        )
    return value


def _value(node: ast.expr, most: int) -> int | list[int]:
    """A number, or a list made of lists by + and *; ValueError for anything else, and for endless lists."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.List):
        parts = [_value(one, most) for one in node.elts]
        numbers = [one for one in parts if isinstance(one, int)]
        if len(numbers) == len(parts):
            return numbers
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _value(node.left, most), _value(node.right, most)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(node.op, ast.Mult) and isinstance(left, list) != isinstance(right, list):
            items, times = (left, right) if isinstance(left, list) else (right, left)
            if isinstance(items, list) and isinstance(times, int) and len(items) * times <= 100 * most:
                return items * times
    raise ValueError(ast.unparse(node))
