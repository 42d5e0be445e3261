"""Layers with experts: against Hugging Face transformers with the same weights, against a loop over tokens,
and at the ends of what can happen to an expert."""

import torch
import transformers

from tests.support.models import HEADS, HIDDEN, LAYERS, LENGTH, VOCAB, loss_of, make_moved_model, random_batch

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
        joined = torch.cat([mine[f"{experts}gate"], mine[f"{experts}up"]], 1)
        found[f"{there}mlp.experts.gate_up_proj"] = joined
        found[f"{there}mlp.experts.down_proj"] = mine[f"{experts}down"]
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
