"""Logits, losses and gradients against Hugging Face transformers with the same weights: the BERT of 2018, and
a modern encoder."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.modernbert import modeling_modernbert

from megatron.model.bert import MLM_LOSS, PAIR_LOSS, Bert
from megatron.model.context import Sight
from megatron.model.inputs import BertInputs
from megatron.model.transformer import Texts
from megatron.parallel.initialization import initialize
from megatron.tasks.architecture import bert_architecture
from tests.support.configurations import make_config
from tests.support.models import HEADS, HIDDEN, LAYERS, LENGTH, PLAIN, SHAPE, VOCAB

FIRST = "--apply-residual-connection-post-layernorm --norm-epsilon 1e-12 "
MODERN = (
    "--position-embedding-type rope --rotary-base 500 --local-rotary-base 90 --geglu --disable-bias-linear "
    "--disable-norm-bias --embedding-norm --window-size 3,3 --window-attn-skip-freq [0,1,1] "
    "--bert-no-binary-head --ffn-hidden-size 56 "
)
REAL = torch.tensor([LENGTH, 23, 31])
ROWS = len(REAL)


def make_bert(flags: str, dropping: tuple[int, ...] = ()) -> Bert:
    """As after some training: no bias is 0 any more, and no norm's weight 1."""
    config = make_config(SHAPE + PLAIN + flags)
    model, generator = Bert(bert_architecture(config, VOCAB), dropping).double(), torch.Generator()
    initialize(model, 5)
    generator.manual_seed(8)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return model


def rows_of_text(pairs: bool = True) -> BertInputs:
    """Rows of different real lengths, 5 tokens of which are masked."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, VOCAB, (ROWS, LENGTH), generator=generator)
    masked = torch.cat([torch.randperm(int(real), generator=generator)[:5] for real in REAL])
    labels = torch.randint(4, VOCAB, (ROWS * 5,), generator=generator)
    rows = torch.arange(ROWS)
    return BertInputs(
        tokens=tokens,
        rows=rows,
        masked=masked + LENGTH * rows.repeat_interleave(5),
        labels=labels,
        weights=torch.ones(ROWS * 5),
        types=(torch.arange(LENGTH) > REAL[:, None] // 3).long() if pairs else None,
        firsts=rows * LENGTH if pairs else None,
        pairs=torch.tensor([0, 1, 1]) if pairs else None,
        pair_weights=torch.ones(ROWS) if pairs else None,
        ends=REAL[:, None],
    )


def labels_of(batch: BertInputs) -> Tensor:
    """As transformers wants them: -100 where nothing is to be told."""
    labels = torch.full((ROWS * LENGTH,), -100)
    labels[batch.masked] = batch.labels
    return labels.view(ROWS, LENGTH)


def texts_of(batch: BertInputs) -> Texts:
    return Texts(batch.tokens, batch.rows, types=batch.types, sight=Sight(False, ends=batch.ends))


def is_real() -> Tensor:
    return torch.arange(LENGTH) < REAL[:, None]


def joined(module: nn.Module, names: list[str], kind: str = "weight") -> Tensor:
    return torch.cat([getattr(module.get_submodule(name), kind) for name in names])


def bert_names() -> dict[str, str]:
    """Ours of theirs: a layer's last norm there is the next layer's first one here."""
    table = {
        "bert.embeddings.position_embeddings.weight": "position_embeddings.weight",
        "bert.embeddings.token_type_embeddings.weight": "type_embeddings.weight",
    }
    places = {"bert.pooler.dense": "pair_head.pooler", "cls.seq_relationship": "pair_head.output"}
    places |= {
        "cls.predictions.transform.dense": "token_head.dense",
        "cls.predictions.transform.LayerNorm": "token_head.norm",
        "bert.embeddings.LayerNorm": "layers.0.attention_norm",
    }
    for layer in range(LAYERS):
        there, here = f"bert.encoder.layer.{layer}.", f"layers.{layer}."
        for part in ("query", "key", "value"):
            places[f"{there}attention.self.{part}"] = f"{here}attention.{part}"
        places[f"{there}attention.output.dense"] = f"{here}attention.projection"
        places[f"{there}attention.output.LayerNorm"] = f"{here}mlp_norm"
        places[f"{there}intermediate.dense"] = f"{here}mlp.up"
        places[f"{there}output.dense"] = f"{here}mlp.down"
        last = layer == LAYERS - 1
        places[f"{there}output.LayerNorm"] = "final_norm" if last else f"layers.{layer + 1}.attention_norm"
    return table | {f"{a}.{kind}": f"{b}.{kind}" for a, b in places.items() for kind in ("weight", "bias")}


def copied(other: nn.Module, model: Bert, names: dict[str, str]) -> nn.Module:
    """The other model with the weights of ours."""
    theirs, mine = dict(other.named_parameters()), dict(model.named_parameters())
    with torch.no_grad():
        for there, here in names.items():
            theirs[there].copy_(mine[here])
    return other


def check_gradients(other: nn.Module, model: Bert, names: dict[str, str]) -> None:
    theirs, mine = dict(other.named_parameters()), dict(model.named_parameters())
    for there, here in names.items():
        wanted, found = theirs[there].grad, mine[here].grad
        assert wanted is not None and found is not None
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12, msg=here)


def first_bert(activation: str = "gelu") -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
    )
    return transformers.BertForPreTraining(config).double()


@pytest.mark.parametrize("backend", ["fused", "unfused"])
def test_logits_losses_and_gradients_equal_transformers_bert(backend: str):
    model, batch, names = make_bert(f"{FIRST} --attention-backend {backend}"), rows_of_text(), bert_names()
    other = copied(first_bert(), model, names)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight.copy_(model.word_embeddings.weight[:VOCAB])
        other.cls.predictions.bias.copy_(model.token_head.bias[:VOCAB])
    asked = {"attention_mask": is_real().long(), "token_type_ids": batch.types}
    wanted = other(batch.tokens, labels=labels_of(batch), next_sentence_label=batch.pairs, **asked)
    logits, pairs = model.logits(texts_of(batch))
    real = is_real()
    torch.testing.assert_close(logits[real], wanted.prediction_logits[real], rtol=0, atol=1e-12)
    torch.testing.assert_close(pairs, wanted.seq_relationship_logits, rtol=0, atol=1e-12)
    found = model(batch, scales={MLM_LOSS: 1 / len(batch.masked), PAIR_LOSS: 1 / ROWS})
    torch.testing.assert_close(sum(found.values()), wanted.loss, rtol=1e-13, atol=0)
    sum(found.values()).backward()
    wanted.loss.backward()
    check_gradients(other, model, names)
    for mine, theirs in (
        (model.word_embeddings.weight.grad, other.bert.embeddings.word_embeddings.weight.grad),
        (model.token_head.bias.grad, other.cls.predictions.bias.grad),
    ):
        torch.testing.assert_close(mine[:VOCAB], theirs, rtol=1e-10, atol=1e-12)
        assert not mine[VOCAB:].any()


def modern_names() -> dict[str, str]:
    table = {"model.embeddings.norm.weight": "layers.0.attention_norm.weight"}
    table |= {"model.final_norm.weight": "final_norm.weight", "head.dense.weight": "token_head.dense.weight"}
    table["head.norm.weight"] = "token_head.norm.weight"
    for layer in range(LAYERS):
        there, here = f"model.layers.{layer}.", f"layers.{layer}."
        table[f"{there}attn.Wo.weight"] = f"{here}attention.projection.weight"
        table[f"{there}mlp.Wo.weight"] = f"{here}mlp.down.weight"
        table[f"{there}mlp_norm.weight"] = f"{here}mlp_norm.weight"
        if layer:
            table[f"{there}attn_norm.weight"] = f"{here}attention_norm.weight"
    return table


def modern_bert() -> nn.Module:
    config = transformers.ModernBertConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=56,
        max_position_embeddings=LENGTH,
        local_attention=6,
        global_attn_every_n_layers=3,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
        },
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
        attn_implementation="sdpa",
    )
    return transformers.ModernBertForMaskedLM(config).double()


def joined_names() -> dict[str, list[str]]:
    """Their matrices that are several of ours, one behind another."""
    table = {}
    for layer in range(LAYERS):
        there, here = f"model.layers.{layer}.", f"layers.{layer}."
        table[f"{there}attn.Wqkv"] = [f"{here}attention.{part}" for part in ("query", "key", "value")]
        table[f"{there}mlp.Wi"] = [f"{here}mlp.gate", f"{here}mlp.up"]
    return table


def round_angles(model: Bert) -> None:
    """Turn by angles in single precision, as transformers does in any."""
    channels = HIDDEN // HEADS
    for table, base in ((model.rotary_table, 500.0), (model.near_rotary_table, 90.0)):
        frequency = 1.0 / (base ** (torch.arange(0, channels, 2, dtype=torch.float) / channels))
        angles = torch.arange(LENGTH).float()[:, None] * frequency
        table.copy_(torch.stack([angles.cos(), angles.sin()], 1))


@pytest.mark.parametrize("backend", ["fused", "unfused"])
def test_logits_losses_and_gradients_equal_transformers_modern_bert(
    backend: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", apply_rotary_pos_emb)  # in any precision
    model, names = make_bert(f"{MODERN} --attention-backend {backend}"), modern_names()
    batch, other = rows_of_text(pairs=False), copied(modern_bert(), model, names)
    round_angles(model)
    with torch.no_grad():
        other.model.embeddings.tok_embeddings.weight.copy_(model.word_embeddings.weight[:VOCAB])
        other.decoder.bias.copy_(model.token_head.bias[:VOCAB])
        for there, here in joined_names().items():
            other.get_submodule(there).weight.copy_(joined(model, here))
    wanted = other(batch.tokens, attention_mask=is_real().long())
    logits, pairs = model.logits(texts_of(batch))
    assert pairs is None
    torch.testing.assert_close(logits[is_real()], wanted.logits[is_real()], rtol=0, atol=1e-12)
    loss = model(batch, scales={MLM_LOSS: 1 / len(batch.masked)})[MLM_LOSS]
    # its own loss is in single precision whatever its logits are
    theirs = F.cross_entropy(wanted.logits.flatten(0, 1), labels_of(batch).flatten())
    torch.testing.assert_close(loss, theirs, rtol=1e-12, atol=0)
    loss.backward()
    theirs.backward()
    check_gradients(other, model, names)
    for there, here in joined_names().items():
        gradient = torch.cat([model.get_submodule(name).weight.grad for name in here])
        of_theirs = other.get_submodule(there).weight.grad
        torch.testing.assert_close(gradient, of_theirs, rtol=1e-10, atol=1e-12, msg=there)
    table = other.model.embeddings.tok_embeddings.weight.grad
    torch.testing.assert_close(model.word_embeddings.weight.grad[:VOCAB], table, rtol=1e-10, atol=1e-12)
