"""Launch commands, read as the flags in them."""

import re

from megatron.base.errors import UserError

LAUNCHERS = re.compile(
    r"(.*/)?(torchrun|python[\d.]*|deepspeed|accelerate|srun|mpirun|mpiexec|pretrain_\w+\.py)"
)
"""How a launch command begins where other flags stand before it."""


def unwrap(words: list[str]) -> list[str]:
    """The flags of a launch command such as `torchrun --nproc-per-node 8 pretrain_gpt.py ...`, with the
    number of its data-parallel ranks; UserError where that is no number. Flags before the command count,
    too."""
    start = _start(words)
    scripts = [place for place, word in enumerate(words) if place >= start and word.endswith(".py")]
    if not scripts:
        return words
    launcher, flags = " ".join(words[start : scripts[0]]), [*words[:start], *words[scripts[0] + 1 :]]
    if any(word.split("=")[0] == "--data-parallel-size" for word in flags):
        return flags
    ranks = 1
    for name in ("--nproc[-_]per[-_]node", "--nnodes", "--num_gpus", "--num_nodes"):
        found = re.search(rf"({name})[= ](\S+)", launcher)
        if found and not found.group(2).isdigit():
            raise UserError(f"{found.group(1)} {found.group(2)}: is no number; give --data-parallel-size")
        ranks *= int(found.group(2)) if found else 1
    return [*flags, "--data-parallel-size", str(_replicas(ranks, flags))]


def _start(words: list[str]) -> int:
    """Where a launch command begins; behind all words where there is none."""
    if not words or not words[0].startswith("--"):
        return 0
    return next((place for place, word in enumerate(words) if LAUNCHERS.fullmatch(word)), len(words))


def ranks_a_node(words: list[str]) -> int | None:
    """Ranks of a machine, as a launch command has them; None where it does not say."""
    found = re.search(r"--(?:nproc[-_]per[-_]node|num_gpus)[= ](\d+)", " ".join(words))
    return int(found[1]) if found else None


def _replicas(ranks: int, flags: list[str]) -> int:
    """How many replicas of the model so many ranks make, at least one: training says where they are too
    few."""
    words, each = " ".join(flags), 1
    for name in ("tensor", "context", "pipeline"):
        found = re.findall(rf"--{name}[-_](?:model[-_])?parallel[-_]size[= ](\d+)", words)
        each *= max(int(found[-1]), 1) if found else 1
    return max(ranks // each, 1)
