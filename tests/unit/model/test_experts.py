"""Layers with experts: against Hugging Face transformers with the same weights, against a loop over tokens,
and at the ends of what can happen to an expert."""

import numpy as np
import pytest
import torch
import transformers
from transformers.models.deepseek_v3 import modeling_deepseek_v3

from megatron.config.experts import AUXILIARY
from megatron.model.balance import tally_sizes
from megatron.model.context import Beside, make_context
from megatron.model.experts import MixtureOfExperts, inactive_parameters
from megatron.model.flops import model_flops
from megatron.model.gpt import GPT
from megatron.model.router import balanced, capacity, has_room
from megatron.parallel.initialization import initialize
from megatron.parallel.placement import placements, states
from megatron.parallel.tally import Tally
from megatron.tasks.architecture import gpt_architecture, mixture_of
from tests.support.configurations import make_config
from tests.support.models import (
    HEADS,
    HIDDEN,
    LAYERS,
    LENGTH,
    VOCAB,
    loss_of,
    make_model,
    make_moved_model,
    random_batch,
)

LLAMA = (
    "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
    "--norm-epsilon 1e-6 --untie-embeddings-and-output-weights --ffn-hidden-size 80 "
)
NAMES = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.projection": "self_attn.o_proj",
}


def mixtral(model):
    """The same model by transformers."""
    config = transformers.MixtralConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=80,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_theta=10000.0,
        experts_implementation="eager",
    )
    other = transformers.MixtralForCausalLM(config).double()
    theirs = dict(other.named_parameters())
    for name, value in as_theirs(dict(model.named_parameters())).items():
        theirs[name].data.copy_(value)
    return other


def as_theirs(mine):
    """Our tensors under the names of transformers, which keeps gate and up of an expert in one."""
    found = {
        "model.embed_tokens.weight": mine["word_embeddings.weight"][:VOCAB],
        "lm_head.weight": mine["output_layer.weight"][:VOCAB],
        "model.norm.weight": mine["final_norm.weight"],
    }
    for layer in range(LAYERS):
        here, there = f"layers.{layer}.", f"model.layers.{layer}."
        for ours, hers in NAMES.items():
            found[f"{there}{hers}.weight"] = mine[f"{here}{ours}.weight"]
        experts = f"{here}mlp.experts."
        found[f"{there}mlp.gate.weight"] = mine[f"{here}mlp.router.weight"]
        joined = torch.cat([mine[f"{experts}gate"], mine[f"{experts}up"]])
        found[f"{there}mlp.experts.gate_up_proj"] = joined.transpose(0, 1)
        found[f"{there}mlp.experts.down_proj"] = mine[f"{experts}down"].transpose(0, 1)
    return found


def test_logits_and_gradients_equal_transformers_mixtral():
    model, batch = make_moved_model(LLAMA + "--num-experts 4 --moe-router-topk 2"), random_batch()
    other = mixtral(model)
    assert as_theirs(dict(model.named_parameters())).keys() == dict(other.named_parameters()).keys()
    logits = other(batch.tokens).logits
    # transformers computes rotary angles and the router's softmax in fp32, as in test_gpt.py
    torch.testing.assert_close(model.logits(batch.tokens), logits, rtol=0, atol=2e-5)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    loss.backward()
    loss_of(model, batch).backward()
    mine = as_theirs({name: one.grad for name, one in model.named_parameters()})
    for name, one in other.named_parameters():
        size = one.grad.abs().max()
        torch.testing.assert_close(mine[name], one.grad, rtol=0, atol=float(1e-5 * size), msg=name)


SHAPE = "--train-iters 1 --hidden-size 32 --num-attention-heads 4 --init-method-std 0.5 "


def make_layer(flags, dtype=torch.float64):
    """The layer, training, and its random tokens of 2 rows."""
    config = make_config(SHAPE + flags)
    layer = MixtureOfExperts(gpt_architecture(config, 10), 0).to(dtype)
    initialize(layer, 3)
    generator = torch.Generator().manual_seed(4)
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=dtype, generator=generator)
    x = torch.randn(2, 12, 32, dtype=dtype, generator=generator)
    return layer.train(), x


def one_by_one(layer, x_BTD, routing):
    """The same by a loop over rows, tokens and a token's experts."""
    experts, act = layer.experts, layer.experts.activation
    y = torch.zeros_like(x_BTD)
    for row in range(len(x_BTD)):
        for place in range(x_BTD.shape[1]):
            x = x_BTD[row, place]
            for number, gate in zip(routing.experts[row, place].tolist(), routing.gates[row, place]):
                if number == layer.mixture.experts:
                    continue
                h = experts.up[:, number] @ x
                h = h if experts.up_bias is None else h + experts.up_bias[number]
                h = act(h) if experts.gate is None else act(experts.gate[:, number] @ x) * h
                out = experts.down[:, number] @ h
                y[row, place] += gate * (out if layer.down_bias is None else out + layer.down_bias[number])
    return y if layer.shared is None else y + layer.shared(x_BTD)


CASES = {
    "plain": "--num-experts 4",
    "gated": "--num-experts 4 --swiglu --disable-bias-linear --moe-shared-expert-intermediate-size 8",
    "one": "--num-experts 4 --moe-router-topk 1 --moe-router-pre-softmax",
    "all": "--num-experts 3 --moe-router-topk 3 --moe-router-topk-scaling-factor 2.5",
    "sigmoid": "--num-experts 4 --moe-router-score-function sigmoid",
    "more experts than tokens": "--num-experts 64 --moe-router-topk 3",
    "dropping": "--num-experts 4 --moe-expert-capacity-factor 0.5",
    "the last": "--num-experts 4 --moe-expert-capacity-factor 0.5 --moe-token-drop-policy position",
    "less than a token": "--num-experts 4 --moe-expert-capacity-factor 1e-3 --moe-group-size 1",
    "padded": "--num-experts 4 --moe-expert-capacity-factor 1.5 --moe-pad-expert-input-to-capacity",
    "padded, gated": "--num-experts 4 --moe-expert-capacity-factor 0.7 --moe-pad-expert-input-to-capacity "
    "--swiglu --disable-bias-linear",
    "sinkhorn": "--num-experts 4 --moe-router-load-balancing-type sinkhorn",
}


@pytest.mark.parametrize("flags", CASES.values(), ids=CASES)
def test_a_layer_is_the_sum_over_each_tokens_experts(flags):
    """Values and all gradients."""
    layer, x = make_layer(flags)
    x.requires_grad_()
    context = make_context(12, x.device)
    found, wanted = layer(x, context), one_by_one(layer, x, layer.router(x, context))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    leaves = [x, *layer.parameters()]
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    mine, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (found, wanted))
    for one, other in zip(mine, theirs):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_tokens_may_go_to_one_expert(dtype):
    layer, x = make_layer("--num-experts 4 --moe-router-topk 1 --moe-router-pre-softmax", dtype)
    layer.router.weight.data.zero_()  # equal scores: the first is taken
    context = make_context(12, x.device)
    routing = layer.router(x, context)
    assert routing.loads.tolist() == [[12, 0, 0, 0]] * 2
    layer(x, context).sum().backward()
    for name, one in layer.experts.named_parameters():
        grad = one.grad if name.endswith("bias") else one.grad.transpose(0, 1)
        assert grad[0].any() and not grad[1:].any() and grad.isfinite().all()


def test_equal_scores_go_to_the_first_experts():
    layer, x = make_layer("--num-experts 8 --moe-router-topk 3")
    layer.router.weight.data.zero_()
    routing = layer.router(x, make_context(12, x.device))
    assert (routing.experts == torch.arange(3)).all() and (routing.gates == 1 / 3).all()


def test_sigmoid_scores_bias_and_groups_equal_transformers_deepseek_v3():
    config = transformers.DeepseekV3Config(
        hidden_size=32,
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
        norm_topk_prob=True,
    )
    other = modeling_deepseek_v3.DeepseekV3TopkRouter(config)
    flags = "--num-experts 16 --moe-router-topk 4 --moe-router-num-groups 4 --moe-router-group-topk 2 "
    flags += "--moe-router-score-function sigmoid --moe-router-topk-scaling-factor 2.5 "
    layer, x = make_layer(flags + "--moe-router-enable-expert-bias", torch.float32)
    bias = 0.3 * torch.randn(16, generator=torch.Generator().manual_seed(6))
    other.weight.data.copy_(layer.router.weight)
    other.e_score_correction_bias.copy_(bias)
    layer.router.expert_bias.copy_(bias)
    routing = layer.router(x, make_context(12, x.device))
    _, gates, experts = other(x)
    dense = [
        torch.zeros(24, 16).scatter(1, one[0].reshape(24, 4), one[1].reshape(24, 4))
        for one in ((routing.experts, routing.gates), (experts, gates))
    ]
    torch.testing.assert_close(dense[0], dense[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("by_weight", [True, False])
def test_who_has_room(by_weight):
    generator = torch.Generator().manual_seed(3)
    experts = torch.stack([torch.randperm(5, generator=generator)[:2] for _ in range(40)]).view(2, 40)
    weights = torch.randint(4, (2, 40), generator=generator).double()  # many equal ones
    found = has_room(experts, weights if by_weight else None, 5, 6)
    for group in range(2):
        for expert in range(5):
            there = [n for n in range(40) if experts[group, n] == expert]
            first = sorted(there, key=lambda n: -weights[group, n]) if by_weight else there
            assert {n for n in there if found[group, n]} == set(first[:6])


@pytest.mark.parametrize(
    ("factor", "top", "tokens", "room"),
    [(1.1, 1, 10, 6), (1.25, 2, 64, 80), (0.001, 1, 6, 1), (1.0, 1, 3, 2)],
)
def test_capacity_is_the_ceiling_of_the_written_number(factor, top, tokens, room):
    flags = f"--num-experts 2 --moe-router-topk {top} --moe-router-pre-softmax "
    config = make_config(SHAPE + flags + f"--moe-expert-capacity-factor {factor}")
    assert capacity(mixture_of(config), tokens) == room


def test_a_balanced_matrix_has_equal_sums():
    logits = torch.randn(2, 30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    shares = balanced(logits).exp()
    torch.testing.assert_close(shares.sum(1), torch.full((2, 5), 1 / 5, dtype=torch.float64))
    torch.testing.assert_close(shares.sum(2), torch.full((2, 30), 1 / 30, dtype=torch.float64))


LOSSES = "--num-experts 4 --moe-aux-loss-coeff 0.3 --moe-z-loss-coeff 0.2 "


@pytest.mark.parametrize("kind", ["aux_loss", "seq_aux_loss", "global_aux_loss"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_losses_are_attached_with_their_scale_and_told_once(kind, score):
    """Against the formulas by hand; the hidden states' own gradient is 0."""
    flags = f"--moe-router-load-balancing-type {kind} --moe-router-score-function {score}"
    layer, x = make_layer(LOSSES + flags)
    mixture, name = layer.mixture, AUXILIARY[kind]
    if kind == "global_aux_loss":
        layer.router.past_load.copy_(torch.tensor([3, 0, 1, 4]))
    tally = Tally(tally_sizes(mixture), x.device)
    beside = Beside({name: 5.0, "z_loss": 7.0}, tally)
    context = make_context(12, x.device)._replace(beside=beside)
    (0 * layer(x, context)).sum().backward()
    found = layer.router.weight.grad.clone()

    logits = x @ layer.router.weight.T
    scores = logits.softmax(-1)
    if score == "sigmoid":
        scores = logits.sigmoid() / logits.sigmoid().sum(-1, keepdim=True)
    best = logits.topk(2).indices
    counts = torch.stack([(best == expert).sum((1, 2)) for expert in range(4)], 1).double()
    if kind == "aux_loss":  # the micro-batch of two rows is one group
        balance = 2 * 4 * (counts.sum(0) / 48 * scores.mean((0, 1))).sum()
    elif kind == "seq_aux_loss":
        balance = 4 * (counts / 24 * scores.mean(1)).sum()
    else:
        balance = 4 * (torch.tensor([3, 0, 1, 4]) / 8 * scores.mean(1)).sum()
    z = logits.logsumexp(-1).square().mean(1).sum()
    (wanted,) = torch.autograd.grad(0.3 * 5 * balance + 0.2 * 7 * z, layer.router.weight)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)
    parts = tally.parts()
    torch.testing.assert_close(parts[name][0], balance.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(parts["z_loss"][0], z.detach(), rtol=1e-12, atol=0)
    assert parts["load of layer 0"].tolist() == counts.sum(0).tolist()


def test_recomputed_layers_choose_the_same_experts_and_tell_their_losses_once():
    flags = LOSSES + "--moe-expert-capacity-factor 0.7 --moe-input-jitter-eps 0.2 --hidden-dropout 0.1 "
    kept, told = torch.arange(0, LENGTH, 2).expand(1, 2, -1), []
    for more in ("", "--recompute-granularity full"):
        model, chosen = make_model(flags + more, dropping=(1,)), {}
        for layer in range(LAYERS):
            router = model.layers[str(layer)].mlp.router
            router.register_forward_hook(
                lambda _, __, routing, layer=layer, chosen=chosen: chosen.setdefault(layer, []).append(
                    routing.experts
                )
            )
        loss_of(model, random_batch(2)._replace(kept=kept), 7).backward()
        for calls in chosen.values():
            assert len(calls) == (2 if more else 1) and all(torch.equal(one, calls[0]) for one in calls)
        told.append((model.tally.sums, [one.grad for one in model.parameters()], chosen))
    (sums, gradients, first), (again, others, second) = told
    assert torch.equal(sums, again) and all(map(torch.equal, gradients, others))
    assert all(torch.equal(first[layer][0], second[layer][0]) for layer in first)
    assert first[1][0].shape[1] == LENGTH // 2 < first[0][0].shape[1]


def test_biases_follow_loads_and_are_no_parameters():
    layer, _ = make_layer("--num-experts 4 --moe-router-enable-expert-bias --moe-router-bias-update-rate 0.5")
    layer.router.settle(torch.tensor([1.0, 3.0, 2.0, 2.0]).double())
    assert layer.router.expert_bias.tolist() == [0.5, -0.5, 0, 0]
    assert "router.expert_bias" in states(layer) and "router.expert_bias" not in placements(layer)


def test_in_evaluation_nothing_is_dropped_or_moved():
    layer, x = make_layer("--num-experts 4 --moe-expert-capacity-factor 0.1 --moe-input-jitter-eps 0.5")
    plain, _ = make_layer("--num-experts 4")
    context = make_context(12, x.device)
    torch.testing.assert_close(layer.eval()(x, context), plain(x, context), rtol=0, atol=0)


def test_flops_are_of_the_experts_that_compute_a_token():
    """Of 3 layers one has experts: 4 products of attention, 2 of each MLP, the router, the logits."""
    flags = "--num-layers 3 --hidden-size 16 --num-attention-heads 2 --ffn-hidden-size 40 --num-experts 8 "
    flags += "--moe-layer-freq [0,1,0] --moe-ffn-hidden-size 24 --moe-shared-expert-intermediate-size 12 "
    flows = model_flops(gpt_architecture(make_config(SHAPE + flags), 50), (1,))
    model, _ = flows(np.array([30]), np.array([20]))
    attention = 4 * 16 * 16
    dense = attention + 2 * 16 * 40
    mixed = attention + 2 * 2 * 16 * 24 + 2 * 16 * 12 + 16 * 8
    weights = 6 * (2 * 30 * dense + 20 * mixed + 30 * 16 * 50)
    assert model[0] == weights + 6 * 16 * (2 * 30**2 + 20**2)
    model = GPT(gpt_architecture(make_config(SHAPE + flags), 50))
    assert inactive_parameters(model) == 6 * (2 * 16 * 24 + 24 + 16)


def test_a_balancing_loss_is_that_of_shares_however_small_the_sigmoids_are():
    """A router that scores all experts near 0 would else have no loss, and balance nothing."""
    flags = LOSSES + "--moe-router-score-function sigmoid --disable-bias-linear"
    found = []
    for shift in (0.0, 60.0):
        layer, x = make_layer(flags)
        tally = Tally(tally_sizes(layer.mixture), x.device)
        context = make_context(12, x.device)._replace(beside=Beside({}, tally))
        logits = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=x.dtype) - shift
        x = torch.zeros_like(x)
        x[..., 0] = 1
        layer.router.weight.data.zero_()[:, 0] = logits
        layer(x.requires_grad_(), context).sum().backward()
        found.append(float(tally.parts()[AUXILIARY["aux_loss"]][0]))
    small = torch.tensor([0.3, -0.2, 0.1, 0.4]).exp()  # of which sigmoids are multiples, where all are small
    assert found[1] == pytest.approx(float(2 * 4 * (small[[0, 3]].sum() / 2 / small.sum())), rel=1e-6)
    assert found[0] > 2
