"""The one switch between PyTorch's kernels and those of NVIDIA's apex, with a stand-in of its interface."""

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megatron.base.apex import find_apex, uses_apex
from megatron.batches.loader import BatchShare
from megatron.optim.optimizer import optimizer_state, restore_optimizer
from megatron.train.setup import Run
from megatron.train.step import StepResult, train_step
from tests.support.configurations import STOP, make_config, problems_of
from tests.support.runs import make_run


class FusedAdam(torch.optim.Optimizer):
    """AdamW by its formula, called as apex's class is: steps are counted by group, decay is apart."""

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            first, second = group["betas"]
            for one in group["params"]:
                state = self.state[one]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(one), torch.zeros_like(one)
                state["exp_avg"].mul_(first).add_(one.grad, alpha=1 - first)
                state["exp_avg_sq"].mul_(second).addcmul_(one.grad, one.grad, value=1 - second)
                mean = state["exp_avg"] / (1 - first ** group["step"])
                square = state["exp_avg_sq"] / (1 - second ** group["step"])
                change = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * one
                one.sub_(group["lr"] * change)


class FusedLayerNorm(torch.nn.Module):
    pass


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """NVIDIA's apex as far as it is used; what its LayerNorm has seen."""
    seen: list[torch.Tensor] = []

    def fused_layer_norm_affine(input: Any, weight: Any, bias: Any, normalized_shape: Any, eps: float) -> Any:
        seen.append(input)
        return F.layer_norm(input, normalized_shape, weight, bias, eps)

    members: dict[str, dict[str, Any]] = {
        "apex": {},
        "apex.optimizers": {"FusedAdam": FusedAdam},
        "apex.normalization": {"FusedLayerNorm": FusedLayerNorm},
        "apex.normalization.fused_layer_norm": {"fused_layer_norm_affine": fused_layer_norm_affine},
        "apex.multi_tensor_apply": {"multi_tensor_applier": types.SimpleNamespace(available=True)},
    }
    monkeypatch.setattr(FusedLayerNorm, "__module__", "apex.normalization.fused_layer_norm")
    for name, values in members.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    yield seen


def step(run: Run, number: int) -> StepResult:
    planned = run.plan.at(number)
    return train_step(run, planned, run.rows.batch(run.sampler, planned, BatchShare(0, 1, 2)))


def test_a_run_takes_both_kernels_and_has_the_same_numbers(apex: list[torch.Tensor]) -> None:
    plain, other = make_run(""), make_run("--apex ")
    assert isinstance(other.optimizer, FusedAdam) and not isinstance(plain.optimizer, FusedAdam)
    for number in (1, 2, 3):
        wanted, found = step(plain, number), step(other, number)
        assert found.losses["lm loss"] == pytest.approx(wanted.losses["lm loss"], rel=1e-6)
    assert len(apex) == 3 * 2 * 5  # steps, micro-batches, norms of two layers and the last
    assert plain.parameters.keys() == other.parameters.keys()


def test_a_resumed_run_counts_its_steps(apex: list[torch.Tensor]) -> None:
    whole, parts = make_run("--apex "), make_run("--apex ")
    for number in (1, 2):
        step(whole, number)
        step(parts, number)
    second = make_run("--apex ")
    for name, one in second.parameters.items():
        one.data.copy_(parts.parameters[name].data)
    state = optimizer_state(parts.optimizer, parts.gradients.parameters)
    restore_optimizer(second.optimizer, second.gradients.parameters, state.items(), 2)
    assert step(second, 3) == step(whole, 3)
    assert all(torch.equal(one, whole.parameters[name]) for name, one in second.parameters.items())


def test_it_is_taken_unasked_beside_a_gpu_alone(
    apex: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not make_config(STOP).training.apex
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_config(STOP).training.apex and not make_config(STOP + "--apex false").training.apex


@pytest.mark.parametrize("what", ["missing", "another project", "breaks", "without kernels"])
def test_what_is_not_nvidias_apex_is_told_apart(
    what: str, apex: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "missing":
        for name in [name for name in sys.modules if name.partition(".")[0] == "apex"]:
            monkeypatch.delitem(sys.modules, name)
        why = "No module named 'apex'"
    elif what == "another project":
        monkeypatch.delitem(sys.modules, "apex.optimizers")
        why = "No module named 'apex.optimizers'"
    elif what == "breaks":
        monkeypatch.delitem(sys.modules, "apex.optimizers")
        monkeypatch.setattr("importlib.import_module", lambda name: 1 / 0)
        why = "apex.optimizers: division by zero"
    else:
        monkeypatch.setattr(sys.modules["apex.multi_tensor_apply"].multi_tensor_applier, "available", False)
        why = "it was built without its CUDA kernels"
    with pytest.raises(ImportError, match=why):
        find_apex()
    assert not uses_apex()
    (problem,) = problems_of(STOP + "--apex --eval-iters 0")
    assert problem.startswith("--apex: NVIDIA's apex is not found (") and why in problem
