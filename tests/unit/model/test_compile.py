"""Compiled layers: no break in a graph, few graphs however lengths change, and the same numbers."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from megatron.model.stack import compile_layers
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh
from megatron.train.setup import Run
from tests.support.configurations import STOP, problems_of
from tests.support.parity import BASE, LAYOUTS, MODELS, make_run, place_of, train_steps
from tests.support.ranks import run_layout

SMALL = BASE.replace("--num-layers 4", "--num-layers 3")
RECOMPUTED = "--recompute-granularity selective --recompute-num-layers 1 --recompute-method uniform "


def changes(run: Run) -> list[int]:
    """The first step of every pair of lengths, of rows and of kept tokens."""
    pairs = list(zip(run.plan.sequence_length.tolist(), run.plan.kept_length.tolist()))
    return [1 + pairs.index(pair) for pair in dict.fromkeys(pairs)]


def curve(mesh: Mesh, flags: str, replicas: int, backend: str | None) -> tuple[torch.Tensor, int]:
    """Losses and norms of steps of all lengths, and the graphs that they took."""
    torch._dynamo.reset()
    run = make_run(mesh, flags, torch.float32, replicas)
    counter = CompileCounterWithBackend(backend or "eager")
    if backend:
        for stage in run.stages:
            compile_layers(stage.layers, counter)
    return torch.cat([train_steps(run, number, number) for number in changes(run)]), counter.frame_count


@pytest.mark.parametrize("model", ["llama", "documents", "selective"])
def test_few_graphs_serve_all_lengths_and_have_the_numbers_of_none(model: str) -> None:
    """Curriculum, token dropping, dropout and masks are inside. Row counts change, too, where sequences are
    reshaped: then a static graph, and one each for what has changed since."""
    flags = SMALL + MODELS.get(model, MODELS["gpt"] + RECOMPUTED)
    ((wanted, _),), ((found, graphs),) = (
        run_layout(Layout(), curve, flags, 1, backend) for backend in (None, "aot_eager")
    )
    assert len(wanted) >= 6
    assert torch.equal(found, wanted)
    assert 1 < graphs <= (4 if model == "llama" else 2)


@pytest.mark.parametrize("layout", ["tp2+sp", "cp2 a2a", "zero-3 dp2"])
def test_collectives_are_inside_the_graph(layout: str) -> None:
    flags, place, replicas = place_of(LAYOUTS[layout])
    results = [
        run_layout(place, curve, SMALL + MODELS["gpt"] + flags, replicas, backend)
        for backend in (None, "eager")
    ]
    for (wanted, _), (found, graphs) in zip(*results):
        assert torch.equal(found, wanted)
        assert graphs == 2


def one_step(mesh: Mesh, flags: str) -> torch.Tensor:
    return train_steps(make_run(mesh, flags, torch.float32, 1), 1, 1)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_flag_compiles_for_this_machine() -> None:
    flags = SMALL.replace("--num-layers 3", "--num-layers 1").replace("--random-ltd ", "")
    (wanted,), (found,) = (run_layout(Layout(), one_step, flags + more) for more in ("", "--compile"))
    # sums in another order: losses of 50 tokens' logits over 32 channels err by a few roundings of fp32
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=0)


def test_what_is_no_graph_is_refused() -> None:
    def told(flags: str) -> list[str]:
        return problems_of(f"{STOP} --eval-iters 0 --compile {flags}")

    assert told("") == []
    assert told("--pipeline-model-parallel-size 2 --pipeline-schedule zero-bubble") == [
        "--compile does not go with --pipeline-schedule zero-bubble, which parts backward passes; take 1f1b, "
        "or leave --compile out"
    ]
    assert told("--context-parallel-size 2") == [
        "--compile does not go with --cp-comm-type p2p, whose ring is no graph; take allgather or a2a, or "
        "leave --compile out"
    ]
