"""How a sequence is shared among ranks, and how tokens move when some of them are dropped.

Over the context axis a sequence of T tokens is cut into 2·ranks equal chunks; rank r has chunk r and chunk
2·ranks-1-r, so that causal attention costs every rank the same. Where the tensor axis shares the tokens
too, each of its ranks has a contiguous part of that. A sequence of R kept tokens is shared by the same rule,
so some of them are computed by another rank than holds them: they are exchanged.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from megatron.parallel.collectives import exchange
from megatron.parallel.mesh import ALONE, Axis, Mesh, sum_over


class Slices(NamedTuple):
    """A rank's part of every sequence: along the context axis, along the tensor axis where that shares
    tokens, and along both as one, whose ranks ascend along `tokens` first. `way`: how attention joins the
    parts of the context axis: it gathers keys and values (allgather), passes them round (p2p), or changes
    parts of the sequence for heads (a2a)."""

    context: Axis = ALONE
    tokens: Axis = ALONE
    both: Axis = ALONE
    way: str = "allgather"

    def seen(self, length: int, device: torch.device | None = None) -> Tensor:
        """The places whose queries this rank computes, of a sequence of `length`, int64."""
        ranks, rank = self.context.size, self.context.rank
        places = torch.arange(length, device=device)
        if ranks == 1:
            return places
        chunks = places.view(2 * ranks, -1)
        return torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]])

    def held(self, length: int, device: torch.device | None = None) -> Tensor:
        """The places whose hidden states this rank holds between matrices."""
        return self.seen(length, device).view(self.tokens.size, -1)[self.tokens.rank]

    def queries(self, length: int) -> list[tuple[int, int]]:
        """First place and count of every contiguous run of queries that attend here to gathered keys."""
        ranks, rank = self.context.size, self.context.rank
        if ranks == 1 or self.way == "a2a":
            return [(0, length)]
        chunk = length // (2 * ranks)
        return [(rank * chunk, chunk), ((2 * ranks - 1 - rank) * chunk, chunk)] if self.way != "p2p" else []


WHOLE = Slices()


def slices_of(mesh: Mesh) -> Slices:
    """How a mesh shares a sequence."""
    both = mesh.axis("context", "tensor") if mesh.sequence_parallel else mesh.context
    return Slices(mesh.context, mesh.tokens, both, mesh.context_way)


class Moves(NamedTuple):
    """How the tokens that a layer keeps come to the ranks that compute them. Indices count over the rows
    that a rank holds, row after row. `stay`, `leave`: kept tokens held here that this rank and others
    compute; `stay_to`, `come_to`: their and the comers' slots among the tokens computed here; `send`,
    `receive`: how many go to and come from every rank."""

    stay: Tensor
    stay_to: Tensor
    leave: Tensor
    come_to: Tensor
    send: list[int]
    receive: list[int]
    kept_length: int


def plan_moves(kept_BR: np.ndarray, length: int, slices: Slices) -> Moves:
    """The moves of rows of `length` of which the ascending places `kept_BR` are kept."""
    rows, kept = kept_BR.shape
    mine, ranks = slices.both.rank, slices.both.size
    held_by, slot = _owners(length, slices)
    computed_by, kept_slot = _owners(kept, slices)
    first = np.arange(rows)[:, None]
    before, after = held_by[kept_BR], np.broadcast_to(computed_by, (rows, kept))
    source = first * (length // ranks) + slot[kept_BR]
    target = first * (kept // ranks) + kept_slot
    stays, leaves, comes = (
        (before == mine) & (after == mine),
        (before == mine) & (after != mine),
        (before != mine) & (after == mine),
    )
    by_receiver = np.argsort(after[leaves], kind="stable")
    by_sender = np.argsort(before[comes], kind="stable")
    return Moves(
        torch.from_numpy(source[stays]),
        torch.from_numpy(target[stays]),
        torch.from_numpy(source[leaves][by_receiver]),
        torch.from_numpy(target[comes][by_sender]),
        np.bincount(after[leaves], minlength=ranks).tolist(),
        np.bincount(before[comes], minlength=ranks).tolist(),
        kept // ranks,
    )


def _owners(length: int, slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """The rank that holds every place of a sequence, and its slot there."""
    owner, slot = np.empty(length, np.int64), np.empty(length, np.int64)
    for rank in range(slices.both.size):
        context, piece = divmod(rank, slices.tokens.size)
        one = Slices(Axis(context, slices.context.size), Axis(piece, slices.tokens.size))
        places = one.held(length).numpy()
        owner[places], slot[places] = rank, np.arange(len(places))
    return owner, slot


def take_kept(x_BTD: Tensor, moves: Moves, slices: Slices) -> Tensor:
    """The kept tokens that this rank computes, [B, R/ranks, D]."""
    flat = x_BTD.flatten(0, 1)
    came = exchange(flat[moves.leave], moves.send, moves.receive, slices.both)
    slots = torch.cat([moves.stay_to, moves.come_to])
    found = torch.empty_like(flat[: len(slots)]).index_copy(0, slots, torch.cat([flat[moves.stay], came]))
    return found.unflatten(0, (len(x_BTD), moves.kept_length))


def put_kept(x_BTD: Tensor, y_BRD: Tensor, moves: Moves, slices: Slices) -> Tensor:
    """`x_BTD` with the computed tokens in their places."""
    flat, computed = x_BTD.flatten(0, 1), y_BRD.flatten(0, 1)
    back = exchange(computed[moves.come_to], moves.receive, moves.send, slices.both)
    places = torch.cat([moves.stay, moves.leave])
    return flat.index_copy(0, places, torch.cat([computed[moves.stay_to], back])).view_as(x_BTD)


@torch.no_grad()
def whole_rows(part_BT: Tensor, length: int, slices: Slices) -> Tensor:
    """From what this rank has of its places [B, T held, ...] to that of all `length` places, without
    gradients."""
    if slices.both.group is None:
        return part_BT
    rows = part_BT.new_zeros((len(part_BT), length, *part_BT.shape[2:]))
    rows[:, slices.held(length, part_BT.device)] = part_BT
    return sum_over(rows, slices.both)


def in_order(x_BHTK: Tensor, ranks: int) -> Tensor:
    """Gathered chunks (rank 0's two, rank 1's two, ...) in the order of their places."""
    chunks = x_BHTK.unflatten(2, (2 * ranks, -1))
    return chunks[:, :, _order(ranks, x_BHTK.device)].flatten(2, 3)


def _order(ranks: int, device: torch.device) -> Tensor:
    """Where among the gathered chunks each chunk of a sequence lies."""
    first = torch.arange(ranks, device=device)
    return torch.cat([2 * first, 2 * first.flip(0) + 1])


def _as_gathered(x_BHTK: Tensor, ranks: int) -> Tensor:
    """The reverse of `in_order`."""
    chunks = x_BHTK.unflatten(2, (2 * ranks, -1))
    return chunks[:, :, _order(ranks, x_BHTK.device).argsort()].flatten(2, 3)


def heads_for_places(x_BHTK: Tensor, axis: Axis) -> Tensor:
    """[B, H, T/ranks, K] of all heads to [B, H/ranks, T, K] of all places."""
    ranks, equal = axis.size, [1] * axis.size
    parts = x_BHTK.unflatten(1, (ranks, -1)).movedim(1, 0).contiguous()
    return in_order(exchange(parts, equal, equal, axis).movedim(0, 2).flatten(2, 3), ranks)


def places_for_heads(x_BHTK: Tensor, axis: Axis) -> Tensor:
    """The way back of `heads_for_places`."""
    ranks, equal = axis.size, [1] * axis.size
    parts = _as_gathered(x_BHTK, ranks).unflatten(2, (ranks, -1)).movedim(2, 0).contiguous()
    return exchange(parts, equal, equal, axis).movedim(0, 1).flatten(1, 2)
