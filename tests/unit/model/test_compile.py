"""A block compiles as one graph: with dropout, token dropping, documents and rotary positions on, nothing
breaks it, and layers share graphs."""

import pytest
import torch

from megatron.model.context import Context, make_context
from megatron.model.dropout import token_keys
from megatron.model.random_ltd import through_kept
from megatron.model.rotary import rotary_table
from megatron.parallel.mesh import CPU
from tests.support.models import HIDDEN, LENGTH, loss_of, make_model, random_batch

DROPOUT = "--hidden-dropout 0.1 --attention-dropout 0.1 "
LLAMA = (
    "--position-embedding-type rope --normalization RMSNorm --swiglu "
    "--group-query-attention --num-query-groups 2 "
)
KEPT = torch.arange(0, LENGTH, 2).expand(3, -1)


def context(documents: bool, rotary: bool) -> Context:
    starts = torch.where(torch.arange(LENGTH) >= 15, 15, 0).expand(3, -1) if documents else None
    table = rotary_table(LENGTH, 12, 10000.0)[None] if rotary else None
    keys = token_keys(torch.tensor(3), torch.arange(3), LENGTH)
    return make_context(LENGTH, table, starts, keys, CPU)


@pytest.mark.parametrize("flags", [DROPOUT, DROPOUT + LLAMA, DROPOUT + "--attention-backend fused"])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("kept", [None, KEPT])
def test_a_block_is_one_graph(flags: str, documents: bool, kept: torch.Tensor | None) -> None:
    torch._dynamo.reset()
    layer = make_model(flags).layers["1"]
    given = context(documents, "rope" in flags)
    x = torch.randn(3, LENGTH, HIDDEN, dtype=torch.float64)

    def run(x: torch.Tensor) -> torch.Tensor:
        return layer(x, given) if kept is None else through_kept(layer, x, given, kept)

    found = torch._dynamo.explain(run)(x)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
    if "fused" not in flags:
        assert torch.equal(torch.compile(run, backend="eager", fullgraph=True)(x), run(x))


def test_the_whole_model_and_its_loss_are_one_graph() -> None:
    torch._dynamo.reset()
    model, batch = make_model(DROPOUT + LLAMA, dropping=(1,)), random_batch()
    batch = batch._replace(kept=KEPT[None])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(loss_of(compiled, batch, 3), loss_of(model, batch, 3), rtol=1e-12, atol=0)
    loss_of(compiled, batch, 3).backward()
    mine = {name.removeprefix("_orig_mod."): one.grad for name, one in compiled.named_parameters()}
    again = make_model(DROPOUT + LLAMA, dropping=(1,))
    loss_of(again, batch, 3).backward()
    for name, one in again.named_parameters():
        torch.testing.assert_close(mine[name], one.grad, rtol=1e-11, atol=1e-13)


def test_layers_share_their_graphs() -> None:
    """Salts are tensors, not numbers in the code, so that a graph made for one layer serves the others."""
    torch._dynamo.reset()
    layers, graphs = make_model(DROPOUT).layers, []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    x, given = torch.randn(3, LENGTH, HIDDEN, dtype=torch.float64), context(False, False)
    for layer in layers.values():
        torch.compile(layer, backend=count, fullgraph=True)(x, given)
    assert len(graphs) == 1
