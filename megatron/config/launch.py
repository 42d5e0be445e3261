"""Launch commands, read as the flags in them."""

import math
import re

from megatron.base.errors import UserError
from megatron.config.arguments import understand
from megatron.config.config import Config
from megatron.config.other_megatrons import FOREIGN_FLAGS

LAUNCHERS = re.compile(
    r"(.*/)?(torchrun|python[\d.]*|deepspeed|accelerate|srun|mpirun|mpiexec|pretrain_\w+\.py)"
)
"""How a launch command begins where other flags stand before it."""

SCRIPT = re.compile(r"(?:.*[/.])?pretrain_(\w+?)(?:\.py)?")
"""A script of training, or its module, and the name of its task."""

EACH = ("--nproc[-_]per[-_]node", "--nnodes", "--num_gpus", "--num_nodes")
"""Flags of torchrun and DeepSpeed, whose numbers are multiplied."""
TOTAL = "--num[-_]processes"
"""Of accelerate: the ranks of all machines."""


def unwrap(words: list[str]) -> list[str]:
    """The flags of a launch command such as `torchrun --nproc-per-node 8 pretrain_gpt.py ...`, with the
    number of its data-parallel ranks; UserError where that is no number. Flags before the command count,
    too."""
    parts = _parts(words)
    if parts is None:
        return words
    launcher, flags = parts
    if _says_replicas(flags):
        return flags
    return [*flags, "--data-parallel-size", str(max((_started(launcher) or 1) // _ranks_of_model(flags), 1))]


def rank_notes(words: list[str]) -> list[str]:
    """A warning where a launch command starts ranks that training refuses, so that a plan of it is one of
    other ranks. A command without a launcher, or with --data-parallel-size, asks for no number."""
    parts = _parts(words)
    started = _started(parts[0]) if parts and not _says_replicas(parts[1]) else None
    each = _ranks_of_model(parts[1]) if parts else 1
    if not started or started % each == 0:
        return []
    return [
        f"the command starts {started} ranks, which is no multiple of the {each} that share the model, and "
        f"training refuses that; this is the plan of {max(started // each, 1) * each} ranks"
    ]


def _parts(words: list[str]) -> tuple[str, list[str]] | None:
    """What stands before the script of a launch command, and all flags of the run; None where there is no
    script."""
    script = _script(words)
    if script is None:
        return None
    start = _start(words)
    return " ".join(words[start:script]), [*words[:start], *words[script + 1 :]]


def _script(words: list[str]) -> int | None:
    """Where the script of a launch command stands, or the module that is one, as in `-m pretrain_gpt`."""
    before = ["", *words]
    for place in range(_start(words), len(words)):
        is_module = before[place] in ("-m", "--module") and SCRIPT.fullmatch(words[place])
        if is_module or words[place].endswith(".py"):
            return place
    return None


def task_named(words: list[str]) -> str | None:
    """The task whose script a launch command starts, such as gpt of pretrain_gpt.py; None where it is another
    script, or none."""
    script = _script(words)
    found = SCRIPT.fullmatch(words[script]) if script is not None else None
    return found[1] if found else None


def _says_replicas(flags: list[str]) -> bool:
    return any(word.split("=")[0] == "--data-parallel-size" for word in flags)


def _started(launcher: str) -> int | None:
    """How many ranks a launcher starts; None where it does not say. UserError where it says so otherwise than
    by a number."""
    if hosts := _included(launcher):
        return sum(hosts)
    if chosen := _chosen(launcher):
        raise UserError(
            f"{chosen[1]} {chosen[2]}: all GPUs of a host are not counted here; name them, as localhost:0,1, "
            "or give --data-parallel-size"
        )
    if total := _number(TOTAL, launcher):
        return total
    ranks = None
    for name in EACH:
        found = _number(name, launcher)
        ranks = (ranks or 1) * found if found else ranks
    return ranks


def _chosen(launcher: str) -> re.Match[str] | None:
    """DeepSpeed's flag for the hosts and GPUs of a run, and its value."""
    return re.search(r"\s(--include|-i)[= ](\S+)", launcher) if "deepspeed" in launcher else None


def _included(launcher: str) -> list[int]:
    """The GPUs of every host that DeepSpeed is told to take, as by --include HOST:0,1@HOST:0,1; empty where
    it is not told, or takes all GPUs of a host."""
    chosen = _chosen(launcher)
    hosts = [host.partition(":")[2] for host in chosen[2].strip("'\"").split("@")] if chosen else []
    counted = all(re.fullmatch(r"\d+(,\d+)*", gpus) for gpus in hosts)
    return [len(set(gpus.split(","))) for gpus in hosts] if counted else []


def _number(name: str, launcher: str) -> int | None:
    """The number behind a flag, whose name is a pattern."""
    found = re.search(rf"(?:^|\s)({name})[= ](\S+)", launcher)
    if found and not found[2].isdigit():
        counted = "the GPUs of this machine are not those of the run; " if found[2] in ("gpu", "auto") else ""
        raise UserError(
            f"{found[1]} {found[2]}: is no number; {counted}write the number, or give --data-parallel-size"
        )
    return int(found[2]) if found else None


def _start(words: list[str]) -> int:
    """Where a launch command begins; behind all words where there is none."""
    if not words or not words[0].startswith("--"):
        return 0
    return next((place for place, word in enumerate(words) if LAUNCHERS.fullmatch(word)), len(words))


def ranks_a_node(words: list[str]) -> int | None:
    """Ranks of a machine, as a launch command has them; None where it does not say."""
    parts = _parts(words)
    if parts and (hosts := _included(parts[0])):
        return max(hosts)
    found = re.search(r"--(?:nproc[-_]per[-_]node|num_gpus)[= ](\d+)", " ".join(words))
    return int(found[1]) if found else None


def _ranks_of_model(flags: list[str]) -> int:
    """How many ranks share one replica of the model."""
    given = {word.split("=")[0] for word in flags}
    if given & {"--config", "--yaml-cfg"} and not given & {"-h", "--help"}:
        return _ranks_in_file(flags)
    words, each = " ".join(flags), 1
    for name in ("tensor", "context", "pipeline"):
        found = re.findall(rf"--{name}[-_](?:model[-_])?parallel[-_]size[= ](\d+)", words)
        each *= max(int(found[-1]), 1) if found else 1
    return each


def _ranks_in_file(flags: list[str]) -> int:
    """The same where a YAML file may say it. What is wrong with the flags is told where they are read."""
    try:
        values, _ = understand(Config, flags, foreign=FOREIGN_FLAGS)
    except UserError:
        return 1
    names = ("tensor_model_parallel_size", "context_parallel_size", "pipeline_model_parallel_size")
    return math.prod(values.get(name) or 1 for name in names)
