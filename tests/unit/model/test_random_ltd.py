"""Token dropping: exact gradients, bypassed tokens untouched, and everything that belongs to a token goes
with it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from megatron.model.context import Context, Sight, context_of_kept, make_context
from megatron.model.random_ltd import through_kept
from megatron.model.rotary import rotary_table
from megatron.parallel.mesh import CPU
from tests.support.models import LENGTH, loss_of, make_model, random_batch

PLAIN = Context(0)


def kept_positions(layers: int, rows: int, length: int, kept: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(layers, rows, length, generator=generator).argsort(-1)[..., :kept]
    return order.sort(-1).values


def test_gradients_are_exact():
    inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    kept = kept_positions(1, 2, 6, 3)[0]
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: through_kept(lambda y, _: y + inner(y), x, PLAIN, kept), x)
    assert torch.autograd.gradgradcheck(lambda x: through_kept(lambda y, _: y + inner(y), x, PLAIN, kept), x)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.data())
def test_kept_tokens_are_computed_and_the_others_pass(length, rows, data):
    kept = kept_positions(1, rows, length, data.draw(st.integers(1, length)), data.draw(st.integers(0, 99)))[
        0
    ]
    x = torch.randn(rows, length, 5)
    y = through_kept(lambda part, _: part * 2 + 1, x, PLAIN, kept)
    chosen = torch.zeros(rows, length, dtype=torch.bool).scatter(1, kept, True)[..., None]
    assert torch.equal(y, torch.where(chosen, x * 2 + 1, x))


def test_keeping_every_token_is_bit_identical_to_off():
    batch = random_batch()
    everything = torch.arange(LENGTH).expand(2, 3, -1)
    for flags in ("", "--position-embedding-type rope --hidden-dropout 0.1 --attention-dropout 0.1"):
        on, off = make_model(flags, dropping=(0, 1)), make_model(flags)
        loss_of(on, batch._replace(kept=everything), 3).backward()
        loss_of(off, batch, 3).backward()
        for (name, first), second in zip(on.named_parameters(), off.parameters()):
            assert torch.equal(first.grad, second.grad), name


def test_dropping_one_layer_equals_running_it_on_the_kept_rows():
    """A model whose only dropping layer is the middle one, against the same computed by hand."""
    model, batch = make_model("--position-embedding-type rope", dropping=(1,)), random_batch()
    kept = kept_positions(1, 3, LENGTH, 17)
    loss = loss_of(model, batch._replace(kept=kept))
    rotary = rotary_table(LENGTH, 12, 10000.0)
    whole = make_context(LENGTH, CPU, rotary=rotary[None])
    x = model.layers["0"](model.word_embeddings(batch.tokens), whole)
    rows = []
    for row, places in enumerate(kept[0]):
        y = x[row].clone()
        y[places] = model.layers["1"](
            x[row, places][None], make_context(17, CPU, rotary=rotary[places][None])
        )[0]
        rows.append(y)
    x = model.final_norm(model.layers["2"](torch.stack(rows), whole))
    logits = x @ model.word_embeddings.weight[: model.vocab_size].T
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)


def test_evaluation_drops_nothing():
    model, batch = make_model("", dropping=(1,)), random_batch()
    dropped = batch._replace(kept=kept_positions(1, 3, LENGTH, 9))
    model.eval()
    assert torch.equal(loss_of(model, dropped), loss_of(model, batch))
    model.train()
    assert not torch.equal(loss_of(model, dropped), loss_of(model, batch))


def test_context_of_kept_tokens_is_their_own():
    starts = torch.tensor([[0, 0, 0, 3, 3, 5]])
    sight, keys = Sight(starts=starts), torch.arange(6)[None]
    context = make_context(6, CPU, sight, torch.arange(6.0).view(1, 6, 1, 1), keys)
    part = context_of_kept(context, torch.tensor([[0, 2, 3, 5]]))
    assert part.wide.rotary is not None and part.wide.rotary.flatten().tolist() == [0, 2, 3, 5]
    assert part.dropout_keys is not None and part.dropout_keys.tolist() == [[0, 2, 3, 5]]
    assert part.sight.starts is not None
    (whole,) = part.wide.parts
    assert whole.mask is not None and (whole.first, whole.end) == (0, 4)
    assert whole.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def test_parameter_names_do_not_know_of_dropping():
    assert [name for name, _ in make_model("", dropping=(1,)).named_parameters()] == [
        name for name, _ in make_model("").named_parameters()
    ]


def test_kept_tokens_of_an_encoder_see_what_is_near_in_their_text():
    """Whatever is dropped between them; padding is seen by itself alone."""
    generator = torch.Generator().manual_seed(4)
    kept = torch.stack([torch.randperm(20, generator=generator)[:9].sort().values for _ in range(3)])
    ends = torch.tensor([[20], [13], [7]])
    sight = Sight(False, ends=ends, places=torch.arange(20)[None], window=(3, 2), padded_kept=True)
    part = context_of_kept(make_context(20, CPU, sight), kept)
    (wide,), (near,) = part.wide.parts, part.near.parts
    for row in range(3):
        for query, place in enumerate(kept[row].tolist()):
            for key, other in enumerate(kept[row].tolist()):
                real = other < int(ends[row])
                assert bool(wide.mask.expand(-1, -1, 9, -1)[row, 0, query, key]) == real
                seen = (real and place - 3 <= other <= place + 2) or query == key
                assert bool(near.mask[row, 0, query, key]) == seen
    without = context_of_kept(make_context(20, CPU, sight._replace(padded_kept=False)), kept)
    assert without.wide.parts[0].mask is None, "no mask where no padding is kept"


def test_texts_that_share_a_row_do_not_see_each_other_when_tokens_are_dropped():
    starts = torch.tensor([[0] * 6 + [6] * 8 + [14] * 6])
    ends = torch.tensor([[6] * 6 + [14] * 8 + [20] * 6])
    places = torch.cat([torch.arange(6), torch.arange(8), torch.arange(6)])[None]
    kept = torch.tensor([[1, 4, 5, 6, 9, 13, 15, 18]])
    sight = Sight(False, starts, ends, places, (2, 2))
    part = context_of_kept(make_context(20, CPU, sight), kept)
    of = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    assert torch.equal(part.wide.parts[0].mask[0, 0], of[:, None] == of)
    distance = (places[0, kept[0]][:, None] - places[0, kept[0]]).abs()
    assert torch.equal(part.near.parts[0].mask[0, 0], (of[:, None] == of) & (distance <= 2))
