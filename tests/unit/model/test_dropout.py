"""Keyed dropout: the right share, independent bits, and the same bit wherever and whenever a token is
computed."""

from itertools import product

import torch

from megatron.base.keys import key
from megatron.model.context import make_context
from megatron.model.dropout import drop, drop_attention, salt, token_keys
from megatron.parallel.mesh import CPU
from tests.support.models import LENGTH, VOCAB, loss_of, make_model, make_moved_model, random_batch


def fmix64(x: int) -> int:
    """MurmurHash3's finaliser in whole numbers."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ x >> 33) * factor % 2**64
    return x ^ x >> 33


def fmix32(x: int) -> int:
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def stays(bits: int, probability: float) -> bool:
    """Whether these 32 bits keep their element: read as a signed number, they fall on one side."""
    number = fmix32(bits % 2**32)
    signed = number - 2**32 if number >= 2**31 else number
    return signed >= (probability - 0.5) * 2**32


def token(step: int, row: int, place: int) -> int:
    return fmix64((step + (row << 32) + place) % 2**64)


def test_every_bit_is_the_hash_of_its_place_in_whole_numbers():
    """Checkpoints go on with the bits that they began with, so these may never change."""
    step, rows, length, channels, heads = -(2**62) + 5, [3, 70000], 5, 6, 3
    keys = token_keys(torch.tensor(step), torch.tensor(rows), length)
    assert [[one % 2**64 for one in row] for row in keys.tolist()] == [
        [token(step, row, place) for place in range(length)] for row in rows
    ]
    site, first = key("mlp output", 2), [key("attention", 2, head) for head in range(heads)]
    found = drop(torch.ones(2, length, channels), 0.4, keys, salt("mlp output", 2)) > 0
    for (b, row), t, c in product(enumerate(rows), range(length), range(channels)):
        assert found[b, t, c] == stays(fmix64(token(step, row, t) ^ site) + c * 0x9E3779B9, 0.4)
    salts = torch.stack([salt("attention", 2, head) for head in range(heads)])
    found = (
        drop_attention(torch.ones(2, heads, length, length), 0.4, keys, keys, salts, salt("mlp output", 2))
        > 0
    )
    for (b, row), h, q, k in product(enumerate(rows), range(heads), range(length), range(length)):
        query, other = fmix64(token(step, row, q) ^ first[h]), fmix64(token(step, row, k) ^ site)
        assert found[b, h, q, k] == stays(query + other, 0.4)


def test_share_and_scale():
    keys = token_keys(torch.tensor(11), torch.arange(32), 64)
    for probability in (0.05, 0.1, 0.5):
        y = drop(torch.ones(32, 64, 128), probability, keys, salt("site", 0))
        count, share = y.numel(), (y == 0).double().mean().item()
        assert abs(share - probability) < 5 * (probability * (1 - probability) / count) ** 0.5
        assert torch.allclose(y[y > 0], torch.tensor(1 / (1 - probability)))


def test_bits_do_not_go_together():
    """Correlations between neighbours in channel, token, row, layer and site stay within 5 standard
    errors."""
    keys = token_keys(torch.tensor(3), torch.arange(16), 128)
    first = (drop(torch.ones(16, 128, 64), 0.3, keys, salt("a", 0)) == 0).double() - 0.3
    others = {
        "layer": (drop(torch.ones(16, 128, 64), 0.3, keys, salt("a", 1)) == 0).double() - 0.3,
        "site": (drop(torch.ones(16, 128, 64), 0.3, keys, salt("b", 0)) == 0).double() - 0.3,
        "step": (
            drop(
                torch.ones(16, 128, 64), 0.3, token_keys(torch.tensor(4), torch.arange(16), 128), salt("a", 0)
            )
            == 0
        ).double()
        - 0.3,
        "row": first.roll(1, 0),
        "token": first.roll(1, 1),
        "channel": first.roll(1, 2),
    }
    for name, other in others.items():
        correlation = (first * other).mean().item() / 0.21
        assert abs(correlation) < 5 / first.numel() ** 0.5, name


def test_a_bit_follows_its_token():
    keys = token_keys(torch.tensor(3), torch.tensor([4, 9]), 32)
    x = torch.randn(2, 32, 16)
    whole = drop(x, 0.2, keys, salt("a", 2))
    assert torch.equal(
        drop(x[1:], 0.2, token_keys(torch.tensor(3), torch.tensor([9]), 32), salt("a", 2)), whole[1:]
    )
    some = torch.tensor([1, 5, 30])
    assert torch.equal(drop(x[:, some], 0.2, keys[:, some], salt("a", 2)), whole[:, some])


def test_attention_dropout_has_the_right_share_and_follows_its_tokens():
    keys = token_keys(torch.tensor(3), torch.arange(4), 64)
    salts = torch.stack([salt("attention", 1, head) for head in range(3)]), salt("attention key", 1)
    y = drop_attention(torch.ones(4, 3, 64, 64), 0.1, keys, keys, *salts)
    assert abs((y == 0).double().mean().item() - 0.1) < 5 * (0.09 / y.numel()) ** 0.5
    some = torch.tensor([0, 7, 33])
    part = drop_attention(torch.ones(4, 3, 3, 3), 0.1, keys[:, some], keys[:, some], *salts)
    assert torch.equal(part, y[:, :, some][..., some])
    assert not torch.equal(y[:, 0], y[:, 1])


def test_a_model_drops_embeddings_and_both_updates_of_every_layer():
    """By hand from its parts; the sites have salts of their own, by layer."""
    model, batch = make_moved_model("--hidden-dropout 0.3"), random_batch()
    keys = token_keys(torch.tensor(5), batch.rows, LENGTH)
    x = model.word_embeddings.weight[batch.tokens] + model.position_embeddings.weight[:LENGTH]
    x = drop(x, 0.3, keys, salt("embedding", 0))
    for number, layer in enumerate(model.layers.values()):
        update = layer.attention(layer.attention_norm(x), make_context(x.shape[1], CPU))
        x = x + drop(update, 0.3, keys, salt("attention output", number))
        x = x + drop(layer.mlp(layer.mlp_norm(x)), 0.3, keys, salt("mlp output", number))
    logits = model.final_norm(x) @ model.word_embeddings.weight[:VOCAB].T
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss_of(model, batch, 5), wanted, rtol=1e-12, atol=0)


def test_nothing_is_dropped_in_evaluation():
    model, batch = make_model("--hidden-dropout 0.5 --attention-dropout 0.5"), random_batch()
    plain = loss_of(model, batch)
    model.eval()
    torch.testing.assert_close(loss_of(model, batch, 1), plain, rtol=1e-12, atol=0)
