"""Logits, losses and gradients against Hugging Face transformers' classifier with the same weights."""

import pytest
import torch
import transformers

from megatron.base.errors import UserError
from megatron.checkpoint.huggingface_names import found_in, read_config_json
from megatron.model.bert import Bert
from megatron.model.classifier import TASK_LOSS, Classifier
from megatron.model.context import Sight
from megatron.model.inputs import ClassifierInputs
from megatron.model.transformer import Texts
from megatron.parallel.initialization import initialize
from megatron.parallel.placement import fill_constants
from megatron.tasks.architecture import bert_architecture
from tests.support.configurations import make_config
from tests.support.labelled import bert_config, modern_config

VOCAB, ROWS, LENGTH = 101, 4, 24
REAL = torch.tensor([LENGTH, 13, 5, 20])


def architecture(config: dict):
    flags = read_config_json(config).flags
    words = " ".join(
        f"--{name.replace('_', '-')} {str(value).replace(' ', '')}" for name, value in flags.items()
    )
    return bert_architecture(make_config(f"--train-iters 1 {words}"), VOCAB)


@torch.no_grad()
def fill(model: torch.nn.Module, other: torch.nn.Module, config: dict) -> dict[str, str]:
    """Our model with their weights; their names of what was filled whole."""
    theirs, named = dict(other.named_parameters()), {}
    for name, origin in found_in(read_config_json(config).names, theirs).items():
        mine = dict(model.named_parameters()).get(name)
        if mine is not None:
            part = theirs[origin.name].chunk(origin.parts)[origin.part]
            mine[: len(part)].copy_(part)
            named[name] = origin.name
    return named


@pytest.fixture
def angles_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """ModernBERT's queries and keys stay in double precision."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    from transformers.models.modernbert import modeling_modernbert

    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", apply_rotary_pos_emb)


def inputs(labels: torch.Tensor) -> ClassifierInputs:
    tokens = torch.randint(4, VOCAB, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    types = (torch.arange(LENGTH) > REAL[:, None] // 3).long()
    return ClassifierInputs(tokens, torch.arange(ROWS), types, REAL[:, None], labels)


@pytest.mark.parametrize("outputs", [1, 3])
def test_logits_loss_and_gradients_equal_transformers_classifier(outputs: int):
    labels = torch.tensor([0, 2, 1, 2]) if outputs > 1 else torch.tensor([0.5, 2.0, -1.0, 3.0]).double()
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = bert_config(VOCAB, num_labels=outputs, **dropouts)
    torch.manual_seed(2)
    other = transformers.BertForSequenceClassification(config).double()
    for parameter in other.parameters():  # as after some training
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    model = Classifier(architecture(config.to_dict()), outputs).double()
    initialize(model, 5)
    named = fill(model, other, config.to_dict())
    head = {"pair_head.output.weight": "classifier.weight", "pair_head.output.bias": "classifier.bias"}
    theirs, mine = dict(other.named_parameters()), dict(model.named_parameters())
    for name, there in head.items():
        mine[name].data.copy_(theirs[there])
    named |= head
    assert set(named) == set(mine)  # nothing is left as it began
    batch = inputs(labels)
    real = (torch.arange(LENGTH) < REAL[:, None]).long()
    wanted = other(batch.tokens, attention_mask=real, token_type_ids=batch.types, labels=labels)
    torch.testing.assert_close(model.logits(batch), wanted.logits, rtol=0, atol=1e-12)
    loss = model(batch, scales={TASK_LOSS: 1 / ROWS})[TASK_LOSS]
    torch.testing.assert_close(loss, wanted.loss, rtol=1e-12, atol=0)
    loss.backward()
    wanted.loss.backward()
    for name, there in named.items():
        gradient = mine[name].grad[: len(theirs[there])]
        torch.testing.assert_close(gradient, theirs[there].grad, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_modern_logits_loss_and_gradients_equal_transformers_classifier(
    pooling: str, outputs: int, angles_in_double: None
):
    labels = torch.tensor([0, 2, 1, 2]) if outputs > 1 else torch.tensor([0.5, 2.0, -1.0, 3.0]).double()
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    config = modern_config(VOCAB, num_labels=outputs, classifier_pooling=pooling, layer_types=kinds)
    torch.manual_seed(2)
    other = transformers.ModernBertForSequenceClassification(config).double()
    for parameter in other.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    read = config.to_dict() | {"architectures": ["ModernBertForSequenceClassification"]}
    head = str(read_config_json(read).flags["classifier_head"])
    model = Classifier(architecture(read), outputs, head).double()
    initialize(model, 5)
    fill_constants(model)
    named = fill(model, other, read)
    assert set(named) == set(dict(model.named_parameters())) and "classifier.bias" in named.values()
    batch = inputs(labels)._replace(types=None)
    real = (torch.arange(LENGTH) < REAL[:, None]).long()
    wanted = other(batch.tokens, attention_mask=real, labels=labels)
    # transformers has angles in single precision whatever the weights are
    torch.testing.assert_close(model.logits(batch), wanted.logits, rtol=0, atol=1e-5)
    loss = model(batch, scales={TASK_LOSS: 1 / ROWS})[TASK_LOSS]
    torch.testing.assert_close(loss, wanted.loss, rtol=1e-5, atol=0)
    loss.backward()
    wanted.loss.backward()
    theirs, mine = dict(other.named_parameters()), dict(model.named_parameters())
    for name, origin in read_config_json(read).names.items():
        if name in mine:
            gradient = theirs[origin.name].grad.chunk(origin.parts)[origin.part]
            found = mine[name].grad[: len(gradient)]
            torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-4, msg=name)


def test_rows_without_padding_have_the_mean_of_all_tokens():
    model = Classifier(architecture(bert_config(VOCAB).to_dict()), 2, "mean").double()
    initialize(model, 5)
    batch = inputs(torch.tensor([0, 1, 1, 0]))
    whole = batch._replace(ends=torch.full((ROWS, 1), LENGTH))
    torch.testing.assert_close(
        model.logits(batch._replace(ends=None)), model.logits(whole), rtol=0, atol=1e-12
    )


def test_dropout_of_the_head_is_keyed_by_row():
    model = Classifier(architecture(bert_config(VOCAB).to_dict()), 2)
    initialize(model, 5)
    batch, key = inputs(torch.tensor([0, 1, 1, 0])), torch.tensor(7)
    whole = model._scores(batch, key)
    part = ClassifierInputs(*(one[2:] for one in batch[:5]))
    torch.testing.assert_close(model._scores(part, key), whole[2:])
    assert not torch.allclose(model._scores(part, torch.tensor(8)), whole[2:])
    model.eval()
    torch.testing.assert_close(model._scores(batch, key), model.logits(batch))


@pytest.mark.parametrize("kind", [transformers.BertForPreTraining, transformers.BertForMaskedLM])
def test_the_names_of_bert_fill_every_tensor(kind: type):
    config = bert_config(VOCAB)
    torch.manual_seed(4)
    other = kind(config).double().eval()
    model = Bert(architecture(config.to_dict())).double().eval()
    initialize(model, 5)
    named = fill(model, other, config.to_dict())
    missing = {name for name, _ in model.named_parameters() if name not in named}
    assert all(name.startswith("pair_head") for name in missing)
    assert bool(missing) == (kind is transformers.BertForMaskedLM)
    check_logits(model, other, types=True)


def test_the_names_of_modern_bert_fill_every_tensor(angles_in_double: None):
    config = modern_config(VOCAB)
    torch.manual_seed(4)
    other = transformers.ModernBertForMaskedLM(config).double().eval()
    model = Bert(architecture(config.to_dict())).double().eval()
    initialize(model, 5)
    named = fill(model, other, config.to_dict())
    assert set(named) == set(dict(model.named_parameters()))
    fill_constants(model)
    check_logits(model, other, types=False)


def check_logits(model: Bert, other: torch.nn.Module, types: bool) -> None:
    batch = inputs(torch.zeros(ROWS))
    is_real = torch.arange(LENGTH) < REAL[:, None]
    asked = {"token_type_ids": batch.types} if types else {}
    with torch.no_grad():
        wanted = other(batch.tokens, attention_mask=is_real.long(), **asked)
    wanted_logits = wanted.prediction_logits if hasattr(wanted, "prediction_logits") else wanted.logits
    sight = Sight(False, ends=REAL[:, None])
    found, _ = model.logits(
        Texts(batch.tokens, batch.rows, types=batch.types if types else None, sight=sight)
    )
    # transformers turns by angles in single precision whatever the weights are
    tolerance = 1e-12 if types else 1e-5
    torch.testing.assert_close(found[is_real], wanted_logits[is_real], rtol=0, atol=tolerance)


MODERN_MISTAKES = {
    "layer_types": (["full_attention"], "must be full_attention or sliding_attention for each of 4 layers"),
    "rope_scaling": ({"type": "linear"}, "rope_scaling is set; only models without it"),
    "rope_parameters": ({"full_attention": {"rope_type": "yarn"}}, "rope_type 'yarn' of full_attention"),
    "classifier_activation": ("relu", "and hidden_activation 'gelu' must be the same"),
    "classifier_pooling": ("max", "is none of cls, mean"),
    "norm_eps": ("1e-5", "norm_eps '1e-5' must be a number"),
    "vocab_size": (None, "vocab_size None must be a whole number above 0"),
}


@pytest.mark.parametrize("name", MODERN_MISTAKES)
def test_what_a_config_says_and_has_no_like_here_is_refused(name: str):
    value, wanted = MODERN_MISTAKES[name]
    with pytest.raises(UserError, match=wanted) as error:
        read_config_json(modern_config(VOCAB).to_dict() | {name: value})
    assert len(error.value.problems) == 1


def test_layers_of_older_files_see_all_at_every_third():
    config = modern_config(VOCAB).to_dict() | {"layer_types": None}
    assert read_config_json(config).flags["window_attn_skip_freq"] == "[0, 1, 1, 0]"
    every = read_config_json(config | {"global_attn_every_n_layers": 2})
    assert every.flags["window_attn_skip_freq"] == "[0, 1, 0, 1]"


def test_older_names_are_found():
    names = read_config_json(bert_config(VOCAB).to_dict()).names
    found = found_in(names, ["embeddings.LayerNorm.gamma", "embeddings.LayerNorm.beta"])
    assert {name: origin.name for name, origin in found.items()} == {
        "layers.0.attention_norm.weight": "embeddings.LayerNorm.gamma",
        "layers.0.attention_norm.bias": "embeddings.LayerNorm.beta",
    }
