"""AdamW over the model's parameters, and its state under the parameters' own names."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from megatron.config.config import OptimizerConfig
from megatron.parallel.data_parallel import GradientBuckets

SLOTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW; matrices decay, biases and norms do not. The learning rate is set at every step."""
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,
    )


def clip(gradients: GradientBuckets, norm: Tensor, largest: float) -> None:
    """Scale gradients of this norm, a float64 scalar, down to one of at most `largest` (0: never)."""
    if largest > 0:
        factor = (largest / (norm + 1e-6)).clamp(max=1)
        if norm.is_cuda or factor < 1:  # asking a GPU would wait for it
            gradients.scale(factor)


def update(optimizer: torch.optim.AdamW, learning_rate: float) -> None:
    """One step at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()


def optimizer_state(optimizer: torch.optim.AdamW, named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Moments as `optimizer.<slot>.<parameter>`; empty before the first step."""
    return {
        f"optimizer.{slot}.{name}": optimizer.state[one][slot]
        for name, one in named.items()
        if one in optimizer.state
        for slot in SLOTS
    }


def restore_optimizer(
    optimizer: torch.optim.AdamW,
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
