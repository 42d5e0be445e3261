"""Whether ranks can share every step of a plan: its lengths are cut into equal slices, and its micro-batches
go through the pipeline in groups."""

import itertools
import math

import numpy as np

from megatron.config.config import Config
from megatron.config.parallel import chunks_of, length_multiple
from megatron.schedule.plan import Plan

OTHER_RANKS = "start other ranks"
"""A way out of a run; a plan says how many."""


def layout_problems(config: Config, plan: Plan, data_parallel_size: int) -> list[str]:
    """What the layout of ranks cannot do with a plan, each with its rule and the ways out."""
    return [
        *_lengths(config, plan),
        *_micro_batches(config, plan, data_parallel_size),
        *_instances(config, data_parallel_size),
        *_experts(config, data_parallel_size),
    ]


def planned_problems(config: Config, plan: Plan, data_parallel_size: int) -> list[str]:
    """The same of a plan, which starts no ranks: more of them are a flag."""
    found = layout_problems(config, plan, data_parallel_size)
    every = itertools.count(data_parallel_size)
    more = next(size for size in every if not (_instances(config, size) or _experts(config, size)))
    return [one.replace(OTHER_RANKS, f"plan for --data-parallel-size {more}") for one in found]


def _instances(config: Config, data_parallel_size: int) -> list[str]:
    """Copies of what ranks share that these ranks cannot hold."""
    flags = config.parallel
    context, copies = flags.context_parallel_size, flags.num_distributed_optimizer_instances
    if context * data_parallel_size % copies == 0:
        return []
    words = f" x --context-parallel-size {context}" if context > 1 else ""
    return [
        f"--num-distributed-optimizer-instances {copies}: {data_parallel_size} data-parallel ranks{words} "
        "cannot be parted into so many equal groups; give a number that divides them, "
        f"or {OTHER_RANKS}"
    ]


def _experts(config: Config, data_parallel_size: int) -> list[str]:
    """Ranks that cannot be parted into groups that share the experts, and copies of these."""
    flags = config.parallel
    if config.experts.num_experts == 1:
        return []
    size, matrices = flags.expert_model_parallel_size, flags.expert_tensor_parallel_size
    ranks = flags.tensor_model_parallel_size * flags.context_parallel_size * data_parallel_size
    words = f"--expert-model-parallel-size {size}"
    if matrices > 1:
        words += f" x --expert-tensor-parallel-size {matrices}"
    if ranks % (size * matrices):
        return [
            f"{words}: the {ranks} ranks that compute a layer (tensor x context x data) cannot be parted "
            f"into groups of {size * matrices}; give {_fitting(config, ranks)}, or {OTHER_RANKS}"
        ]
    copies, same = flags.num_distributed_optimizer_instances, ranks // (size * matrices)
    if same % copies == 0:
        return []
    return [
        f"--num-distributed-optimizer-instances {copies}: with {words} only {same} of {ranks} ranks "
        f"{'have' if same > 1 else 'has'} an expert, which cannot be parted into so many groups; give a "
        "number that divides them, or share experts among fewer ranks"
    ]


def _fitting(config: Config, ranks: int) -> str:
    """Flags of experts that part so many ranks equally: first fewer that share a matrix, where it takes
    that."""
    size, matrices = config.parallel.expert_model_parallel_size, config.parallel.expert_tensor_parallel_size
    fewer = math.gcd(ranks, matrices)
    words = [f"--expert-tensor-parallel-size {fewer}"] if fewer < matrices else []
    if ranks % (size * fewer):
        most = math.gcd(ranks // fewer, config.experts.num_experts)
        words.append(f"--expert-model-parallel-size {most}")
    return " and ".join(words)


def _lengths(config: Config, plan: Plan) -> list[str]:
    """Lengths, of rows and of kept tokens, that the slices of a sequence do not divide."""
    multiple, flags = length_multiple(config.parallel), config.parallel
    words = (
        [f"--context-parallel-size {flags.context_parallel_size}"] if flags.context_parallel_size > 1 else []
    )
    if flags.sequence_parallel and flags.tensor_model_parallel_size > 1:
        words.append(f"--sequence-parallel over {flags.tensor_model_parallel_size} ranks")
    found = []
    if config.data.seq_length % multiple:
        found.append(f"--seq-length {config.data.seq_length}")
    for title, lengths in (("rows", plan.sequence_length), ("kept tokens", plan.kept_length)):
        bad = np.flatnonzero(lengths % multiple)
        if len(bad):
            found.append(f"{title} of length {lengths[bad[0]]} at step {bad[0] + 1}")
    if not found:
        return []
    return [
        f"{' and '.join(words)}: every length is cut into equal slices and must be a multiple of {multiple}, "
        f"which is not so for {', '.join(found)}; make --seq-length, and minimum, maximum and quantum of the "
        f"curriculum and of random-LTD, multiples of {multiple}, or share sequences among fewer ranks"
    ]


def _micro_batches(config: Config, plan: Plan, data_parallel_size: int) -> list[str]:
    """Steps whose micro-batches the interleaved schedule cannot group."""
    ranks = config.parallel.pipeline_model_parallel_size
    if chunks_of(config.parallel, config.model) == 1:
        return []
    share = config.training.micro_batch_size * data_parallel_size
    bad = np.flatnonzero(plan.batch_size // share % ranks)
    if not len(bad):
        return []
    step = int(bad[0])
    count = plan.batch_size[step] // share
    return [
        f"the interleaved schedule takes micro-batches in groups of --pipeline-model-parallel-size {ranks}, "
        f"and at step {step + 1} a rank has {count}; change --global-batch-size, --micro-batch-size or "
        "--rampup-batch-size, or give every rank one run of layers"
    ]
