"""The chunked head against PyTorch's cross-entropy over full logits."""

import pytest
import torch
import torch.nn.functional as F

from megatron.parallel import cross_entropy
from megatron.parallel.cross_entropy import cross_entropy_sum, token_losses, token_scores


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 37 * 20, 1 << 23])
def test_sum_and_gradients_equal_full_logits(monkeypatch, chunk_bytes):
    monkeypatch.setitem(cross_entropy.CHUNK_BYTES, "cpu", chunk_bytes)
    monkeypatch.setattr(cross_entropy, "LEAST_ROWS", 3)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(53, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    head = torch.randn(37, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(37, (53,), generator=generator)
    weights = torch.rand(53, dtype=torch.float64, generator=generator)
    (cross_entropy_sum(hidden, head, labels, weights, scale=0.35) * 2).backward()
    mine = (hidden.grad, head.grad)
    hidden.grad = head.grad = None
    losses = F.cross_entropy(hidden @ head.T, labels, reduction="none")
    ((losses * weights).sum() * 0.7).backward()
    torch.testing.assert_close(mine[0], hidden.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mine[1], head.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(token_losses(hidden, head, labels), losses.detach(), rtol=1e-12, atol=1e-14)


def test_rows_past_the_vocabulary_do_not_count():
    hidden, head = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    labels = torch.arange(6)
    loss = cross_entropy_sum(hidden, head, labels, vocab_size=7)
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ head[:7].T, labels, reduction="sum"))
    torch.testing.assert_close(token_losses(hidden, head, labels, 7).sum(), loss.detach())
    loss.backward()
    assert head.grad is not None and head.grad[:7].any() and not head.grad[7:].any()


def test_large_logits_do_not_overflow():
    hidden, head = torch.full((1, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    assert cross_entropy_sum(hidden, head, torch.tensor([1])).item() == 2e4


def test_gradcheck():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    head = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 3, 1, 1, 2])
    assert torch.autograd.gradcheck(lambda h, w: cross_entropy_sum(h, w, labels), (hidden, head))


def test_a_bias_of_the_logits_and_what_was_told_right():
    generator = torch.Generator().manual_seed(3)
    hidden, head, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((41, 6), (23, 6), (23,))
    )
    labels, weights = torch.randint(19, (41,), generator=generator), torch.rand(41, generator=generator)
    loss = cross_entropy_sum(hidden, head, labels, weights.double(), 19, 0.5, bias_V=bias)
    loss.backward()
    mine = [one.grad for one in (hidden, head, bias)]
    for one in (hidden, head, bias):
        one.grad = None
    logits = hidden @ head[:19].T + bias[:19]
    wanted = (F.cross_entropy(logits, labels, reduction="none") * weights).sum() * 0.5
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    for found, one in zip(mine, (hidden, head, bias)):
        torch.testing.assert_close(found, one.grad, rtol=1e-12, atol=1e-14)
    losses, right = token_scores(hidden, head, labels, 19, bias_V=bias)
    torch.testing.assert_close(losses, F.cross_entropy(logits, labels, reduction="none").detach())
    assert torch.equal(right, logits.argmax(-1) == labels)
