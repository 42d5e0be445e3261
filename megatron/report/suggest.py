"""Layouts of a run on so many devices of so much memory: those that fit, the fastest first, by what they
would cost."""

import dataclasses
import inspect
import math
import re
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config.arguments import ask
from megatron.config.config import RULES, Config, Rule
from megatron.config.flags import spelling
from megatron.config.parallel import NOTHING, OPTIMIZER, WEIGHTS, ParallelConfig
from megatron.model.architecture import Architecture
from megatron.model.attention import explicit_in_training
from megatron.parallel.layout import Layout, layout_of
from megatron.report.cost import Cost, Machines, step_cost
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan, Step
from megatron.schedule.plan_layout import layout_problems
from megatron.tasks.prices import RankPrice, pipeline_of, prices, share_of, step_flops
from megatron.tasks.task import Task

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
CONTEXTS, RUNS = (1, 2, 4, 8), (2, 4)
"""Tried ranks that share a sequence, and runs of layers a rank."""
LAYOUT_RULES = [
    rule for rule in RULES if {"parallel", "data_parallel_size"} & set(inspect.signature(rule).parameters)
]
"""All that a layout may break, whichever group it is of."""


class Suggestion(NamedTuple):
    """A layout that all rules allow: its flags, its ranks, the price of its fullest rank, and its cost."""

    flags: dict[str, Any]
    layout: Layout
    price: RankPrice
    cost: Cost
    bubble: float


def read_machines(words: tuple[str, ...]) -> tuple[int, int]:
    """Devices, and bytes of memory of each, of the words of --suggest-layout."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", words[1]) if len(words) == 2 else None
    if not found or not words[0].isdecimal() or int(words[0]) < 1 or found[2].upper() not in UNITS:
        raise UserError(
            f"--suggest-layout {' '.join(words)}: give devices and the memory of each, such as 64 80GiB"
        )
    return int(words[0]), int(float(found[1]) * UNITS[found[2].upper()])


def suggestions(
    task: Task,
    config: Config,
    efficiency: DataEfficiency,
    vocab_size: int,
    plan: Plan,
    step: Step,
    devices: int,
    machines: Machines,
    device: str,
) -> list[Suggestion]:
    """All layouts on so many devices that the rules and the plan allow, the fastest first; of equally fast
    ones that with least memory."""
    found, rules = [], [*LAYOUT_RULES, *task.rules]
    for changes in _candidates(task.architecture(config, 0), config, devices, machines.ranks_a_node):
        changed = _changed(config, changes)
        layout = layout_of(changed.parallel, devices)
        if _problems(changed, layout.data, rules) or layout_problems(changed, plan, layout.data):
            continue
        share = share_of(task, changed, efficiency, vocab_size, layout)
        price = max(prices(changed, share, step, device), key=lambda one: one.total)
        pipeline = pipeline_of(changed, share, step)
        flops = step_flops(task, changed, efficiency, vocab_size, step)[1]
        cost = step_cost(share, price, flops, pipeline.bubble, machines)
        found.append(Suggestion(changes, layout, price, cost, pipeline.bubble))
    return sorted(found, key=lambda one: (round(one.cost.seconds, 6), one.price.total))


def flags_of(suggestion: Suggestion) -> str:
    """The flags to copy."""
    words, flags = [], suggestion.flags
    usual = {"expert_tensor_parallel_size": flags["tensor_model_parallel_size"], "cp_comm_type": ("p2p",)}
    for name, value in flags.items():
        if value is True:
            words.append(spelling(name))
        elif value not in (False, None, usual.get(name, 1), NOTHING):
            words.append(f"{spelling(name)} {value if not isinstance(value, tuple) else value[0]}")
    return " ".join(words)


def _changed(config: Config, changes: dict[str, Any]) -> Config:
    """The configuration with other values of these flags, and none of its own about where layers lie."""
    mine = {name: value for name, value in changes.items() if name.startswith("recompute")}
    others = {name: value for name, value in changes.items() if name not in mine}
    training = dataclasses.replace(
        config.training, recompute_method="uniform", recompute_num_layers=1, **mine
    )
    parallel = dataclasses.replace(ParallelConfig(), **others)
    if parallel.pipeline_schedule is None:
        parallel = dataclasses.replace(parallel, pipeline_schedule="1f1b")
    return dataclasses.replace(config, training=training, parallel=parallel)


def _problems(config: Config, data_parallel_size: int, rules: list[Rule]) -> list[str]:
    """What these rules say of a layout."""
    groups: Any = SimpleNamespace(**{**vars(config), "data_parallel_size": data_parallel_size})
    return [problem for rule in rules for problem in ask(rule, groups)]


def _candidates(
    architecture: Architecture, config: Config, devices: int, ranks_a_node: int
) -> Iterator[dict[str, Any]]:
    """Flags of layouts of so many devices. Tensor groups are inside a machine and share tokens, and replicas
    share moments, as both take less memory for the same bytes, or weights, too, for more of them."""
    layers, recomputations = config.model.num_layers, _recomputations(architecture)
    encoder = architecture.encoder  # which no ring of causal attention computes
    shares_tokens = architecture.pictures is None
    for tensor in _divisors(min(devices, ranks_a_node)):
        for context in CONTEXTS if shares_tokens else (1,):
            for pipeline in _divisors(layers):
                if devices % (tensor * context * pipeline):
                    continue
                several = devices > tensor * pipeline
                strategies = (OPTIMIZER, WEIGHTS) if several else (NOTHING,)
                ways = product(_schedules(layers, pipeline), recomputations, strategies)
                for schedule, again, strategy in ways:
                    if again == "selective" and context > 1 and not encoder:
                        continue  # the ring has no explicit weights
                    for experts in _expert_shares(config, tensor, devices // pipeline):
                        yield {
                            "tensor_model_parallel_size": tensor,
                            "sequence_parallel": tensor > 1 and shares_tokens,
                            "context_parallel_size": context,
                            "cp_comm_type": ("allgather" if encoder and context > 1 else "p2p",),
                            "pipeline_model_parallel_size": pipeline,
                            **schedule,
                            **experts,
                            "data_parallel_sharding_strategy": strategy,
                            "recompute_granularity": again,
                        }


def _expert_shares(config: Config, tensor: int, ranks: int) -> list[dict[str, Any]]:
    """Ranks that share experts, of so many that compute a layer: whole experts, or with their matrices shared
    as those of other layers are."""
    number = config.experts.num_experts
    if number == 1:
        return [{"expert_tensor_parallel_size": tensor}]
    return [
        {"expert_model_parallel_size": size, "expert_tensor_parallel_size": matrices}
        for matrices in dict.fromkeys((1, tensor))
        for size in _divisors(math.gcd(number, ranks // matrices))
    ]


def _schedules(layers: int, pipeline: int) -> list[dict[str, Any]]:
    if pipeline == 1:
        return [{}]
    several = [
        {"num_virtual_stages_per_pipeline_rank": runs, "pipeline_schedule": "interleaved"}
        for runs in RUNS
        if layers % (pipeline * runs) == 0
    ]
    return [{"pipeline_schedule": "1f1b"}, {"pipeline_schedule": "zero-bubble"}, *several]


def _recomputations(architecture: Architecture) -> list[str | None]:
    return [None, "selective", "full"] if explicit_in_training(architecture) else [None, "full"]


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]
