"""What flags must be so that the experts of a mixture are made of a dense model's MLPs."""

from collections.abc import Mapping
from typing import Any

from megatron.base.errors import UserError
from megatron.config.experts import ExpertsConfig
from megatron.config.model import ModelConfig


def width_by_granularity(model: ModelConfig, given: Mapping[str, Any]) -> dict[str, int]:
    """The flag of the experts' width where --moe-upcycling-granularity is given; UserError where that does
    not divide the dense MLP, or another width is given."""
    pieces, inner = given.get("moe_upcycling_granularity"), given.get("moe_ffn_hidden_size")
    routed = model.ffn_hidden_size - (given.get("moe_shared_expert_intermediate_size") or 0)
    if pieces is None or routed < 1:
        return {}
    if routed % pieces:
        raise UserError(
            f"--moe-upcycling-granularity {pieces} does not divide the {routed} channels of the dense MLP "
            "that experts share; take a divisor of that"
        )
    if inner not in (None, routed // pieces):
        raise UserError(
            f"--moe-upcycling-granularity {pieces} means --moe-ffn-hidden-size {routed // pieces}, and "
            f"{inner} is given; leave one of them out"
        )
    return {"moe_ffn_hidden_size": routed // pieces}


def _some_experts(experts: ExpertsConfig) -> list[str]:
    """Whether there are experts; another rule says whether a layer has them."""
    few = experts.num_experts == 1
    return ["--num-experts must be at least 2, the experts of a layer; without it there is 1"] if few else []


def _widths(experts: ExpertsConfig, model: ModelConfig) -> list[str]:
    """Whether experts are pieces of the dense MLP, all of one width."""
    shared = experts.moe_shared_expert_intermediate_size or 0
    width, inner = model.ffn_hidden_size, experts.moe_ffn_hidden_size or model.ffn_hidden_size
    if experts.num_experts == 1:
        return []
    if shared >= width:
        return [
            f"--moe-shared-expert-intermediate-size {shared} leaves nothing of the dense MLP's {width} "
            "channels to the experts; lower it"
        ]
    if (width - shared) % inner:
        less = f" less the shared expert's {shared}" if shared else ""
        return [
            f"--moe-ffn-hidden-size {inner} does not divide the dense MLP's {width} channels{less}; take a "
            f"divisor of {width - shared}"
        ]
    return _copies(experts, (width - shared) // inner)


def _copies(experts: ExpertsConfig, pieces: int) -> list[str]:
    """Whether a token's experts are whole copies, where each is one of so many pieces."""
    number, groups = experts.num_experts, experts.moe_router_num_groups or 1
    counts = {"--num-experts": number, "--moe-router-topk": experts.moe_router_topk}
    found = [
        f"{name} {count} is no multiple of {pieces}, and it takes {pieces} experts of this width to make up "
        f"the dense MLP; take {-(-count // pieces) * pieces}, or another --moe-ffn-hidden-size"
        for name, count in counts.items()
        if count % pieces
    ]
    if not found and number // groups % pieces:
        found.append(
            f"--moe-router-num-groups {groups} puts {number // groups} experts into each group, and it takes "
            f"{pieces} of this width to make up the dense MLP; take fewer groups"
        )
    return found


RULES = (_some_experts, _widths)
