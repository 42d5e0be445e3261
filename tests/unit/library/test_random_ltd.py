"""Random-LTD for models of Hugging Face's: a layer that drops equals the same layer run row by row on tokens
picked by hand, with masks and positions made by hand, and nothing but training changes."""

import copy
import warnings

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from megatron.base.errors import UserError
from megatron.batches.kept import choose_kept
from megatron.library.kept_arguments import kept_arguments
from megatron.library.random_ltd import random_ltd_for
from megatron.schedule.data_efficiency_flags import describe
from tests.support.configurations import make_config, make_plan
from tests.support.huggingface import as_gpt2
from tests.support.huggingface_models import (
    IMAGES,
    LAYERS,
    SHAPES,
    TEXTS,
    TOKENS,
    inputs_of,
    padding,
    small_model,
    text_rows,
)
from tests.support.models import LENGTH, loss_of, make_model, random_batch

KEPT, STEP, SEED = 8, 3, 77
CAUSAL = [name for name in TEXTS if "MaskedLM" not in name]


def tokens_of(name: str) -> int:
    return {"DeiTForImageClassification": 18}.get(name, 17) if name in IMAGES else TOKENS


def drop(model: nn.Module, tokens: int = TOKENS, kept: int = KEPT, **others):
    """Random-LTD that keeps `kept` tokens for a long time, at STEP."""
    dropping = random_ltd_for(
        model, maximum=tokens, minimum=kept, duration=10**6, quantum=1, seed=SEED, **others
    )
    dropping.step = STEP
    return dropping


def layers_of(model: nn.Module) -> nn.ModuleList:
    return next(part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == LAYERS)


def kept_by_hand(number: int, row: int, tokens: int, mask: torch.Tensor | None) -> list[int]:
    """The draws of the training commands, over the tokens of a row that are no padding; of a row that has
    too few, those and the first ones of the padding."""
    real = list(range(tokens)) if mask is None else mask[row].nonzero()[:, 0].tolist()
    others = [place for place in range(tokens) if place not in real]
    places = choose_kept((number,), np.array([row]), np.array(len(real)), KEPT, SEED, STEP)[0, 0]
    return sorted((real + others)[place] for place in places)


def run_by_hand(model: nn.Module, number: int, x: torch.Tensor, kept: list[int], row_mask, causal: bool):
    """One row's kept tokens [1, R, D] through an untouched layer."""
    places = torch.tensor([kept])
    visible = torch.ones(len(kept), len(kept), dtype=torch.bool)
    for query, at in enumerate(kept):
        for key, seen in enumerate(kept):
            window = getattr(model.config, "sliding_window", None) if causal else None
            allowed = seen <= at and (window is None or at - seen < window) if causal else True
            if "modernbert" in model.config.model_type and number % 3:
                allowed = abs(at - seen) <= model.config.local_attention // 2
            visible[query, key] = allowed and (row_mask is None or bool(row_mask[seen]))
    images = isinstance(model, transformers.ViTPreTrainedModel)
    named = {} if images else {"attention_mask": visible[None, None]}
    rotary = [part for part in model.modules() if type(part).__name__.endswith("RotaryEmbedding")]
    if "modernbert" in model.config.model_type:
        kind = model.config.layer_types[number]
        named["position_embeddings"] = rotary[0](x, places, kind)
    elif rotary:
        named["position_embeddings"] = rotary[0](x, places)
    out = layers_of(model)[number](x, **named)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("name", list(SHAPES))
def test_a_layer_equals_itself_on_tokens_picked_by_hand(name: str, side: str) -> None:
    if name in IMAGES and side != "none":
        return
    mask = None if side == "none" else padding(side)
    model = small_model(name)
    untouched = copy.deepcopy(model)
    drop(model, tokens_of(name))
    hidden = model(**inputs_of(name, mask), output_hidden_states=True).hidden_states
    for number in range(1, LAYERS - 1):
        before, after = hidden[number], hidden[number + 1]
        for row in range(3):
            kept = kept_by_hand(number, row, before.shape[1], mask)
            row_mask = None if mask is None else mask[row]
            expected = before[row].clone()
            part = before[row : row + 1, kept]
            expected[kept] = run_by_hand(untouched, number, part, kept, row_mask, name in CAUSAL)[0]
            assert torch.allclose(after[row], expected, rtol=1e-12, atol=1e-12), (number, row)
            assert not torch.equal(before[row, kept], after[row, kept])


@pytest.mark.parametrize("name", list(SHAPES))
def test_eager_attention_with_additive_masks_is_the_same(name: str) -> None:
    """In single precision: transformers' eager attention is NaN in double where a token sees nothing."""
    inputs = inputs_of(name, None if name in IMAGES else padding("right"))
    if name in IMAGES:
        inputs["pixel_values"] = inputs["pixel_values"].float()
    losses = []
    for attention in ("sdpa", "eager"):
        model = small_model(name, attention).float()
        drop(model, tokens_of(name))
        losses.append(model(**inputs).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", list(SHAPES))
def test_all_kept_or_evaluated_it_is_the_model_as_it_was(name: str) -> None:
    inputs = inputs_of(name)
    model, plain = small_model(name), small_model(name)
    expected = plain(**inputs).loss
    dropping = drop(model, tokens_of(name))
    assert not torch.equal(model(**inputs).loss, expected)
    assert torch.equal(model.eval()(**inputs).loss, plain.eval()(**inputs).loss)
    model.train()
    dropping.step = 10**6 + 1
    assert dropping.kept_length == tokens_of(name)
    assert torch.equal(model(**inputs).loss, expected)
    dropping.step = STEP
    dropping.remove()
    assert torch.equal(model(**inputs).loss, expected)
    assert "forward" not in layers_of(model)[1].__dict__


@pytest.mark.parametrize("name", ["GPT2LMHead", "LlamaForCausalLM", "BertForMaskedLM"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_flow_and_checkpointing_gives_the_same(name: str, reentrant: bool) -> None:
    inputs, grads = inputs_of(name, padding("right")), []
    for checkpointed in (False, True):
        model = small_model(name)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        drop(model)
        model(**inputs).loss.backward()
        grads.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, grad in grads[0].items():
        assert (grad is None) == (grads[1][key] is None)
        if grad is not None:
            assert grad.isfinite().all() and (grad.abs().sum() > 0 or "bias" in key), key
            assert torch.allclose(grad, grads[1][key], rtol=1e-12, atol=1e-14), key


@pytest.mark.parametrize("name", ["GPT2LMHead", "LlamaForCausalLM", "BertForMaskedLM", IMAGES[0]])
def test_names_and_checkpoints_are_unchanged(name: str, tmp_path) -> None:
    model, plain = small_model(name), small_model(name)
    drop(model, tokens_of(name))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [key for key, _ in model.named_modules()] == [key for key, _ in plain.named_modules()]
    model.save_pretrained(tmp_path / "dropping")
    plain.save_pretrained(tmp_path / "plain")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "dropping" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    again = type(model).from_pretrained(tmp_path / "dropping", dtype=torch.float64)
    assert torch.equal(again.eval()(**inputs_of(name)).loss, plain.eval()(**inputs_of(name)).loss)


def test_a_copy_drops_by_itself() -> None:
    model = small_model("GPT2LMHead")
    drop(model)
    other, inputs = copy.deepcopy(model), inputs_of("GPT2LMHead")
    assert torch.equal(other(**inputs).loss, model(**inputs).loss)
    with torch.no_grad():
        for parameter in layers_of(model)[1].parameters():
            parameter.zero_()
    assert not torch.equal(other(**inputs).loss, model(**inputs).loss)
    again = copy.deepcopy(other)
    assert torch.equal(again(**inputs).loss, other(**inputs).loss), "both go on with the next rows"


def test_kept_sets_are_uniform_and_each_row_and_layer_has_its_own() -> None:
    model = small_model("GPT2LMHead")
    dropping, x = drop(model, kept=6), torch.zeros(64, TOKENS, 1)
    counts, sets = torch.zeros(TOKENS), set()
    for step in range(1, 51):
        dropping.step = step
        for number in range(2):
            kept = dropping.kept_of(number, x)
            assert (kept.diff(dim=1) > 0).all()
            counts += torch.bincount(kept.flatten(), minlength=TOKENS)
            sets |= set(map(tuple, kept.tolist()))
    draws = 50 * 2 * 64
    share = 6 / TOKENS
    chi2 = float(((counts - draws * share) ** 2 / (draws * share * (1 - share))).sum()) * (1 - 1 / TOKENS)
    assert chi2 < 52, "99.95 % of chi-square with 23 degrees of freedom lies below"
    expected = 134596 * (1 - (1 - 1 / 134596) ** draws)  # different sets among so many draws of C(24, 6)
    assert len(sets) == pytest.approx(expected, abs=5 * (draws - expected) ** 0.5)


def test_kept_lengths_are_those_of_the_plan_and_tokens_are_counted() -> None:
    flags = "--num-layers 4 --seq-length 64 --global-batch-size 3 --train-iters 50 --random-ltd "
    flags += "--random-ltd-min 20 --random-ltd-duration 40 --random-ltd-quantum 8"
    config = make_config(flags + " --micro-batch-size 3")
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency)
    model = small_model("GPT2LMHead")
    dropping = random_ltd_for(model, maximum=64, minimum=20, duration=40, quantum=8)
    for step in range(1, 51):
        dropping.step = step
        assert dropping.kept_length == plan.kept_length[step - 1]
        with torch.no_grad():
            model(text_rows(3, 64))
        assert dropping.layer_tokens == plan.layer_tokens[step - 1]
        assert dropping.effective_tokens == plan.consumed_tokens[step - 1]
        assert dropping.tokens == plan.raw_tokens[step - 1]


def test_the_loss_is_that_of_our_own_gpt() -> None:
    own, batch = make_model("", dropping=(1,)), random_batch()
    theirs = as_gpt2(own).train()
    for part in theirs.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    dropping = random_ltd_for(theirs, maximum=LENGTH, minimum=9, duration=10**6, quantum=1, seed=4)
    dropping.step = 6
    kept = torch.from_numpy(choose_kept((1,), np.arange(3), np.array(LENGTH), 9, 4, 6))
    logits = theirs(batch.tokens).logits
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    ours = loss_of(own, batch._replace(kept=kept), 6)
    assert loss.item() == pytest.approx(ours.item(), rel=1e-12)


def test_ranks_and_micro_batches_together_draw_as_one_batch() -> None:
    """4 rows in one pass, against 2 ranks of 2 passes of 1 row."""
    ids = text_rows(4)
    whole = small_model("LlamaForCausalLM")
    drop(whole)
    expected = whole(ids).logits
    for rank in range(2):
        model = small_model("LlamaForCausalLM")
        dropping = drop(model, rank=rank, ranks=2)
        for turn in range(2):
            row = 2 * turn + rank
            assert torch.allclose(model(ids[row : row + 1]).logits[0], expected[row], rtol=1e-11, atol=1e-11)
        dropping.step = STEP
        assert torch.allclose(model(ids[rank : rank + 1]).logits[0], expected[rank], rtol=1e-11, atol=1e-11)


def test_short_rows_are_computed_whole() -> None:
    model, plain = small_model("GPT2LMHead"), small_model("GPT2LMHead")
    drop(model)
    assert torch.equal(model(text_rows(3, 8)).logits, plain(text_rows(3, 8)).logits)


def test_packed_rows_keep_their_documents_apart() -> None:
    """position_ids that begin again: transformers makes a mask of them, and what comes before a document
    does not reach it, whatever is dropped."""
    model, ids = small_model("LlamaForCausalLM"), text_rows(1)
    drop(model)
    positions = torch.cat([torch.arange(10), torch.arange(14)])[None]
    first = model(ids, position_ids=positions, use_cache=False).logits
    changed = ids.clone()
    changed[0, :10] = 1
    again = small_model("LlamaForCausalLM")
    drop(again)
    second = again(changed, position_ids=positions, use_cache=False).logits
    assert torch.allclose(first[0, 10:], second[0, 10:], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(first[0, :10], second[0, :10])


def test_a_mask_for_all_rows_is_each_rows_own() -> None:
    """A causal mask given for the whole batch, and one a row, bool or added, against no mask at all."""
    ids, causal = text_rows(), torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None]
    added = torch.zeros(1, 1, TOKENS, TOKENS, dtype=torch.float64).masked_fill(~causal, float("-inf"))
    model = small_model("LlamaForCausalLM")
    dropping = drop(model)
    expected = model(ids).logits
    for mask in (causal, causal.expand(3, 1, -1, -1), causal.expand(3, 4, -1, -1), added):
        dropping.step = STEP
        assert torch.allclose(model(ids, attention_mask=mask).logits, expected, rtol=1e-11, atol=1e-11)


def refused(call) -> str:
    with pytest.raises(UserError) as found:
        call()
    assert "\n" not in str(found.value)
    return str(found.value)


def test_mistakes_are_told_in_one_line() -> None:
    other = nn.Sequential(nn.ModuleList([nn.Linear(2, 2)]))
    assert "lists hold Linear" in refused(lambda: drop(other))
    model = small_model("GPT2LMHead")
    assert "minimum 30 is above maximum 24" in refused(lambda: drop(model, kept=30))
    assert "outside 0-3" in refused(lambda: drop(model, layers="1-4"))
    assert "rising numbers" in refused(lambda: drop(model, layers="4-1"))
    assert "rank 2 is none of 2" in refused(lambda: drop(model, rank=2, ranks=2))
    dropping = drop(model, layers="1-2")
    assert "remove() that first" in refused(lambda: drop(model))
    ids = text_rows()
    cache = model.eval()(ids, use_cache=True).past_key_values
    model.train()
    assert "cached tokens" in refused(lambda: model(ids, past_key_values=cache))
    assert "call eval() before it generates" in refused(lambda: model.generate(ids, max_new_tokens=2))
    dropping.remove()
    again = drop(model, layers="1-2")
    dropping.remove()  # what another one has set up since stays
    assert "remove() that first" in refused(lambda: drop(model))
    again.remove()
    two = nn.ModuleDict({"a": small_model("BertForMaskedLM"), "b": small_model("BertForMaskedLM")})
    assert "2 lists of layers" in refused(lambda: drop(two))


def test_layers_of_your_own_are_named() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(5, 5)

        def forward(self, hidden_states: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
            return hidden_states + self.up(hidden_states)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(3))

        def forward(self, x: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x, table)
            return x

    model, x = Model(), torch.randn(2, TOKENS, 5)
    drop(model, layers=(1,), layer_types=["Layer"])
    changed = (model(x) != model.layers[2](model.layers[0](x))).any(-1)
    assert changed.sum(1).tolist() == [KEPT, KEPT]
    assert "table along the sequence" in refused(lambda: model(x, torch.ones(TOKENS, TOKENS)))


def test_flash_attention_gets_no_positions_and_is_refused_what_it_would_lose() -> None:
    """Its arguments alone: the kernel itself needs a GPU."""
    kept, x = torch.tensor([[1, 4, 9]]), torch.randn(1, TOKENS, 32, dtype=torch.float64)
    model = small_model("MistralForCausalLM")
    model.config._attn_implementation = "flash_attention_2"
    layer, places = layers_of(model)[1], torch.arange(TOKENS)[None]
    assert "window or packed rows" in refused(
        lambda: kept_arguments(layer, [x], {"position_ids": places}, kept)
    )
    model = small_model("LlamaForCausalLM")
    model.config._attn_implementation = "flash_attention_2"
    layer, mask = layers_of(model)[1], padding("right")[1:2]
    args, named = kept_arguments(layer, [x], {"position_ids": places, "attention_mask": mask}, kept)
    assert torch.equal(args[0], x[:, [1, 4, 9]]) and named["position_ids"] is None
    assert torch.equal(named["attention_mask"], mask[:, [1, 4, 9]])
    packed = torch.cat([torch.arange(10), torch.arange(14)])[None]
    assert "packed rows" in refused(lambda: kept_arguments(layer, [x], {"position_ids": packed}, kept))
    assert "cu_seq_lens_q" in refused(lambda: kept_arguments(layer, [x], {"cu_seq_lens_q": mask}, kept))


def test_a_mask_by_position_is_seen_as_one_by_its_name() -> None:
    """As loops call model(input_ids, attention_mask)."""
    model = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=50, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
        )
    ).train()
    dropping, found = drop(model, 16, 4), []
    ids, mask = torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64)
    mask[:, :10] = 0
    for args, named in (((ids, mask), {}), ((ids,), {"attention_mask": mask})):
        dropping.step = STEP
        model(*args, **named)
        found.append(dropping._kept)
    assert torch.equal(*found) and int(found[0].min()) >= 10


def test_a_step_that_is_forgotten_is_told_once() -> None:
    """Kept lengths would stay the shortest for the whole run, as in a Trainer without the callback."""
    model, ids = small_model("GPT2LMHead"), text_rows()
    dropping, optimizer = drop(model), torch.optim.SGD(model.parameters(), lr=0.1)

    def train(steps: list[int]) -> list[str]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for number in steps:
                if number:
                    dropping.step = number
                for _ in range(2):  # the micro-batches of a step
                    model(ids, labels=ids).loss.backward()
                optimizer.step()
        return [str(one.message) for one in told if "random-LTD" in str(one.message)]

    assert train([1, 2, 3]) == []
    (line,) = train([4, 0, 0])
    assert "the step is still 4" in line
