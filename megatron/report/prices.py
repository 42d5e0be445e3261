"""What a layout costs, as terminal tables: memory of the ranks of a pipeline, and bytes sent in a step."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from megatron.base.units import count_of, exact, short
from megatron.model.share import Batch, Share, model_parameters
from megatron.model.traffic import axis_ranks, wire_bytes
from megatron.parallel.simulate import PipelineCost
from megatron.report.cost import Cost, Machines, speed
from megatron.report.suggest import Suggestion, flags_of
from megatron.tasks.prices import RankPrice

GIB = 2**30


def memory_table(found: Sequence[RankPrice], batch: Batch) -> Table:
    """A row for every kind of rank of the pipeline, the fullest one marked."""
    title = f"Memory of a rank, GiB, in micro-batches of {batch.rows} rows of {exact(batch.length)} tokens"
    if batch.kept_length < batch.length:
        title += f", of which dropping layers keep {exact(batch.kept_length)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    names = [
        "stage",
        "layers",
        "parameters",
        "weights",
        "gradients",
        "moments",
        "held",
        "activations",
        "total",
    ]
    for name in names:
        table.add_column(name, justify="right")
    most = max(one.total for one in found)
    for ranks, one in _alike(found):
        parts = (*one.states, one.activations, one.total)
        weights, gradients, moments, activations, total = (f"{size / GIB:.2f}" for size in parts)
        mark = " fullest" if one.total == most and len(found) > 1 else ""
        states = (weights, gradients, moments)
        row = (
            ranks,
            str(one.layers),
            short(one.parameters),
            *states,
            str(one.held),
            activations,
            total + mark,
        )
        table.add_row(*row)
    return table


def _alike(found: Sequence[RankPrice]) -> list[tuple[str, RankPrice]]:
    """Neighbours of one price together."""
    rows: list[tuple[int, int, RankPrice]] = []
    for rank, one in enumerate(found):
        if rows and rows[-1][2] == one:
            rows[-1] = (rows[-1][0], rank, one)
        else:
            rows.append((rank, rank, one))
    return [(f"{first}-{last}" if last > first else str(first), one) for first, last, one in rows]


def traffic_table(share: Share, price: RankPrice, machines: Machines) -> Table:
    """Bytes of a step by axis and kind, of the rank with this price."""
    title = "Sent in a step by the fullest rank: handed to the library, and on the wire of a ring"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("axis", "ranks", "kind", "GB handed", "GB sent", "where"):
        table.add_column(name, justify="left" if name in ("axis", "kind", "where") else "right")
    for (axis, kind), size in sorted(price.traffic.items()):
        ranks = axis_ranks(share, axis)
        wire = wire_bytes(kind, size, ranks)
        where = "inside a node" if speed(share.layout, axis, machines) == machines.inside else "across nodes"
        table.add_row(axis, str(ranks), kind, f"{size / 1e9:.3f}", f"{wire / 1e9:.3f}", where)
    return table


def model_line(share: Share) -> str:
    """Parameters of the whole model, and of a mixture of experts how many compute a token."""
    total, active = model_parameters(share)
    some = f", {exact(active)} of them active for a token" if active < total else ""
    return f"model: {exact(total)} parameters{some}" + ("" if share.vocabulary else ", without vocabulary")


def step_lines(
    number: int,
    cost: Cost,
    pipeline: PipelineCost,
    hardware_flops: float,
    model_flops: float,
    devices: int,
    assumed: str,
) -> list[str]:
    """FLOPs, bubble and estimated time of the step of this number, whose layers compute most. `assumed`: of
    the devices, in words."""
    parts = ", ".join(
        f"{name} {getattr(cost, name) / cost.seconds:.0%}" for name in cost._fields if getattr(cost, name)
    )
    return [
        f"FLOPs of step {exact(number)}, whose layers compute most: {model_flops:.4g} of the model, "
        f"{hardware_flops:.4g} of the hardware; bubble of the pipeline: {pipeline.bubble:.1%}",
        f"estimated step: {cost.seconds:.3g} s on {count_of(devices, 'GPU')} ({parts}); {assumed}",
    ]


def suggestion_table(found: Sequence[Suggestion], memory: int) -> Table:
    """Layouts in their order, and why they have it."""
    title = f"Layouts that fit into {memory / GIB:.1f} GiB a device, the fastest first: seconds of a step"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    axes = {"tp": "tensor", "cp": "context", "dp": "data", "pp": "pipeline"}
    if any(one.layout.expert > 1 for one in found):
        axes |= {"ep": "expert", "etp": "expert_matrices"}
    for name in [
        "",
        *axes,
        "GiB",
        "step",
        "compute",
        "tensor",
        "context",
        "pipeline",
        "experts",
        "gradients",
        "bubble",
    ]:
        table.add_column(name, justify="right")
    for number, one in enumerate(found, 1):
        sizes = [getattr(one.layout, axis) for axis in axes.values()]
        times = [one.cost.seconds, *one.cost]
        texts = [f"{seconds:.2f}" if seconds else "-" for seconds in times]
        table.add_row(str(number), *map(str, sizes), f"{one.price.total / GIB:.1f}", *texts)
    return table


def suggestion_lines(found: Sequence[Suggestion]) -> list[str]:
    """The flags of layouts, numbered as in the table."""
    return [f"{number:>2}  {flags_of(one) or '(no flag)'}" for number, one in enumerate(found, 1)]


def miss_lines(found: Sequence[Suggestion], memory: int, helped: Sequence[str]) -> list[str]:
    """Where none fits: by how much the smallest misses, and what would help."""
    if not found:
        return [
            "no layout divides the heads, layers, lengths and batch of this run on so many devices; change "
            "their number or --global-batch-size"
        ]
    least = min(found, key=lambda one: one.price.total)
    states, price = least.price.states, least.price
    parts = {**states._asdict(), "activations": price.activations}
    words = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    over = (price.total - memory) / GIB
    return [
        f"none of {len(found)} layouts fits into {memory / GIB:.1f} GiB: the smallest takes "
        f"{price.total / GIB:.1f} GiB ({words}), {over:.1f} too many",
        f"it is {flags_of(least)}",
        f"what would help: {'; '.join(helped)}" if helped else "devices of more memory would help",
    ]
