"""What a rank holds, in closed form: against tensors that have a shape and no content, and against the counts
of arXiv 2205.05198."""

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from megatron.model.experts import Experts
from megatron.model.inputs import BertInputs, GPTInputs
from megatron.model.memory import kept, layer_kept, states, working
from megatron.model.share import Batch, Parameters, Share, elements, stage_parameters
from megatron.parallel.deferred import Deferred
from megatron.parallel.layout import Layout
from megatron.parallel.stages import Stage
from megatron.tasks.architecture import gpt_architecture
from megatron.tasks.tasks import TASKS
from tests.support.configurations import make_config
from tests.support.live import Live

LAYERS, ROWS, LENGTH, VOCABULARY = 4, 2, 256, 1000
SHAPE = f"--num-layers {LAYERS} --hidden-size 256 --num-attention-heads 8 --seq-length {LENGTH} "
UNDROPPED = "--hidden-dropout 0 --attention-dropout 0 "
FULL = "--recompute-granularity full "
MIXTURE = "--num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 256 "


class Case(NamedTuple):
    """Flags, and whether documents stay apart, tokens are dropped, or the vocabulary needs several chunks;
    the task."""

    flags: str = ""
    documents: bool = False
    dropping: tuple[int, ...] = ()
    vocabulary: int = VOCABULARY
    task: str = "gpt"


CASES = {
    "no dropout": Case(UNDROPPED),
    "bf16": Case(UNDROPPED + "--bf16"),
    "dropout of hidden states": Case("--attention-dropout 0"),
    "experts": Case(UNDROPPED + MIXTURE),
    "experts, gated, shared": Case(
        UNDROPPED + MIXTURE + "--swiglu --moe-layer-freq 2 --moe-shared-expert-intermediate-size 128"
    ),
    "dropout": Case(),
    "dropout, bf16": Case("--bf16"),
    "explicit": Case(UNDROPPED + "--attention-backend unfused"),
    "explicit, bf16": Case(UNDROPPED + "--attention-backend unfused --bf16"),
    "selective": Case("--recompute-granularity selective"),
    "full": Case(UNDROPPED + FULL),
    "full, in runs": Case(FULL + "--recompute-num-layers 2"),
    "full, a block": Case(UNDROPPED + FULL + "--recompute-method block --recompute-num-layers 2"),
    "llama": Case(UNDROPPED + "--swiglu --normalization RMSNorm --position-embedding-type rope"),
    "RMSNorm, bf16": Case(UNDROPPED + "--normalization RMSNorm --bf16"),
    "squared ReLU": Case(UNDROPPED + "--squared-relu"),
    "groups": Case(UNDROPPED + "--group-query-attention --num-query-groups 2"),
    "no biases": Case(UNDROPPED + "--disable-bias-linear"),
    "untied": Case(UNDROPPED + "--untie-embeddings-and-output-weights"),
    "documents": Case(UNDROPPED, documents=True),
    "documents, dropout": Case(documents=True),
    "random-LTD": Case(UNDROPPED, dropping=(1, 2)),
    "random-LTD, dropout, full": Case(FULL, dropping=(1, 2)),
    "several chunks of logits": Case(UNDROPPED, vocabulary=20_000),
    "several chunks of logits, bf16": Case(UNDROPPED + "--bf16", vocabulary=20_000),
}
MODERN = (
    "--position-embedding-type rope --local-rotary-base 90 --geglu --disable-bias-linear --disable-norm-bias "
    "--embedding-norm --bert-no-binary-head --mask-prob 0.3 "
)
WINDOWS = "--window-size 32,32 --window-attn-skip-freq [0,1,1,0] "
FIRST = "--apply-residual-connection-post-layernorm "
CASES |= {
    name: one._replace(task="bert")
    for name, one in {
        "BERT": Case(FIRST + UNDROPPED),
        "BERT, dropout": Case(FIRST),
        "BERT, bf16": Case(FIRST + UNDROPPED + "--bf16"),
        "BERT, full": Case(FIRST + FULL),
        "BERT, random-LTD": Case(FIRST + UNDROPPED, dropping=(1, 2)),
        "BERT, several chunks": Case(FIRST + UNDROPPED + "--mask-prob 0.6", vocabulary=20_000),
        "BERT, several chunks, bf16": Case(FIRST + UNDROPPED + "--mask-prob 0.6 --bf16", vocabulary=20_000),
        "modern": Case(MODERN + UNDROPPED),
        "modern, windows": Case(MODERN + WINDOWS + UNDROPPED),
        "modern, windows, packed": Case(MODERN + WINDOWS + UNDROPPED, documents=True),
        "modern, windows, packed, bf16": Case(MODERN + WINDOWS + UNDROPPED + "--bf16", documents=True),
        "modern, windows, dropout": Case(MODERN + WINDOWS),
        "modern, windows, random-LTD": Case(MODERN + WINDOWS + UNDROPPED, dropping=(1, 2)),
        "modern, packed, dropout": Case(MODERN, documents=True),
    }.items()
}


def fed(case: Case) -> GPTInputs | BertInputs:
    """Rows for a case's model, without content; of an encoder's, every row is padded."""
    tokens, rows = torch.zeros(ROWS, LENGTH, dtype=torch.int64), torch.arange(ROWS)
    few = torch.zeros(len(case.dropping), ROWS, LENGTH // 4, dtype=torch.int64) if case.dropping else None
    starts = tokens if case.documents else None
    if case.task == "gpt":
        return GPTInputs(tokens, tokens, rows, kept=few, document_starts=starts)
    told = torch.zeros(math.ceil(make_config(case.flags).bert.mask_prob * ROWS * LENGTH), dtype=torch.int64)
    pairs: dict[str, Any] = {"types": tokens, "firsts": rows, "pairs": rows, "pair_weights": rows}
    packed: dict[str, Any] = {"rows": tokens, "positions": tokens, "starts": starts, "ends": tokens}
    return BertInputs(
        tokens=tokens,
        masked=told,
        labels=told,
        weights=told,
        kept=few,
        padded_kept=bool(case.dropping),
        **({} if "--bert-no-binary-head" in case.flags else pairs),
        **(packed if case.documents else {"rows": rows, "ends": rows[:, None]}),
    )


def counted(case: Case) -> tuple[int, int, int]:
    """Elements of the parameters; bytes that a forward pass leaves; the most there are beside weights and
    gradients."""
    config, inputs = make_config(SHAPE + case.flags), fed(case)
    with FakeTensorMode() as fake, Live() as live:
        model = TASKS[case.task].build_model(config, case.vocabulary, case.dropping).train()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for module in model.modules():
            if isinstance(module, Experts):  # as in a run
                module.deferred = Deferred(lambda _: None)
        before = live.now
        shapes: Any = [fake.from_tensor(one) if torch.is_tensor(one) else one for one in inputs]
        losses = model(type(inputs)(*shapes), torch.zeros((), dtype=torch.int64))
        left = live.now - before
        torch.autograd.backward(list(losses.values()))
        return sum(one.numel() for one in model.parameters()), left, live.most - before


def reckoned(case: Case) -> tuple[int, int, int]:
    """The same in closed form."""
    architecture = TASKS[case.task].architecture(make_config(SHAPE + case.flags), case.vocabulary)
    share, stage = Share(architecture, dropping=case.dropping), Stage(range(LAYERS))
    batch = Batch(ROWS, LENGTH, LENGTH // 4 if case.dropping else LENGTH)
    left = sum(kept(share, stage, batch, documents=case.documents))
    most = left + working(share, stage, batch, documents=case.documents)
    return elements(stage_parameters(share, stage)), left, most


@pytest.mark.parametrize("name", CASES)
def test_one_rank_against_its_tensors(name: str) -> None:
    parameters, left, most = reckoned(CASES[name])
    wanted = counted(CASES[name])
    assert parameters == wanted[0]
    routing = 2 if "experts" in name else 1  # small tensors of which some are left out
    assert left == pytest.approx(wanted[1], rel=0.01 * routing)
    assert most == pytest.approx(wanted[2], rel=0.03 * routing)


@pytest.mark.parametrize("tensor", [1, 2, 8])
@pytest.mark.parametrize("heads", [8, 32])
def test_a_layer_keeps_what_the_paper_counts(tensor: int, heads: int) -> None:
    """sbh(10 + 24/t + 5as/ht) (equation 2) of 2 bytes an element. Here softmax stays in single precision, 2
    more a score; there are statistics of the norms, and weights of 4 bytes have copies of 2."""
    flags = f"--num-layers 2 --hidden-size 1024 --num-attention-heads {heads} --seq-length 512 --bf16 "
    rows, length, hidden = 2, 512, 1024
    sbh, scores = rows * length * hidden, rows * heads * length * length
    copies = 2 * 12 * hidden * hidden // tensor
    for selective in ("", "--recompute-granularity selective"):
        architecture = gpt_architecture(make_config(flags + selective), VOCABULARY)
        share = Share(architecture, Layout(tensor=tensor))
        extra = copies + 2 * 8 * rows * length
        explicit = 0 if selective else 7 * scores // tensor + length * length
        assert layer_kept(share, rows, length) == sbh * 10 + sbh * 24 // tensor + explicit + extra
        parted = Share(architecture, Layout(tensor=tensor, sequence_parallel=True))
        extra = copies + 2 * 8 * rows * length // tensor
        gathered = 4 * sbh - 4 * sbh // tensor  # what goes into the matrices is kept whole
        assert layer_kept(parted, rows, length) == sbh * 34 // tensor + gathered + explicit + extra


def test_replicas_share_by_rows() -> None:
    parameters = [Parameters(10, 4), Parameters(3, 1, copies=2)]
    whole, part = 46 * 4, (3 * 4 + 2 * 1) * 4  # of 10 and 3 rows the first of four has 3 and 1
    architecture, four = (
        gpt_architecture(make_config(SHAPE), VOCABULARY),
        Layout(data=4, context=2, instances=2),
    )
    for stage, held, moments in ((0, whole, whole), (1, whole, part), (2, part, part), (3, part, part)):
        share = Share(architecture, four, zero_stage=stage)
        assert states(share, parameters) == (held, held, 2 * moments)
    alone = Share(architecture, zero_stage=3)
    assert states(alone, parameters) == (whole, whole, 2 * whole)
