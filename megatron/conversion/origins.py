"""Where a tensor of ours lies in the tensors of another program, and both ways between them."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Origin(NamedTuple):
    """A tensor of ours in tensors of theirs: one, or with `stacked` one for every expert, which are joined
    along a new second dimension. `transposed`: theirs are [inputs, outputs]. Their rows are read as [groups,
    of, rest], of which ours are [start, stop) of the second. `shapes`: theirs and ours, where these alone
    differ."""

    names: tuple[str, ...]
    transposed: bool = False
    stacked: bool = False
    groups: int = 1
    of: int = 1
    start: int = 0
    stop: int = 1
    shapes: tuple[Shape, Shape] | None = None

    @property
    def name(self) -> str:
        """The first of their tensors."""
        return self.names[0]


class Piece(NamedTuple):
    """What one tensor of theirs has of one of ours: the whole, or where ours is stacked this place of it."""

    mine: str
    place: int | None
    origin: Origin


def origin(name: str, **how: int) -> Origin:
    """The origin in a single tensor of theirs."""
    return Origin((name,), **how)  # type: ignore[arg-type]


def reshaped(name: str, theirs: Shape, mine: Shape) -> Origin:
    """The origin in a tensor of the same numbers in another shape."""
    return Origin((name,), shapes=(theirs, mine))


def take(found: Origin, read: Callable[[str], Tensor]) -> Tensor:
    """Our tensor; `read` gives one of theirs."""
    parts = [_cut(read(name), found) for name in found.names]
    return torch.stack(parts, 1) if found.stacked else parts[0]


def _cut(theirs: Tensor, found: Origin) -> Tensor:
    if found.shapes is not None:
        return theirs.reshape(found.shapes[1])
    whole = theirs.T if found.transposed else theirs
    if found.of == 1:
        return whole
    rows = whole.unflatten(0, (found.groups, found.of, -1))[:, found.start : found.stop]
    return rows.flatten(0, 2)


def taken_shape(found: Origin, shape: Shape) -> Shape | None:
    """The shape of our tensor where theirs have this one; None where they cannot be cut so."""
    if found.shapes is not None:
        return found.shapes[1] if shape == found.shapes[0] else None
    rows, *rest = reversed(shape) if found.transposed else shape
    if rows % (found.groups * found.of):
        return None
    rows = rows // found.of * (found.stop - found.start)
    return (rows, len(found.names), *rest) if found.stacked else (rows, *rest)


def pieces_of(origins: Mapping[str, Origin]) -> dict[str, list[Piece]]:
    """Their tensors by name, and what of ours each is made of."""
    pieces: dict[str, list[Piece]] = {}
    for mine, found in origins.items():
        for place, name in enumerate(found.names):
            pieces.setdefault(name, []).append(Piece(mine, place if found.stacked else None, found))
    return pieces


def put_shape(pieces: Iterable[Piece], shapes: Mapping[str, Shape]) -> Shape:
    """The shape of a tensor of theirs; ValueError where parts of it are missing."""
    rows, whole, found = 0, 0, None
    rest: Shape = ()
    for piece in pieces:
        found, shape = piece.origin, shapes[piece.mine]
        if found.shapes is not None:
            return found.shapes[0]
        rest = shape[2:] if found.stacked else shape[1:]
        rows += shape[0]
        share = found.stop - found.start
        if shape[0] % (share * found.groups) or rows > shape[0] // share * found.of:
            raise ValueError(f"{piece.mine} of the shape {list(shape)} is no part of {found.name}")
        whole = shape[0] // share * found.of
    if found is None or rows != whole:
        raise ValueError("a tensor is made of nothing, or of a part of it alone")
    return (*rest, rows) if found.transposed else (rows, *rest)


def put(pieces: Iterable[Piece], shape: Shape, read: Callable[[str], Tensor]) -> Tensor:
    """A tensor of theirs of this shape; `read` gives one of ours."""
    theirs = None
    for piece in pieces:
        mine, found = read(piece.mine), piece.origin
        if found.shapes is not None:
            return mine.reshape(found.shapes[0])
        mine = mine if piece.place is None else mine[:, piece.place]
        if found.of == 1:
            return mine.T if found.transposed else mine
        if theirs is None:
            theirs = mine.new_empty(tuple(reversed(shape)) if found.transposed else shape)
        rows = theirs.view(found.groups, found.of, -1, *theirs.shape[1:])
        rows[:, found.start : found.stop] = mine.view_as(rows[:, found.start : found.stop])
    assert theirs is not None and theirs.numel() == math.prod(shape)
    return theirs.T if piece.origin.transposed else theirs
