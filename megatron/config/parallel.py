"""The flags of how ranks share the work, and the rules between them."""

import math
from dataclasses import dataclass

from megatron.config.flags import flag, spelling
from megatron.config.model import ModelConfig
from megatron.config.pipeline_layout import EMBEDDING, HEAD, LAYER, read_layout, text_problems

WAYS = ("p2p", "allgather", "a2a")
STRATEGIES = ("no_shard", "optim", "optim_grads", "optim_grads_params")
NOTHING, OPTIMIZER, GRADIENTS, WEIGHTS = STRATEGIES
"""What ranks with the same weights share: nothing, moments (ZeRO-1), gradients too (2), weights too (3)."""
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble")
SPLITS = (
    ("pipeline_model_parallel_layout",),
    ("decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers"),
    ("account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split"),
    ("num_layers_per_virtual_pipeline_stage",),
    ("num_virtual_stages_per_pipeline_rank",),
)
"""Flags that say where layers lie, by how they say it."""
_LEAVE_OUT = "give it, or leave the other out"


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
    expert_model_parallel_size: int = flag(
        1,
        "ranks that share the experts of a layer; they are ranks of data and context as well",
        at_least=1,
        resume="free",
    )
    expert_tensor_parallel_size: int = flag(
        None,
        "ranks that share every matrix of an expert; as many as of other matrices by default",
        at_least=1,
        follows=lambda parallel: parallel.tensor_model_parallel_size,
        resume="free",
    )
    pipeline_model_parallel_size: int = flag(1, "ranks that share the layers", at_least=1, resume="free")
    num_virtual_stages_per_pipeline_rank: int | None = flag(
        None, "runs of layers that each of them has, for the interleaved schedule", at_least=1, resume="free"
    )
    num_layers_per_virtual_pipeline_stage: int | None = flag(
        None, "the same, by the layers of a run", at_least=1, resume="free"
    )
    decoder_first_pipeline_num_layers: int | None = flag(
        None, "layers of the first rank of a pipeline; the others share the rest", at_least=1, resume="free"
    )
    decoder_last_pipeline_num_layers: int | None = flag(
        None, "layers of the last one", at_least=1, resume="free"
    )
    account_for_embedding_in_pipeline_split: bool = flag(
        False, "the embedding counts as a layer where layers are shared equally", resume="free"
    )
    account_for_loss_in_pipeline_split: bool = flag(False, "and so does the head", resume="free")
    pipeline_model_parallel_layout: str | None = flag(
        None,
        "what lies on every stage, in the pipeline's order: E embedding, t layer, L head, | between stages, "
        "such as 'Et*3|(tt|)*2L'; runs of layers a rank follow from it",
        metavar="STAGES",
        resume="free",
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
    use_torch_fsdp2: bool = flag(
        False, "they share gradients and weights, too, by PyTorch's fully_shard (ZeRO-3)", resume="free"
    )
    data_parallel_sharding_strategy: str = flag(
        None,
        "what they share: nothing, the optimizer's states (ZeRO-1), gradients too (ZeRO-2), or weights too "
        "(ZeRO-3); it follows from the two flags above",
        choices=STRATEGIES,
        follows=lambda parallel: _strategy(parallel.use_torch_fsdp2, parallel.use_distributed_optimizer),
        resume="free",
    )
    num_distributed_optimizer_instances: int = flag(
        1,
        "how many times they share it: neighbouring ranks, as those of a node, share one copy, and sums go "
        "between the copies",
        at_least=1,
        resume="free",
    )
    use_tp_pp_dp_mapping: bool = flag(
        False, "neighbouring ranks are pipelines before they are replicas", resume="free"
    )


def _strategy(fully: bool, optimizer: bool) -> str:
    return WEIGHTS if fully else OPTIMIZER if optimizer else NOTHING


def ranks_of_model(parallel: ParallelConfig) -> int:
    """Ranks that one replica of a model takes."""
    return (
        parallel.tensor_model_parallel_size
        * parallel.context_parallel_size
        * parallel.pipeline_model_parallel_size
    )


def zero_stage(parallel: ParallelConfig) -> int:
    """What replicas share, by the numbers of arXiv 1910.02054: nothing (0), moments (1), gradients, too (2),
    or all (3)."""
    return STRATEGIES.index(parallel.data_parallel_sharding_strategy)


def length_multiple(parallel: ParallelConfig) -> int:
    """What every length must be a multiple of, so that the slices of a sequence are equal."""
    pieces = parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    context = parallel.context_parallel_size
    return pieces if context == 1 else context * math.lcm(2, pieces)


def chunks_of(parallel: ParallelConfig, model: ModelConfig) -> int:
    """Runs of layers that every rank of a pipeline has."""
    ranks, layers = parallel.pipeline_model_parallel_size, parallel.num_layers_per_virtual_pipeline_stage
    if parallel.pipeline_model_parallel_layout is not None:
        return max(len(read_layout(parallel.pipeline_model_parallel_layout)) // ranks, 1)
    if layers:
        return max(_counted(parallel, model) // (ranks * layers), 1)
    return parallel.num_virtual_stages_per_pipeline_rank or 1


def stage_texts(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    """What lies on every stage, in the pipeline's order, as a layout has it: a rule says whether that is
    the model. Chunk c of rank r is stage c·ranks + r."""
    if parallel.pipeline_model_parallel_layout is not None:
        return read_layout(parallel.pipeline_model_parallel_layout)
    chunks, ranks = chunks_of(parallel, model), parallel.pipeline_model_parallel_size
    first, last = parallel.decoder_first_pipeline_num_layers, parallel.decoder_last_pipeline_num_layers
    others = max(ranks - sum(one is not None for one in (first, last)), 1)
    each = (_counted(parallel, model) - (first or 0) - (last or 0)) // others
    by_rank = [first or each, *[each] * (ranks - 2), last or each][:ranks]
    layers = [count // chunks for count in by_rank] * chunks
    layers[0] -= parallel.account_for_embedding_in_pipeline_split
    layers[-1] -= parallel.account_for_loss_in_pipeline_split
    texts = [LAYER * count for count in layers]
    texts[0] = EMBEDDING + texts[0]
    texts[-1] += HEAD
    return texts


def counted_letters(parallel: ParallelConfig) -> str:
    """What counts as a layer where stages are weighed, by a layout's letters."""
    layout = parallel.pipeline_model_parallel_layout is not None
    embedding = layout or parallel.account_for_embedding_in_pipeline_split
    head = layout or parallel.account_for_loss_in_pipeline_split
    return LAYER + EMBEDDING * embedding + HEAD * head


def _counted(parallel: ParallelConfig, model: ModelConfig) -> int:
    """Layers, and what counts as one."""
    return model.num_layers + len(counted_letters(parallel)) - 1


def _heads(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    ranks = parallel.tensor_model_parallel_size
    words = f"--tensor-model-parallel-size {ranks}"
    inner = -(-model.ffn_hidden_size // ranks) * ranks
    others = {"num_attention_heads": _other_heads(model, ranks), "ffn_hidden_size": inner}
    found = [
        f"{spelling(name)} {size} is no multiple of {words}; {nearest(size, ranks, other)}"
        for name, other in others.items()
        if (size := getattr(model, name)) % ranks
    ]
    groups = model.num_query_groups
    if groups != model.num_attention_heads and groups % ranks and ranks % groups:
        found.append(
            f"--num-query-groups {groups} and {words}: one must divide the other; give other groups, share "
            "heads among fewer ranks, or leave out --group-query-attention"
        )
    return found


def _other_heads(model: ModelConfig, ranks: int) -> int | None:
    """The nearest number of heads that so many ranks and all other flags allow, if there is one."""
    hidden, heads, groups = model.hidden_size, model.num_attention_heads, model.num_query_groups
    share_width = model.kv_channels == hidden // heads
    fitting = [
        one
        for one in range(ranks, (hidden if share_width else heads * ranks) + 1, ranks)
        if not (share_width and hidden % one) and (groups == heads or one % groups == 0)
    ]
    return min(fitting, key=lambda one: abs(one - heads), default=None)


def nearest(size: int, ranks: int, other: int | None, name: str = "--tensor-model-parallel-size") -> str:
    """The ways out where ranks do not divide a size: fewer ranks, or another size, which the model of a
    checkpoint cannot have."""
    fewer = f"{name} {math.gcd(size, ranks)}"
    return f"give {fewer}, or {other or f'heads and --hidden-size that {ranks} divides'} for a new model"


def _exchanged_heads(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    context, heads = parallel.context_parallel_size, model.num_attention_heads
    ranks = parallel.tensor_model_parallel_size * context
    if "a2a" not in parallel.cp_comm_type or context == 1 or heads % ranks == 0:
        return []
    return [
        f"--cp-comm-type a2a shares heads among tensor and context ranks, and --num-attention-heads "
        f"{heads} is no multiple of {ranks}; take another way, such as allgather, or share heads among fewer "
        "ranks"
    ]


def _one_way(parallel: ParallelConfig) -> list[str]:
    if len(set(parallel.cp_comm_type)) == 1:
        return []
    ways = parallel.cp_comm_type
    return [f"--cp-comm-type {' '.join(ways)}: all layers have one way here; name one of them"]


def _one_split(parallel: ParallelConfig) -> list[str]:
    """Flags that say in several ways where the layers lie."""
    layout, ends, counted, by_layers, by_runs = (
        [name for name in names if getattr(parallel, name)] for names in SPLITS
    )
    found = []
    if layout and (others := [*ends, *counted, *by_layers, *by_runs]):
        found.append([*layout, *others])
    elif ends and (others := [*counted, *by_layers]):
        found.append([*ends, *others])
    elif by_layers and by_runs:
        found.append([*by_layers, *by_runs])
    return [
        f"{' and '.join(map(spelling, names))} say in two ways where layers lie; give one of them, or "
        "none for equal stages"
        for names in found
    ]


def _layout(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    text, ranks = parallel.pipeline_model_parallel_layout, parallel.pipeline_model_parallel_size
    if text is None:
        return []
    stages, found = len(read_layout(text)), text_problems(text, model.num_layers)
    if stages % ranks:
        found.append(
            f"--pipeline-model-parallel-layout {text}: it has {stages} stages, which is no multiple of "
            f"--pipeline-model-parallel-size {ranks}; write {-(-stages // ranks) * ranks} stages, or give a "
            "size that divides them"
        )
    return found


def _stages(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    if parallel.pipeline_model_parallel_layout is not None or _one_split(parallel):
        return []
    ranks, chunks = parallel.pipeline_model_parallel_size, chunks_of(parallel, model)
    texts, given = stage_texts(parallel, model), [one for one in SPLITS[1] if getattr(parallel, one)]
    if given and ranks == 1:
        return [f"{spelling(given[0])} needs --pipeline-model-parallel-size of at least 2; {_LEAVE_OUT}"]
    whole = "".join(texts).count(LAYER) == model.num_layers and "" not in texts
    layers = parallel.num_layers_per_virtual_pipeline_stage
    if whole and (not layers or ranks * chunks * layers == _counted(parallel, model)):
        return []
    words = [f"{spelling(one)} {getattr(parallel, one)}" for one in given]
    words += [spelling(one) for one in SPLITS[2] if getattr(parallel, one)]
    words += [f"{spelling(one)} {layers}" for one in SPLITS[3] if layers]
    return [
        f"--num-layers {model.num_layers} cannot be shared equally by --pipeline-model-parallel-size {ranks}"
        + (f" x {chunks} runs of layers" if chunks > 1 else "")
        + (f" with {' and '.join(words)}" if words else "")
        + f"; {_equal_shares(parallel, model)}"
    ]


def _equal_shares(parallel: ParallelConfig, model: ModelConfig) -> str:
    """What to give in place of layers that cannot be shared."""
    ranks, counted = parallel.pipeline_model_parallel_size, _counted(parallel, model)
    more = counted - model.num_layers
    ends = [getattr(parallel, name) or 0 for name in SPLITS[1]]
    others = "or say by --pipeline-model-parallel-layout what lies on every stage"
    if any(ends):
        return f"take others for the first and the last rank, {others}"
    if parallel.num_layers_per_virtual_pipeline_stage and counted % ranks == 0:
        each = counted // ranks
        fitting = " or ".join(str(one) for one in range(1, each + 1) if each % one == 0)
        return f"a rank has {each}, so runs of {fitting} fit; take one of them, {others}"
    runs = parallel.num_virtual_stages_per_pipeline_rank or parallel.num_layers_per_virtual_pipeline_stage
    multiple = ranks * (runs or 1)
    near = [one * multiple - more for one in (counted // multiple, -(-counted // multiple)) if one > 0]
    return f"take {' or '.join(map(str, near))} layers, {others}"


def _schedule(parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    chunks, schedule = chunks_of(parallel, model), parallel.pipeline_schedule
    if chunks > 1 and parallel.pipeline_model_parallel_size == 1:
        return [
            f"several runs of layers a rank need --pipeline-model-parallel-size of at least 2; {_LEAVE_OUT}"
        ]
    if (chunks > 1) != (schedule == "interleaved"):
        return [
            f"--pipeline-schedule {schedule} and {chunks} runs of layers a rank do not fit: interleaved has "
            "several, by --num-virtual-stages-per-pipeline-rank, and the others have one; leave out "
            "the schedule, or give the runs that it has"
        ]
    return []


def _sharding(parallel: ParallelConfig) -> list[str]:
    strategy, copies = parallel.data_parallel_sharding_strategy, parallel.num_distributed_optimizer_instances
    whole, found = strategy in (NOTHING, OPTIMIZER), []
    words = f"--data-parallel-sharding-strategy {strategy}"
    if strategy == NOTHING and parallel.use_distributed_optimizer:
        found.append(f"{words} and --use-distributed-optimizer contradict each other; give one of them")
    if whole and parallel.use_torch_fsdp2:
        found.append(f"{words} and --use-torch-fsdp2 contradict each other; give one of them")
    if strategy == NOTHING and copies > 1:
        found.append(
            f"--num-distributed-optimizer-instances {copies}: nothing is shared; give "
            "--use-distributed-optimizer or --use-torch-fsdp2, or leave it out"
        )
    if not whole and parallel.pipeline_schedule == "zero-bubble":
        found.append(
            "--pipeline-schedule zero-bubble leaves gradients of weights for later, and shared gradients "
            f"({words}) are summed at once; take 1f1b, or share the optimizer's states alone with "
            "--data-parallel-sharding-strategy optim"
        )
    return found


RULES = (_sharding, _heads, _one_way, _exchanged_heads, _one_split, _layout, _stages, _schedule)
