"""How much memory a rank will take, before it takes any, and whether that is free."""

import os
from pathlib import Path
from typing import NamedTuple

import torch

from megatron.base.errors import UserError
from megatron.parallel.layout import ONE, Layout
from megatron.schedule.plan import fullest_step
from megatron.tasks.prices import prices, share_of
from megatron.train.setup import Prepared

GIB = 2**30
BYTES_SAVED = 12
"""Of a parameter: weight and moments."""


class Memory(NamedTuple):
    """Bytes of a rank. `activations`: the most that is there beside the others, in the largest micro-batch
    of `rows` rows of `length` tokens; `copies`: what --async-save writes, where that is the same memory."""

    weights: int
    gradients: int
    moments: int
    activations: int
    rows: int
    length: int
    copies: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.copies


def estimate_memory(prepared: Prepared, device: torch.device, layout: Layout = ONE) -> Memory:
    """What the rank with most will hold at its fullest, in the step whose layers compute most."""
    task, config, step = prepared.task, prepared.config, fullest_step(prepared.plan)
    vocab_size = prepared.data.vocabulary.size
    share = share_of(task, config, prepared.efficiency, vocab_size, layout)
    found = prices(config, share, step, device.type)
    fullest = max(found, key=lambda one: one.total)
    rows = step.rows * config.training.micro_batch_size // step.batch_size
    copied = config.checkpoint.async_save and device.type == "cpu"
    holders = layout.data * layout.context  # of what several ranks hold, each saves a share
    copies = BYTES_SAVED * fullest.parameters // holders if copied else 0
    return Memory(*fullest.states, fullest.activations, rows, step.sequence_length, copies)


def check_memory(memory: Memory, device: torch.device, local_ranks: int, ignore: bool) -> str:
    """The estimate in a line; UserError where it does not fit into what is free, unless that is ignored."""
    free = free_memory(device)
    sharing = local_ranks if device.type == "cpu" else 1
    names = ("weights", "gradients", "moments", "activations", *(["copies"] if memory.copies else []))
    parts = {name: getattr(memory, name) for name in names}
    words = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    line = (
        f"memory a rank: about {memory.total / GIB:.2f} GiB ({words}) for {memory.rows} rows of "
        f"{memory.length} tokens"
    )
    if free is None:
        return line
    ranks = f" for {sharing} ranks" if sharing > 1 else ""
    line += f"; {free / GIB:.2f} GiB are free{ranks}"
    if memory.total * sharing > free and not ignore:
        raise UserError(
            f"{line}: it does not fit; lower --micro-batch-size or the length of rows, add "
            "--recompute-granularity full, take a smaller model, or try it with --ignore-memory-estimate"
        )
    return line


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take on a device; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_machine_free(), *map(_group_free, _control_groups())]
    return min((size for size in found if size is not None), default=None)


def _machine_free() -> int | None:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pages = os.sysconf_names.get("SC_PHYS_PAGES")
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages else None


def _control_groups() -> list[Path]:
    """Folders of the control groups that this process is in, as containers and schedulers limit it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            inside = Path(path.lstrip("/"))
            folders += [Path("/sys/fs/cgroup", controllers, part) for part in (inside, *inside.parents)]
    return folders


def _group_free(folder: Path) -> int | None:
    """What a control group's limit leaves; files that it has cached can go, those in use, too."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most != "max":
            cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
            return max(int(most) - now + cached, 0)
    return None
