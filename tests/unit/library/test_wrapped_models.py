"""Random-LTD where a model is wrapped, run by checkpointing of one's own, or given several texts a row."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.library.random_ltd import random_ltd_for
from tests.support.huggingface_models import IMAGES, TOKENS, inputs_of, padding, small_model, text_rows
from tests.unit.library.test_random_ltd import drop, layers_of, tokens_of


class Past(nn.Module):
    """Calls what it wraps past its hooks, as an adapter of PEFT does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        return self.model.forward(*args, **kwargs)


@pytest.mark.parametrize("name", ["GPT2LMHead", "LlamaForCausalLM", "BertForMaskedLM", IMAGES[0]])
@pytest.mark.parametrize("wrapped_first", [False, True])
def test_what_wraps_a_model_changes_no_draw(name: str, wrapped_first: bool) -> None:
    inputs = inputs_of(name, None if name in IMAGES else padding("left"))
    plain, model = small_model(name), small_model(name)
    wrapped, tokens = Past(model), tokens_of(name)
    droppings = [drop(plain, tokens), drop(wrapped if wrapped_first else model, tokens)]
    losses = [[one(**inputs).loss.item() for _ in range(3)] for one in (plain, wrapped)]
    assert losses[0] == losses[1] and len(set(losses[0])) == 3
    assert droppings[0].tokens == droppings[1].tokens == 3 * 3 * tokens


@dataclass
class Returned:
    """An output of one's own, which torch does not know as a container."""

    state: Tensor


class Checkpointed(nn.Module):
    """A loop of one's own over the layers of a model, which checkpoints them in groups of so many, if any."""

    def __init__(self, model: nn.Module, group: int, reentrant: bool) -> None:
        super().__init__()
        self.layers, self.group, self.reentrant = layers_of(model), group, reentrant

    def forward(self, x: Tensor) -> Returned:
        step = self.group or len(self.layers)
        for start in range(0, len(self.layers), step):
            part = nn.Sequential(*self.layers[start : start + step])
            x = checkpoint(part, x, use_reentrant=self.reentrant) if self.group else part(x)
        return Returned(x)


def gradients(group: int, reentrant: bool, pattern: str) -> list[Tensor]:
    """Of two optimizer steps of three micro-batches, of which `pattern` tells the backward passes: one
    "behind each", or "together" behind the last, as contrastive losses have, or "apart" behind it."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(6, 3, TOKENS, 32, dtype=torch.float64, generator=generator).requires_grad_()
    model = Checkpointed(small_model("BertForMaskedLM"), group, reentrant)
    dropping = drop(model)
    for step in (1, 2):
        dropping.step = step
        losses = []
        for one in rows[3 * step - 3 : 3 * step]:
            losses.append(model(one).state.square().mean())
            if pattern == "behind each":
                losses.pop().backward()
        if pattern == "together":
            torch.stack(losses).prod().backward()
        for loss in losses if pattern == "apart" else ():
            loss.backward()
    return [rows.grad, *(one.grad for one in model.parameters())]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("pattern", ["behind each", "together", "apart"])
def test_layers_computed_again_keep_what_their_own_pass_has_kept(reentrant: bool, pattern: str) -> None:
    """Layers under a checkpoint each, in pairs, and all under one."""
    exact = gradients(0, reentrant, pattern)
    for group in (1, 2, 4):
        for one, other in zip(exact, gradients(group, reentrant, pattern), strict=True):
            assert torch.allclose(one, other, rtol=1e-11, atol=1e-13), group


@pytest.mark.parametrize("inside", [False, True])
def test_wrapped_models_compute_layers_again_for_several_passes(inside: bool) -> None:
    """By checkpoints that lie in what drops, or around it."""
    grads, inputs = [], inputs_of("LlamaForCausalLM")
    for place in (None, inside):
        model = small_model("LlamaForCausalLM")
        if place is True:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        drop(model)
        for layer in layers_of(model) if place is False else ():
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        wrapped = Past(model)
        torch.stack([wrapped(**inputs).loss for _ in range(3)]).prod().backward()
        grads.append([one.grad for one in model.parameters()])
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-13)


def test_a_model_computed_again_as_a_whole_keeps_the_same() -> None:
    grads, inputs = [], inputs_of("GPT2LMHead")
    for checkpointed in (False, True):
        model = small_model("GPT2LMHead")
        dropping, call = drop(model), partial(model, **inputs)
        for _ in range(2):
            out = checkpoint(call, use_reentrant=False) if checkpointed else call()
            out.loss.backward()
        grads.append([one.grad for one in model.parameters()])
        assert dropping.tokens == 2 * 3 * TOKENS
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["BertForMultipleChoice", "GPT2DoubleHeadsModel"])
def test_padding_of_several_texts_a_row_is_kept_last(kind: str) -> None:
    """Tokens and masks are [rows, choices, tokens] then."""
    model_class = getattr(transformers, kind)
    shape = {"vocab_size": 90, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = model_class(model_class.config_class(**shape)).train()
    dropping, mask = drop(model, 16, 4), torch.ones(2, 3, 16, dtype=torch.int64)
    mask[..., :10] = 0
    model(input_ids=torch.ones(2, 3, 16, dtype=torch.int64), attention_mask=mask)
    assert dropping._kept is not None and dropping._kept.shape[1:] == (6, 4)
    assert int(dropping._kept.min()) >= 10


def test_rows_longer_than_the_maximum_are_whole_behind_the_schedule() -> None:
    model, plain = small_model("GPT2LMHead"), small_model("GPT2LMHead")
    dropping = random_ltd_for(model, maximum=16, minimum=8, duration=4, quantum=8)
    for step, same in ((4, False), (5, True)):
        dropping.step = step
        assert torch.equal(model(text_rows()).logits, plain(text_rows()).logits) == same


def test_a_compiled_model_draws_and_counts_alike() -> None:
    plain, model, inputs = small_model("GPT2LMHead"), small_model("GPT2LMHead"), inputs_of("GPT2LMHead")
    model.gradient_checkpointing_enable()
    droppings, compiled = [drop(one) for one in (plain, model)], torch.compile(model, backend="eager")
    for step in (1, 2):
        for one in droppings:
            one.step = step
        losses = [torch.stack([one(**inputs).loss for _ in range(2)]).prod() for one in (plain, compiled)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
        for loss in losses:
            loss.backward()
    assert droppings[0].layer_tokens == droppings[1].layer_tokens
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-11, atol=1e-13)
