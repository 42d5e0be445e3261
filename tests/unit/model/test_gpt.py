"""Logits against Hugging Face transformers with the same weights, for both families of positions, norms
and MLPs."""

import pytest
import torch
import transformers
from torch.autograd.graph import saved_tensors_hooks

from megatron.model.gpt import GPT
from megatron.model.inputs import GPTInputs
from megatron.parallel.initialization import initialize
from megatron.tasks.architecture import gpt_architecture
from tests.support.configurations import make_config
from tests.support.huggingface import as_gpt2
from tests.support.models import (
    HEADS,
    HIDDEN,
    LAYERS,
    LENGTH,
    PLAIN,
    SHAPE,
    VOCAB,
    loss_of,
    make_model,
    make_moved_model,
    random_batch,
)


@pytest.mark.parametrize(
    ("flags", "activation"), [("--openai-gelu", "gelu_new"), ("", "gelu"), ("--squared-relu", "relu2")]
)
def test_logits_equal_transformers_gpt2(flags, activation):
    model = make_moved_model(flags)
    other = as_gpt2(model, activation)
    batch = random_batch()
    torch.testing.assert_close(model.logits(batch.tokens), other(batch.tokens).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "groups"), [("Llama", 1), ("Llama", 2), ("Llama", 4), ("Qwen2", 2)])
def test_logits_equal_transformers_llama_and_qwen(kind, groups):
    """Llama has no biases; Qwen has those of query, key and value."""
    flags = (
        "--position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear "
        "--norm-epsilon 1e-6 "
    )
    flags += "--untie-embeddings-and-output-weights --ffn-hidden-size 80 "
    flags += f"--group-query-attention --num-query-groups {groups}"
    flags += " --add-qkv-bias" if kind == "Qwen2" else ""
    model = make_moved_model(flags)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=80,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=groups,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    other = getattr(transformers, f"{kind}ForCausalLM")(config).double().eval()
    mine, theirs = dict(model.named_parameters()), other.state_dict()
    theirs["model.embed_tokens.weight"].copy_(mine["word_embeddings.weight"][:VOCAB])
    theirs["lm_head.weight"].copy_(mine["output_layer.weight"][:VOCAB])
    theirs["model.norm.weight"].copy_(mine["final_norm.weight"])
    names = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.projection": "self_attn.o_proj",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
    }
    for layer in range(LAYERS):
        for ours, hers in names.items():
            for one in ("weight", "bias"):
                if f"model.layers.{layer}.{hers}.{one}" in theirs:
                    theirs[f"model.layers.{layer}.{hers}.{one}"].copy_(mine[f"layers.{layer}.{ours}.{one}"])
    batch = random_batch()
    # transformers computes its rotary angles in fp32: angles up to LENGTH carry relative errors of 6e-8, so
    # 40 · 6e-8 in a logit of order 1
    torch.testing.assert_close(model.logits(batch.tokens), other(batch.tokens).logits, rtol=0, atol=2e-5)


@pytest.mark.parametrize("percent", [0.5, 1.0])
def test_logits_equal_transformers_gpt_neox(percent):
    """Its rotary positions turn the first channels of a head alone, and its layers have biases."""
    model = make_moved_model(
        "--position-embedding-type rope --untie-embeddings-and-output-weights --rotary-base 50 "
        f"--rotary-percent {percent}"
    )
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        use_parallel_residual=False,
        rotary_pct=percent,
        rotary_emb_base=50,
    )
    other = transformers.GPTNeoXForCausalLM(config).double().eval()
    mine, theirs = dict(model.named_parameters()), other.state_dict()
    names = {
        "word_embeddings": "gpt_neox.embed_in",
        "final_norm": "gpt_neox.final_layer_norm",
        "output_layer": "lm_head",
    }
    for layer in range(LAYERS):
        here, there = f"layers.{layer}.", f"gpt_neox.layers.{layer}."
        names |= {
            f"{here}attention_norm": f"{there}input_layernorm",
            f"{here}mlp_norm": f"{there}post_attention_layernorm",
            f"{here}attention.projection": f"{there}attention.dense",
            f"{here}mlp.up": f"{there}mlp.dense_h_to_4h",
            f"{here}mlp.down": f"{there}mlp.dense_4h_to_h",
        }
        for kind in ("weight", "bias"):
            parts = [mine[f"{here}attention.{part}.{kind}"] for part in ("query", "key", "value")]
            heads = torch.stack([part.unflatten(0, (HEADS, -1)) for part in parts], 1)
            theirs[f"{there}attention.query_key_value.{kind}"].copy_(heads.flatten(0, 2))
    for ours, hers in names.items():
        for kind in ("weight", "bias"):
            if f"{hers}.{kind}" in theirs:
                theirs[f"{hers}.{kind}"].copy_(mine[f"{ours}.{kind}"][: len(theirs[f"{hers}.{kind}"])])
    batch = random_batch()
    # angles in fp32, as with Llama
    torch.testing.assert_close(model.logits(batch.tokens), other(batch.tokens).logits, rtol=0, atol=2e-5)


def test_loss_is_the_cross_entropy_of_the_logits_without_padding():
    model = make_model("--make-vocab-size-divisible-by 64")
    batch = random_batch()
    assert model.word_embeddings.weight.shape[0] == 128
    logits = model.logits(batch.tokens)
    assert logits.shape[-1] == VOCAB
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss_of(model, batch), wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.token_losses(batch).sum(), wanted, rtol=1e-12, atol=0)
    loss_of(model, batch).backward()
    assert not model.word_embeddings.weight.grad[VOCAB:].any()


@pytest.mark.parametrize("kind", ["rope", "learned_absolute"])
def test_documents_are_computed_as_if_alone(kind):
    """With document-masked attention and positions that start over, a row of two documents equals two rows
    of one."""
    model = make_moved_model(f"--position-embedding-type {kind}")
    batch = random_batch(1)
    starts = torch.where(torch.arange(LENGTH) >= 15, 15, 0)[None]
    positions = torch.cat([torch.arange(15), torch.arange(LENGTH - 15)])[None]
    together = model.token_losses(batch._replace(document_starts=starts, positions=positions))
    first, second = (
        GPTInputs(batch.tokens[:, part], batch.labels[:, part], batch.rows)
        for part in (slice(0, 15), slice(15, None))
    )
    torch.testing.assert_close(
        together, torch.cat([model.token_losses(first), model.token_losses(second)], 1), rtol=1e-11, atol=0
    )


def test_loss_mask_leaves_tokens_out():
    model, batch = make_model(""), random_batch()
    mask = (torch.arange(LENGTH) % 3 > 0).double().expand(3, -1)
    torch.testing.assert_close(
        loss_of(model, batch._replace(loss_mask=mask)),
        (model.token_losses(batch) * mask).sum(),
        rtol=1e-12,
        atol=0,
    )


def test_recomputed_layers_give_the_same_gradients_and_keep_less():
    flags, batch = "--hidden-dropout 0.1 --attention-dropout 0.1 ", random_batch()
    kept = torch.arange(0, LENGTH, 2).expand(1, 3, -1)
    gradients, kept_bytes = [], []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept_bytes[-1] += tensor.nbytes
        return tensor

    full = "--recompute-granularity full "
    ways = ("", "--recompute-granularity selective", full, full + "--recompute-num-layers 2")
    for more in (*ways, full + "--recompute-method block"):
        model = make_model(flags + more, dropping=(1,))
        kept_bytes.append(0)
        with saved_tensors_hooks(count, lambda one: one):
            loss = loss_of(model, batch._replace(kept=kept), 7)
        loss.backward()
        gradients.append({name: one.grad for name, one in model.named_parameters()})
    nothing, selective, every, pairs, first = kept_bytes
    assert nothing > 1.2 * selective > 1.2**2 * every
    assert every > pairs, "the input of a run alone is kept"
    assert nothing > first > every, "the first layer of three"
    for name, value in gradients[0].items():
        assert all(torch.equal(value, others[name]) for others in gradients[1:]), name


def test_explicit_and_fused_attention_agree():
    batch, losses = random_batch(), []
    for backend in ("fused", "unfused"):
        model = make_model(f"--attention-backend {backend}")
        losses.append(loss_of(model, batch, 1))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)


def test_bfloat16_computes_near_fp32_and_keeps_fp32_gradients():
    losses = {}
    for flags in ("", "--bf16"):
        config = make_config(SHAPE + PLAIN + "--init-method-std 0.02 " + flags)
        model = GPT(gpt_architecture(config, VOCAB))
        initialize(model, 5)
        loss = loss_of(model, random_batch(1))
        loss.backward()
        losses[flags] = loss.item() / LENGTH
        assert {one.grad.dtype for one in model.parameters()} == {torch.float32}
    # bf16 has 8 bits of mantissa: logits of order 0.1 err by about 0.1 · 2^-8, and the mean loss by less
    assert abs(losses[""] - losses["--bf16"]) < 0.1 * 2**-8
