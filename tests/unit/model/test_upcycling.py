"""A mixture that is made of a dense model computes what that computes, and says where it cannot."""

import itertools

import pytest
import torch
from torch import Tensor

from megatron.base.keys import key
from megatron.base.random import normal
from megatron.model.context import make_context
from megatron.model.gpt import GPT
from megatron.model.upcycling import TOKENS, Upcycling, gate_sums, source_of, upcycled, upcycling
from megatron.parallel.initialization import initialize
from megatron.parallel.placement import placements, states, whole
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config
from tests.support.models import (
    HIDDEN,
    LENGTH,
    PLAIN,
    SHAPE,
    VOCAB,
    make_model,
    make_moved_model,
    random_batch,
)

WIDTH = 80
LLAMA = (
    "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
    "--untie-embeddings-and-output-weights "
)
DENSE = {"gpt": f"--ffn-hidden-size {WIDTH} ", "llama": f"--ffn-hidden-size {WIDTH} {LLAMA}"}
FINE = f"--moe-ffn-hidden-size {WIDTH // 4} "
EQUAL = {
    "two of four": "--num-experts 4",
    "all of two": "--num-experts 2 --moe-router-pre-softmax",
    "three of six": "--num-experts 6 --moe-router-topk 3",
    "some layers": "--num-experts 4 --moe-layer-freq [0,1,1]",
    "a factor": "--num-experts 4 --moe-router-topk-scaling-factor 2.5",
    "sigmoid and biases": "--num-experts 4 --moe-router-score-function sigmoid "
    "--moe-router-enable-expert-bias",
    "loads of a batch": "--num-experts 4 --moe-router-load-balancing-type global_aux_loss "
    "--moe-aux-loss-coeff 0.1",
    "groups": "--num-experts 8 --moe-router-num-groups 4 --moe-router-group-topk 2",
    "one copy in quarters": FINE + "--num-experts 16 --moe-router-topk 4",
    "two copies in quarters": FINE + "--num-experts 16 --moe-router-topk 8",
    "quarters and a factor": FINE + "--num-experts 16 --moe-router-topk 8 --moe-router-topk-scaling-factor 4",
    "quarters in groups": FINE + "--num-experts 16 --moe-router-topk 4 --moe-router-num-groups 4 "
    "--moe-router-group-topk 1",
    "shared": "--num-experts 4 --moe-shared-expert-intermediate-size 20 --moe-ffn-hidden-size 60",
    "shared and thirds": FINE
    + "--num-experts 6 --moe-router-topk 3 --moe-shared-expert-intermediate-size 20",
}
NEAR = {
    "one, weighed among all": "--num-experts 4 --moe-router-topk 1 --moe-router-pre-softmax",
    "one by sigmoid": "--num-experts 4 --moe-router-topk 1 --moe-router-score-function sigmoid",
    "two, weighed among all": "--num-experts 4 --moe-router-pre-softmax",
    "sinkhorn": "--num-experts 4 --moe-router-load-balancing-type sinkhorn",
}


def how_of(flags: str, **more: float) -> Upcycling:
    return upcycling(gpt_architecture(make_config(SHAPE + PLAIN + flags), VOCAB), **more)


def tensors_of(dense: GPT, mixture: GPT, how: Upcycling) -> dict[str, Tensor]:
    """All tensors of the mixture."""
    there, table = dict(dense.named_parameters()), placements(mixture) | whole(states(mixture))
    with torch.no_grad():
        return {
            name: torch.cat(list(upcycled(name, table[name], lambda source: there[source].detach(), how)))
            for name in [*dict(mixture.named_parameters()), *states(mixture)]
        }


def made_of(dense: GPT, flags: str, **more: float) -> GPT:
    """The mixture of these flags, filled; in evaluation mode as the dense model."""
    mixture = make_model(flags)
    there = dict(mixture.named_parameters()) | states(mixture)
    for name, tensor in tensors_of(dense, mixture, how_of(flags, **more)).items():
        assert there[name].shape == tensor.shape, name
        there[name].data.copy_(tensor)
    dense.eval()
    return mixture.eval()


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("kind", DENSE)
def test_the_mixture_has_the_losses_and_logits_of_the_dense_model(kind: str, name: str) -> None:
    """To rounding: some hundred roundings of numbers of the size of the logits add up by chance."""
    flags, batch = DENSE[kind] + EQUAL[name], random_batch()
    dense = make_moved_model(DENSE[kind])
    mixture = made_of(dense, flags, seed=3)
    assert how_of(flags).equal
    for precision in (torch.float64, torch.float32):
        both = [model.to(precision) for model in (dense, mixture)]
        with torch.no_grad():
            theirs, ours = (model.token_losses(batch) for model in both)
            logits = [model.logits(batch.tokens) for model in both]
        bound = 1000 * torch.finfo(precision).eps
        assert torch.allclose(theirs, ours, rtol=0, atol=bound * float(theirs.abs().max()))
        assert torch.allclose(*logits, rtol=0, atol=bound * float(logits[0].abs().max()))


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("kind", DENSE)
def test_where_weights_do_not_sum_to_one_outputs_are_scaled_by_the_sum_over_its_mean(
    kind: str, name: str
) -> None:
    flags, dense = DENSE[kind] + NEAR[name], make_moved_model(DENSE[kind])
    how, mixture = how_of(flags), made_of(dense, flags)
    assert not how.equal
    x = torch.randn((2, LENGTH, HIDDEN), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    context = make_context(LENGTH, torch.device("cpu"))
    with torch.no_grad():
        mine, theirs = (model.layers["1"].mlp for model in (mixture, dense))
        sums = mine.router(x, context).gates.sum(-1, keepdim=True)
        assert torch.allclose(mine(x, context), theirs(x) * sums / how.gates, rtol=1e-12, atol=1e-12)
        assert abs(float(sums.mean()) / how.gates - 1) < 5 * float(sums.std()) / how.gates / len(x[0]) ** 0.5


def test_the_mean_of_a_single_weight_is_that_of_the_largest_of_a_softmax() -> None:
    flags = DENSE["gpt"] + NEAR["one, weighed among all"]
    scores = torch.randn((100_000, 4), generator=torch.Generator().manual_seed(1)) * 0.1 * HIDDEN**0.5
    largest = scores.softmax(1).max(1).values
    error = float(largest.std()) / TOKENS**0.5
    assert abs(how_of(flags).gates - float(largest.mean())) < 5 * error


def test_a_token_chooses_whole_copies() -> None:
    flags = DENSE["gpt"] + EQUAL["two copies in quarters"]
    mixture = made_of(make_moved_model(DENSE["gpt"]), flags)
    x = torch.randn((1, LENGTH, HIDDEN), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    experts = mixture.layers["0"].mlp.router(x, make_context(LENGTH, torch.device("cpu"))).experts[0]
    for chosen in experts.tolist():
        assert sorted(one % 4 for one in chosen) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert len({one // 4 for one in chosen}) == 2
    assert len({one // 4 for one in experts.flatten().tolist()}) == 4


def test_routers_are_those_of_a_new_model() -> None:
    flags = DENSE["gpt"] + EQUAL["two of four"]
    new, dense = make_model(flags), make_moved_model(DENSE["gpt"])
    initialize(new, 11)
    found = tensors_of(dense, new, how_of(flags, seed=11))
    routers = {name: one for name, one in new.named_parameters() if source_of(name) is None}
    assert len(routers) == 3
    for name, one in routers.items():
        assert torch.equal(found[name], one.detach().float())
    other = tensors_of(dense, new, how_of(flags, seed=12))
    assert not any(torch.equal(found[name], other[name]) for name in routers)


def test_noise_is_a_function_of_seed_layer_and_expert_alone() -> None:
    dense = make_moved_model(DENSE["gpt"])

    def tensors(count: int, **more: float) -> dict[str, Tensor]:
        flags = f"{DENSE['gpt']} --num-experts {count}"
        return tensors_of(dense, make_model(flags), how_of(flags, **more))

    plain, four = tensors(4), tensors(4, noise=0.1, seed=1)
    again, eight, other = (
        tensors(4, noise=0.1, seed=1),
        tensors(8, noise=0.1, seed=1),
        tensors(4, noise=0.1, seed=2),
    )
    matrices = [name for name in four if ".experts." in name and not name.endswith("bias")]
    assert len(matrices) == 6
    drawn = []
    for name, one in four.items():
        assert torch.equal(one, again[name])
        if name not in matrices:
            assert ".router." in name or torch.equal(one, plain[name])
            continue
        assert torch.equal(one, eight[name][:, :4]) and not torch.equal(one, other[name])
        noise = ((one - plain[name]) / (0.1 * plain[name][:, 0].std(correction=0))).transpose(0, 1)
        whole_draw = normal(key(1, "noise", name), tuple(noise.shape), (0, 0, 0), tuple(noise.shape))
        assert torch.allclose(noise, torch.from_numpy(whole_draw), rtol=0, atol=1e-12)
        drawn += list(noise.flatten(1))
    for one in drawn:  # 3,840 normal numbers: five standard errors of their mean and deviation
        assert abs(float(one.mean())) < 5 / len(one) ** 0.5
        assert abs(float(one.std()) - 1) < 5 / (2 * len(one)) ** 0.5
    for one, another in itertools.combinations(drawn, 2):
        assert abs(float((one * another).mean())) < 5 / len(one) ** 0.5


def test_sums_are_those_of_the_router_with_its_factor() -> None:
    architecture = gpt_architecture(make_config(SHAPE + PLAIN + DENSE["gpt"] + EQUAL["a factor"]), VOCAB)
    assert torch.allclose(gate_sums(architecture, 1), torch.tensor(2.5, dtype=torch.float64), rtol=1e-14)
