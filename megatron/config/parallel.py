"""The flags of how ranks share the work, and the rules between them."""

import math
from dataclasses import dataclass

from megatron.config.arguments import flag
from megatron.config.model import ModelConfig

WAYS = ("p2p", "allgather", "a2a")
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble")


@dataclass(frozen=True)
class ParallelConfig:
    tensor_model_parallel_size: int = flag(
        1, "ranks that share every matrix of a layer", at_least=1, resume="free"
    )
    sequence_parallel: bool = flag(False, "those ranks share the tokens between matrices, too", resume="free")
    context_parallel_size: int = flag(1, "ranks that share every sequence", at_least=1, resume="free")
    cp_comm_type: tuple[str, ...] = flag(
        ("p2p",),
        "how attention joins the parts of a sequence: keys and values go round (p2p) or are gathered, or "
        "heads are exchanged for tokens (a2a)",
        choices=WAYS,
        resume="free",
    )
    pipeline_model_parallel_size: int = flag(1, "ranks that share the layers", at_least=1, resume="free")
    num_virtual_stages_per_pipeline_rank: int | None = flag(
        None, "runs of layers that each of them has, for the interleaved schedule", at_least=1, resume="free"
    )
    num_layers_per_virtual_pipeline_stage: int | None = flag(
        None, "the same, by the layers of a run", at_least=1, resume="free"
    )
    pipeline_schedule: str = flag(
        None,
        "order of forward and backward passes; 1f1b, or interleaved where a rank has several runs of layers",
        choices=SCHEDULES,
        follows=lambda parallel, model: "interleaved" if chunks_of(parallel, model) > 1 else "1f1b",
        resume="free",
    )
    use_distributed_optimizer: bool = flag(
        False,
        "ranks of data and context share the optimizer's states: each updates a part of the weights (ZeRO-1)",
        resume="free",
    )
    use_tp_pp_dp_mapping: bool = flag(
        False, "neighbouring ranks are pipelines before they are replicas", resume="free"
    )


def ranks_of_model(parallel: ParallelConfig) -> int:
    """Ranks that one replica of a model takes."""
    return (
        parallel.tensor_model_parallel_size
        * parallel.context_parallel_size
        * parallel.pipeline_model_parallel_size
    )


def length_multiple(parallel: ParallelConfig) -> int:
    """What every length must be a multiple of, so that the slices of a sequence are equal."""
    pieces = parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    context = parallel.context_parallel_size
    return pieces if context == 1 else context * math.lcm(2, pieces)


def chunks_of(parallel: ParallelConfig, model: ModelConfig) -> int:
    """Runs of layers that every rank of a pipeline has."""
    layers = parallel.num_layers_per_virtual_pipeline_stage
    if layers:
        return max(model.num_layers // (parallel.pipeline_model_parallel_size * layers), 1)
    return parallel.num_virtual_stages_per_pipeline_rank or 1


def _heads(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    ranks, found = parallel.tensor_model_parallel_size, []
    words = f"--tensor-model-parallel-size {ranks}"
    if model.num_attention_heads % ranks:
        found.append(f"--num-attention-heads {model.num_attention_heads} is no multiple of {words}")
    if model.num_query_groups % ranks and ranks % model.num_query_groups:
        found.append(f"--num-query-groups {model.num_query_groups} and {words}: one must divide the other")
    if model.ffn_hidden_size % ranks:
        found.append(f"--ffn-hidden-size {model.ffn_hidden_size} is no multiple of {words}")
    if model.make_vocab_size_divisible_by % ranks:
        found.append(
            f"--make-vocab-size-divisible-by {model.make_vocab_size_divisible_by} is no multiple of {words}"
        )
    return found


def _exchanged_heads(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    context, heads = parallel.context_parallel_size, model.num_attention_heads
    ranks = parallel.tensor_model_parallel_size * context
    if "a2a" not in parallel.cp_comm_type or context == 1 or heads % ranks == 0:
        return []
    return [
        f"--cp-comm-type a2a shares heads among tensor and context ranks, and --num-attention-heads "
        f"{heads} is no multiple of {ranks}; take p2p or allgather"
    ]


def _one_way(parallel: ParallelConfig) -> list[str]:
    if len(set(parallel.cp_comm_type)) == 1:
        return []
    return [f"--cp-comm-type {' '.join(parallel.cp_comm_type)}: all layers have one way here; name one"]


def _stages(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    ranks, chunks = parallel.pipeline_model_parallel_size, chunks_of(parallel, model)
    if model.num_layers % (ranks * chunks):
        return [
            f"--num-layers {model.num_layers} is no multiple of --pipeline-model-parallel-size {ranks}"
            + (f" x {chunks} runs of layers" if chunks > 1 else "")
        ]
    return []


def _schedule(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    chunks, schedule = chunks_of(parallel, model), parallel.pipeline_schedule
    if chunks > 1 and parallel.pipeline_model_parallel_size == 1:
        return ["several runs of layers a rank need --pipeline-model-parallel-size of at least 2"]
    if (chunks > 1) != (schedule == "interleaved"):
        return [
            f"--pipeline-schedule {schedule} and {chunks} runs of layers a rank do not fit: interleaved has "
            "several, by --num-virtual-stages-per-pipeline-rank, and the others have one"
        ]
    return []


RULES = (_heads, _one_way, _exchanged_heads, _stages, _schedule)
