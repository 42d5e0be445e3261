"""The flags of mixture of experts, and the rules between them."""

import dataclasses
from dataclasses import dataclass

from megatron.base.errors import UserError
from megatron.config.data_efficiency import DataEfficiencyConfig
from megatron.config.flags import flag, spelling
from megatron.config.model import ModelConfig
from megatron.config.parallel import ParallelConfig, nearest
from megatron.config.patterns import layer_pattern
from megatron.config.training import TrainingConfig

AUXILIARY = {
    "aux_loss": "load_balancing_loss",
    "seq_aux_loss": "seq_load_balancing_loss",
    "global_aux_loss": "global_load_balancing_loss",
}
"""Balancing by a loss, and Megatron's name of it."""
Z_LOSS = "z_loss"


@dataclass(frozen=True)
class ExpertsConfig:
    num_experts: int = flag(1, "experts of a layer; 1: the dense MLP", at_least=1, otherwise="1 is none")
    moe_layer_freq: str = flag(
        "1",
        "layers with experts: every N-th from the first, or a pattern of 0 and 1, such as '([0]+[1])*12'",
        metavar="N|PATTERN",
    )
    moe_ffn_hidden_size: int | None = flag(None, "inner width of an expert; --ffn-hidden-size", at_least=1)
    moe_shared_expert_intermediate_size: int | None = flag(
        None, "inner width of an MLP that computes all tokens beside the experts", at_least=1
    )
    moe_router_topk: int = flag(2, "experts that compute a token", at_least=1)
    moe_router_score_function: str = flag(
        "softmax", "how a router scores experts", choices=("softmax", "sigmoid")
    )
    moe_router_pre_softmax: bool = flag(
        False, "softmax over all experts before the best are chosen, not over the chosen ones"
    )
    moe_router_topk_scaling_factor: float | None = flag(
        None, "factor of the weights of a token's experts", above=0
    )
    moe_router_num_groups: int | None = flag(
        None, "groups of neighbouring experts, of which a token goes to some alone", at_least=1
    )
    moe_router_group_topk: int | None = flag(None, "how many of these groups", at_least=1)
    moe_router_dtype: str = flag("fp32", "least precision of a router", choices=("fp32", "fp64"))
    moe_input_jitter_eps: float | None = flag(
        None, "a router's inputs are multiplied by random factors from 1-eps to 1+eps", above=0, below=1
    )
    moe_router_load_balancing_type: str = flag(
        "aux_loss",
        "what balances experts: a loss over a group of samples, over each row, or by the loads of the whole "
        "batch; sinkhorn; or nothing",
        choices=(*AUXILIARY, "sinkhorn", "none"),
    )
    moe_aux_loss_coeff: float = flag(0.0, "factor of the balancing loss; 1e-2 is usual", at_least=0)
    moe_z_loss_coeff: float = flag(
        0.0, "factor of the loss that keeps a router's logits small; 1e-3 is usual", at_least=0
    )
    moe_router_enable_expert_bias: bool = flag(
        False, "balance without a loss: experts with few tokens get a bias where the best are chosen"
    )
    moe_router_bias_update_rate: float = flag(1e-3, "by how much it changes in a step", at_least=0)
    moe_expert_capacity_factor: float | None = flag(
        None,
        "an expert computes at most this many times its even share of a group's tokens; all where it is not "
        "given",
        above=0,
    )
    moe_token_drop_policy: str = flag(
        "probs",
        "which tokens a full expert drops: those of the least weight, or the last ones",
        choices=("probs", "position"),
    )
    moe_pad_expert_input_to_capacity: bool = flag(
        False,
        "every expert computes as many rows as it has room for, so that sizes are known beforehand and no "
        "rank waits for them",
        resume="free",
    )
    moe_group_size: int = flag(
        None,
        "samples of the global batch over which experts are balanced and have a capacity; it divides "
        "--micro-batch-size, and is equal to it by default",
        at_least=1,
        follows=lambda training, experts: training.micro_batch_size if experts.num_experts > 1 else 1,
    )
    moe_token_dispatcher_type: str = flag(
        "alltoall",
        "how tokens come to ranks that share experts: each to those that have its experts, or all to all of "
        "them",
        choices=("alltoall", "allgather"),
        resume="free",
    )
    moe_per_layer_logging: bool = flag(
        False, "log how evenly tokens are spread over the experts of every layer", resume="free"
    )


def expert_layers(experts: ExpertsConfig, num_layers: int) -> tuple[int, ...]:
    """Numbers of the layers that have experts; UserError where their pattern is not understood."""
    if experts.num_experts == 1:
        return ()
    pattern = _layer_kinds(experts, num_layers)
    return tuple(layer for layer, one in enumerate(pattern[:num_layers]) if one)


def _layer_kinds(experts: ExpertsConfig, num_layers: int) -> list[int]:
    """0 or 1 for every layer."""
    half = f"'([0]+[1])*{max(num_layers // 2, 1)}'"
    value = layer_pattern(experts.moe_layer_freq, num_layers, "--moe-layer-freq", half)
    return value if isinstance(value, list) else [int(layer % value == 0) for layer in range(num_layers)]


def loss_names(experts: ExpertsConfig) -> dict[str, float]:
    """The losses that layers with experts add, by Megatron's names, and their factors."""
    balancing = AUXILIARY.get(experts.moe_router_load_balancing_type)
    named = {balancing: experts.moe_aux_loss_coeff, Z_LOSS: experts.moe_z_loss_coeff}
    return {name: factor for name, factor in named.items() if name and factor}


def _layers(experts: ExpertsConfig, model: ModelConfig) -> list[str]:
    if experts.num_experts == 1:
        return []
    try:
        pattern = _layer_kinds(experts, model.num_layers)
    except UserError as error:
        return list(error.problems)
    if len(pattern) != model.num_layers:
        return [
            f"--moe-layer-freq {experts.moe_layer_freq!r} is a pattern of {len(pattern)} layers, and "
            f"--num-layers is {model.num_layers}; make them equal"
        ]
    if not any(pattern):
        return [f"--moe-layer-freq {experts.moe_layer_freq!r} gives no layer experts; name some"]
    return []


def _choice(experts: ExpertsConfig) -> list[str]:
    number, few = experts.num_experts, experts.moe_router_topk
    groups, chosen, found = experts.moe_router_num_groups, experts.moe_router_group_topk, []
    if number == 1:
        return []
    if few > number:
        found.append(f"--moe-router-topk {few} is more than --num-experts {number}; lower it")
    if (groups is None) != (chosen is None):
        found.append("--moe-router-num-groups and --moe-router-group-topk need each other; give both")
    elif groups is not None and chosen is not None:
        if number % groups:
            found.append(
                f"--moe-router-num-groups {groups} does not divide --num-experts {number}; take a divisor"
            )
        elif chosen > groups or few % chosen or few // chosen > number // groups:
            found.append(
                f"--moe-router-group-topk {chosen} must be at most --moe-router-num-groups {groups}, divide "
                f"--moe-router-topk {few}, and leave each group at most its {number // groups} experts"
            )
    late = experts.moe_router_score_function == "softmax" and not experts.moe_router_pre_softmax
    balance = experts.moe_router_load_balancing_type
    if few == 1 and late and balance != "sinkhorn":
        found.append("--moe-router-topk 1 needs --moe-router-pre-softmax, as a softmax over one is 1")
    if experts.moe_router_pre_softmax and experts.moe_router_score_function == "sigmoid":
        found.append(
            "--moe-router-pre-softmax does nothing with --moe-router-score-function sigmoid; leave it out"
        )
    elif experts.moe_router_pre_softmax and few == 1 and balance == "sinkhorn":  # of several it is so anyway
        found.append(
            "--moe-router-pre-softmax does nothing with --moe-router-topk 1 and balancing by sinkhorn, whose "
            "weights are sigmoids; leave it out"
        )
    return found


def _balance(experts: ExpertsConfig) -> list[str]:
    kind, found = experts.moe_router_load_balancing_type, []
    if experts.num_experts == 1:
        return []
    if kind not in AUXILIARY and experts.moe_aux_loss_coeff:
        found.append(
            f"--moe-aux-loss-coeff {experts.moe_aux_loss_coeff} does nothing with "
            f"--moe-router-load-balancing-type {kind}; leave one of them out"
        )
    if experts.moe_pad_expert_input_to_capacity and experts.moe_expert_capacity_factor is None:
        found.append(
            "--moe-pad-expert-input-to-capacity needs --moe-expert-capacity-factor; give it, or leave it out"
        )
    others = {
        "enable-expert-bias": experts.moe_router_enable_expert_bias,
        "num-groups": experts.moe_router_num_groups,
    }
    found += [
        f"--moe-router-{name} does not go with balancing by sinkhorn; leave one of them out"
        for name, given in others.items()
        if given and kind == "sinkhorn"
    ]
    return found


def _groups(experts: ExpertsConfig, training: TrainingConfig) -> list[str]:
    size, micro = experts.moe_group_size, training.micro_batch_size
    if experts.num_experts == 1 or micro % size == 0:
        return []
    return [
        f"--moe-group-size {size} does not divide --micro-batch-size {micro}; take micro-batches of a "
        "multiple of it, or begin a run whose groups are smaller (it keeps the size of its first start)"
    ]


def _reference_rows(
    experts: ExpertsConfig, training: TrainingConfig, data_efficiency: DataEfficiencyConfig
) -> list[str]:
    same = experts.moe_group_size == training.micro_batch_size
    if experts.num_experts == 1 or not data_efficiency.reference_schedules or same:
        return []
    return [
        "--reference-schedules cuts the rows of a micro-batch together, so that --moe-group-size must be "
        "--micro-batch-size; make them equal"
    ]


def _shares(experts: ExpertsConfig, parallel: ParallelConfig, model: ModelConfig) -> list[str]:
    """Widths and experts that ranks cannot share equally."""
    if experts.num_experts == 1:
        return []
    shared, inner = experts.moe_shared_expert_intermediate_size or 0, experts.moe_ffn_hidden_size
    own = f"--moe-ffn-hidden-size {inner}" if inner else f"--ffn-hidden-size {model.ffn_hidden_size}"
    sizes = [
        (own, inner or model.ffn_hidden_size, "expert_tensor_parallel_size"),
        (f"--moe-shared-expert-intermediate-size {shared}", shared, "tensor_model_parallel_size"),
        (f"--num-experts {experts.num_experts}", experts.num_experts, "expert_model_parallel_size"),
    ]
    if not inner and parallel.expert_tensor_parallel_size == parallel.tensor_model_parallel_size:
        del sizes[0]  # a rule of the dense MLP says it
    return [
        f"{words} is no multiple of {spelling(name)} {ranks}; {_fitting(name, size, ranks)}"
        for words, size, name in sizes
        if size % (ranks := getattr(parallel, name))
    ]


def _fitting(name: str, size: int, ranks: int) -> str:
    """The ways out: another width, or ranks that divide what there is."""
    if name != "expert_model_parallel_size":
        return nearest(size, ranks, -(-size // ranks) * ranks, spelling(name))
    divisors = [str(one) for one in range(1, size + 1) if size % one == 0]
    return f"give {', '.join(divisors[:-1])} or {divisors[-1]}, or other experts"


def _parallel(experts: ExpertsConfig, parallel: ParallelConfig) -> list[str]:
    """Ranks that share experts, or the tokens of an expert's matrices, in ways that do not go."""
    ranks, tensor = parallel.expert_model_parallel_size, parallel.tensor_model_parallel_size
    matrices = parallel.expert_tensor_parallel_size
    given = {
        f"--expert-model-parallel-size {ranks}": ranks > 1,
        f"--expert-tensor-parallel-size {matrices}": matrices != tensor,
    }
    words = [name for name, there in given.items() if there]
    if experts.num_experts == 1 and words:
        return [
            f"{' and '.join(words)}: there are no experts; leave it out, or give --num-experts to "
            "pretrain_gpt.py"
        ]
    if matrices != tensor and tensor > 1 and not parallel.sequence_parallel:
        return [
            f"--expert-tensor-parallel-size {matrices} differs from --tensor-model-parallel-size {tensor}, "
            "whose ranks then must have different tokens; give --sequence-parallel, or leave it out"
        ]
    return []


def _compiled(experts: ExpertsConfig, training: TrainingConfig) -> list[str]:
    if experts.num_experts == 1 or not training.compile:
        return []
    return [
        "--compile does not go with --num-experts, as tokens per expert are known in the step alone; leave "
        "it out"
    ]


def expert_notes(experts: ExpertsConfig) -> list[str]:
    """Flags of experts where there are none, and groups that fix the least micro-batch of a run."""
    if experts.num_experts == 1:
        usual = ExpertsConfig(moe_group_size=experts.moe_group_size)
        given = [
            spelling(one.name)
            for one in dataclasses.fields(ExpertsConfig)
            if getattr(experts, one.name) != getattr(usual, one.name)
        ]
        return [f"{', '.join(given)}: not used, as --num-experts is 1"] if given else []
    balanced = bool(loss_names(experts)) or experts.moe_router_load_balancing_type == "sinkhorn"
    size = experts.moe_group_size
    if size == 1 or not (balanced or experts.moe_expert_capacity_factor):
        return []
    return [
        f"experts are balanced over groups of {size} samples, the run's --moe-group-size, and its "
        "micro-batches stay multiples of that wherever it goes on; with 1 they may be any"
    ]


RULES = (_layers, _choice, _balance, _groups, _reference_rows, _shares, _parallel, _compiled)
