"""Flags that are taken and do nothing beside the others, which a run says at its start."""

import dataclasses
from typing import Any

from megatron.config.config import Config
from megatron.config.experts import AUXILIARY, ExpertsConfig
from megatron.config.flags import spelling
from megatron.config.model import ModelConfig, explicit_attention
from megatron.config.optimizer import OptimizerConfig, decay_horizon, warmup_horizon
from megatron.config.parallel import ParallelConfig
from megatron.config.training import UNITS, TrainingConfig

Reasons = dict[str, list[str]]
"""Why flags do nothing, and which."""


def idle_flags(config: Config, ranks: int) -> list[str]:
    """A line for every reason for which some flags do nothing on so many ranks."""
    reasons: Reasons = {
        **_of_the_rate(config.optimizer, config.training),
        **_of_experts(config.experts),
        **_of_memory(config.training, config.model, config.parallel),
    }
    if config.logging.profile:
        absent = " ".join(str(rank) for rank in config.logging.profile_ranks if rank >= ranks)
        reasons[f"the highest rank is {ranks - 1}"] = [f"--profile-ranks {absent}"] if absent else []
    told = [f"without effect, as {why}: {', '.join(words)}" for why, words in reasons.items() if words]
    return [*told, *_unbalanced(config.experts)]


def _given(group: Any, *names: str) -> list[str]:
    """Those of a group's flags that have not their default."""
    usual = {one.name: one.default for one in dataclasses.fields(group)}
    return [spelling(name) for name in names if getattr(group, name) != usual[name]]


def _of_the_rate(optimizer: OptimizerConfig, training: TrainingConfig) -> Reasons:
    decay, reasons = decay_horizon(optimizer, training), Reasons()
    if not warmup_horizon(optimizer, decay).amount:
        reasons["there is no warm-up"] = _given(optimizer, "lr_warmup_init")
    if optimizer.lr_decay_style == "constant":
        counts = optimizer.lr_warmup_fraction is not None  # which is a share of the decay
        ends = () if counts else tuple(f"lr_decay_{unit}" for unit in UNITS)
        reasons["--lr-decay-style constant stays at --lr"] = _given(optimizer, "min_lr", *ends)
    if optimizer.lr_decay_style == "WSD":
        others = [f"lr_wsd_decay_{unit}" for unit in UNITS if unit != decay.unit]
        reasons[f"the decay is over {decay.unit}"] = _given(optimizer, *others)
    return reasons


def _of_experts(experts: ExpertsConfig) -> Reasons:
    """Where there are none, their own notes say it of all their flags."""
    reasons = Reasons()
    if experts.num_experts == 1:
        return reasons
    if not experts.moe_router_enable_expert_bias:
        rate = _given(experts, "moe_router_bias_update_rate")
        reasons["--moe-router-enable-expert-bias is not given"] = rate
    if experts.moe_expert_capacity_factor is None:
        policy = _given(experts, "moe_token_drop_policy")
        reasons["--moe-expert-capacity-factor is not given"] = policy
    balanced = experts.moe_router_enable_expert_bias  # else a line of its own says that nothing balances them
    if balanced and not experts.moe_aux_loss_coeff and experts.moe_router_load_balancing_type in AUXILIARY:
        kind = _given(experts, "moe_router_load_balancing_type")
        reasons["--moe-aux-loss-coeff is 0"] = kind
    return reasons


def _unbalanced(experts: ExpertsConfig) -> list[str]:
    """That experts are balanced by nothing, where nobody says that it is meant."""
    balances = experts.moe_aux_loss_coeff or experts.moe_router_enable_expert_bias
    if experts.num_experts == 1 or balances or experts.moe_router_load_balancing_type not in AUXILIARY:
        return []
    return [
        "nothing balances the experts, as --moe-aux-loss-coeff is 0; 1e-2 is usual, and "
        "--moe-router-load-balancing-type none says that this is meant"
    ]


def _of_memory(training: TrainingConfig, model: ModelConfig, parallel: ParallelConfig) -> Reasons:
    reasons = Reasons()
    written_out = explicit_attention(model.attention_backend, model.attention_dropout)
    ring = parallel.context_parallel_size > 1 and "p2p" in parallel.cp_comm_type
    if training.recompute_granularity == "selective" and (ring or not written_out):
        reasons["attention keeps no weights here, and full alone would save memory"] = [
            "--recompute-granularity selective"
        ]
    if parallel.tensor_model_parallel_size == 1:
        reasons["--tensor-model-parallel-size is 1"] = _given(parallel, "sequence_parallel")
    return reasons
