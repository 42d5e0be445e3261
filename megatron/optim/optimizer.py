"""AdamW over the model's parameters, and its state under the parameters' own names."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from megatron.base.apex import find_apex
from megatron.config.config import OptimizerConfig
from megatron.parallel.data_parallel import GradientBuckets

SLOTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(
    named: dict[str, nn.Parameter], config: OptimizerConfig, apex: bool = False
) -> torch.optim.Optimizer:
    """Fused AdamW; matrices decay, biases and norms do not. The learning rate is set at every step. `apex`:
    by NVIDIA's apex, whose FusedAdam is AdamW, too."""
    decays = {name: one.dim() >= 2 and not name.endswith("bias") for name, one in named.items()}
    matrices = [one for name, one in named.items() if decays[name]]
    vectors = [one for name, one in named.items() if not decays[name]]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    shared: dict[str, Any] = {
        "lr": config.lr,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_eps,
    }
    used = [group for group in groups if group["params"]]
    return find_apex().adam(used, **shared) if apex else torch.optim.AdamW(used, **shared, fused=True)


def clip(gradients: GradientBuckets, norm: Tensor, largest: float, loss_scale: float = 1.0) -> None:
    """Divide gradients by the scale of their loss, and scale them down to a norm of at most `largest` (0:
    never). `norm`: what it is without that scale, a float64 scalar."""
    factor = torch.ones_like(norm)
    if largest > 0:
        factor = (largest / (norm + 1e-6)).clamp(max=1)
    if loss_scale != 1 or (largest > 0 and (norm.is_cuda or factor < 1)):  # asking a GPU would wait for it
        gradients.scale(factor / loss_scale)


def update(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """One step at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()


def optimizer_state(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Moments as `optimizer.<slot>.<parameter>`; empty before the first step."""
    return {
        f"optimizer.{slot}.{name}": optimizer.state[one][slot]
        for name, one in named.items()
        if one in optimizer.state
        for slot in SLOTS
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    named: dict[str, nn.Parameter],
    state: Iterable[tuple[str, Tensor]],
    steps: int,
) -> None:
    """Take the moments of `optimizer_state` after so many steps, one after another."""
    for name, moment in state:
        _, slot, of = name.split(".", 2)
        parameter = named[of]
        optimizer.state[parameter].setdefault("step", torch.tensor(float(steps), device=parameter.device))
        optimizer.state[parameter][slot] = moment.to(parameter)
    for group in optimizer.param_groups:
        group["step"] = steps  # where apex counts them
