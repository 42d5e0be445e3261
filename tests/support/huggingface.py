"""Hugging Face's models with the weights of ours."""

import torch
import transformers

from megatron.model.gpt import GPT


def as_gpt2(model: GPT, activation: str = "gelu", end: int = 0) -> transformers.GPT2LMHeadModel:
    """GPT-2 of the same weights and precision; `end`: the token that ends a document."""
    mine, layers, vocabulary = dict(model.named_parameters()), len(model.layers), model.vocab_size
    positions, hidden = mine["position_embeddings.weight"].shape
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=hidden,
        n_layer=layers,
        n_head=hidden // model.layers["0"].attention.head,
        activation_function=activation,
        bos_token_id=end,
        eos_token_id=end,
    )
    other = transformers.GPT2LMHeadModel(config).to(mine["position_embeddings.weight"].dtype).eval()
    theirs = other.state_dict()
    theirs["transformer.wte.weight"].copy_(mine["word_embeddings.weight"][:vocabulary])
    theirs["transformer.wpe.weight"].copy_(mine["position_embeddings.weight"])
    for kind in ("weight", "bias"):
        theirs[f"transformer.ln_f.{kind}"].copy_(mine[f"final_norm.{kind}"])
    for layer in range(layers):
        here, there = f"layers.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            theirs[f"{there}ln_1.{kind}"].copy_(mine[f"{here}attention_norm.{kind}"])
            theirs[f"{there}ln_2.{kind}"].copy_(mine[f"{here}mlp_norm.{kind}"])
            joined = torch.cat([mine[f"{here}attention.{part}.{kind}"] for part in ("query", "key", "value")])
            theirs[f"{there}attn.c_attn.{kind}"].copy_(joined.T if kind == "weight" else joined)
            for ours, hers in (
                ("attention.projection", "attn.c_proj"),
                ("mlp.up", "mlp.c_fc"),
                ("mlp.down", "mlp.c_proj"),
            ):
                value = mine[f"{here}{ours}.{kind}"]
                theirs[f"{there}{hers}.{kind}"].copy_(value.T if kind == "weight" else value)
    return other
