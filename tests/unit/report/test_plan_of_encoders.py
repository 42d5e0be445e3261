"""tools/plan_run.py of encoders: BERT-large as published (arXiv 2212.03597 and 2211.11586), and which task a
command is of."""

import json
from pathlib import Path

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.config.config import RULES
from megatron.report.cost import Machines
from megatron.report.suggest import flags_of, suggestions
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan, build_plan, fullest_step
from megatron.tasks.bert import BERT_TASK
from megatron.tasks.tasks import task_of
from scripts.price_table import PAGE
from tests.support.configurations import make_config, problems_of
from tools import plan_run

LARGE = (
    "--num-layers 24 --hidden-size 1024 --num-attention-heads 16 --seq-length 512 --micro-batch-size 16 "
    "--global-batch-size 1024 --min-lr 1e-5 --lr-warmup-iters 10000 --lr-decay-style linear "
    "--vocab-size 30522 --make-vocab-size-divisible-by 1 "
)
STEP = 1024 * 512
"""Tokens of a full step."""
BASELINES = {2_000_000: (1049, 1e-4), 1_340_000: (703, 1.5e-4), 1_000_000: (524, 2e-4)}
"""Billions of tokens and peak rates by steps."""
GROWN = {2_000_000: 960_000, 1_340_000: 640_000, 1_000_000: 480_000}
"""Steps of the curriculum."""
SMALL = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 128 --micro-batch-size 2 "
    "--global-batch-size 16 --lr 1e-3 --train-iters 4 --vocab-size 500 "
)


def planned(flags: str) -> Plan:
    """The plan of an encoder's run."""
    config = make_config(flags)
    efficiency, _ = describe(config)
    return build_plan(config, efficiency, BERT_TASK.row_flops(config, efficiency, 30_522))


def recipe(steps: int, curriculum: bool, dropping: bool) -> str:
    """The flags of a case: durations are in proportion to the steps of its baseline."""
    flags = f"{LARGE} --lr {BASELINES[steps][1]} --train-tokens {steps * STEP} "
    grows = GROWN[steps]
    if curriculum:
        flags += (
            f"--curriculum vocab_rarity:difficulty=percentile,min=5,max=100,pacing=fixed_root,root=2,"
            f"duration={grows} --curriculum seqlen_truncate:min=128,max=512,duration={grows},quantum=8 "
        )
    return flags + (f"--random-ltd --random-ltd-min 128 --random-ltd-duration {steps} " if dropping else "")


def by_hand(steps: int, curriculum: bool, dropping: bool) -> int:
    """Steps until as many layer tokens are computed as in the baseline, each sum written out."""
    number = np.arange(1, 2 * steps + 1)
    length = np.minimum(128 + 384 * number // GROWN[steps] // 8 * 8, 512) if curriculum else 512
    kept = np.minimum(128 + 384 * (number - 1) // steps // 16 * 16, length) if dropping else length
    tokens = np.cumsum(1024 * ((2 * length + 22 * kept) // 24) * np.ones_like(number))
    return int(np.searchsorted(tokens, steps * STEP)) + 1


@pytest.mark.parametrize(
    ("steps", "curriculum", "dropping"),
    [
        *((steps, False, False) for steps in BASELINES),
        (2_000_000, True, False),
        (1_340_000, False, True),
        (1_000_000, True, True),
    ],
)
def test_published_schedules(steps: int, curriculum: bool, dropping: bool) -> None:
    plan = planned(recipe(steps, curriculum, dropping))
    assert plan.steps == by_hand(steps, curriculum, dropping)
    assert f"| {plan.steps:,} |" in PAGE.read_text(encoding="utf-8")
    if not (curriculum or dropping):
        assert plan.steps == steps
    billions, rate = BASELINES[steps]
    assert round(plan.consumed_tokens[-1] / 1e9) == billions
    assert int(plan.learning_rate.argmax()) == 9_999 and plan.learning_rate.max() == pytest.approx(rate)
    assert plan.learning_rate[-1] == pytest.approx(1e-5)
    grown = GROWN[steps]
    if curriculum:
        ends = np.searchsorted(plan.sequence_length, 512), np.searchsorted(plan.caps["vocab_rarity"], 100)
        assert ends == (grown - 1, grown - 1)
        assert (plan.sequence_length[0], plan.caps["vocab_rarity"][0]) == (128, 5)
    if dropping:
        assert (plan.kept_length[0], np.searchsorted(plan.kept_length, 512)) == (128, steps)


@pytest.mark.parametrize(("first", "billions", "saved"), [(200, 48, 26.2), (128, 38, 31.1)])
def test_published_savings_of_dropping(first: int, billions: int, saved: float) -> None:
    """16 more tokens are kept after so many billions, of 1,049 (arXiv 2211.11586)."""
    duration = round((512 - first) / 16 * billions * 1e9 / STEP)
    flags = f"{LARGE} --lr 1e-4 --train-iters 2000000 --random-ltd --random-ltd-min {first} "
    plan = planned(f"{flags} --random-ltd-duration {duration}")
    share = plan.layer_tokens[-1] / (24 * plan.raw_tokens[-1])
    assert round(100 * (1 - share), 1) == saved


def test_parameters_of_bert_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """336 million, and to the last one those of transformers' BertForPreTraining of this shape."""
    flags = (
        f"{LARGE} --lr 1e-4 --train-iters 10 --lr-warmup-iters 1 --apply-residual-connection-post-layernorm"
    )
    plan_run.main(f"python pretrain_bert.py {flags}".split())
    assert "model: 336,226,108 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "asked", "name"),
    [
        ("--num-layers 2", None, "gpt"),
        ("--num-layers 2", "bert", "bert"),
        ("torchrun --nproc-per-node 2 pretrain_bert.py --lr 1", None, "bert"),
        ("python somewhere/pretrain_bert.py --lr 1", "bert", "bert"),
        ("--output x python pretrain_gpt.py --lr 1", None, "gpt"),
        ("python my_bert.py --lr 1", "bert", "bert"),
        ("python my_bert.py --lr 1", None, "gpt"),
    ],
)
def test_which_task_a_command_is_of(words: str, asked: str | None, name: str) -> None:
    assert task_of(words.split(), asked, {}).name == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task gpt python pretrain_bert.py", "--task gpt: the command starts pretrain_bert.py; leave one"),
        ("--task bert torchrun pretrain_gpt.py", "--task bert: the command starts pretrain_gpt.py"),
        (
            "--mask-prob 0.3 --bert-passes 2",
            "--bert-passes, --mask-prob: belongs to pretrain_bert.py; give --task bert, or leave it out",
        ),
        ("--num-classes 10", "--num-classes: belongs to pretrain_vit.py; give --task vit, or leave it out"),
        ("--task gpt --mask-prob 0.3", "--mask-prob: belongs to pretrain_bert.py; leave it out"),
        ("pretrain_gpt.py --mask-prob 0.3", "--mask-prob: belongs to pretrain_bert.py; leave it out"),
        (
            "--task bert --num-experts 4",
            "--num-experts: mixtures of experts are built by pretrain_gpt.py alone",
        ),
        (
            "--task bert --curriculum seqlen_reshape:min=16,max=128,duration=2,quantum=8",
            "take seqlen_truncate with pretrain_bert.py",
        ),
        ("--task t5", "--task t5"),
    ],
)
def test_mistakes_are_told(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_run.main([*words.split(), *SMALL.split()])


def test_suggestions_take_no_ring() -> None:
    """They are commands that training takes."""
    config = make_config(SMALL)
    efficiency, _ = describe(config)
    plan = planned(SMALL)
    machines = Machines(peak=1e12, efficiency=0.5, inside=4e9, between=1e9, ranks_a_node=4)
    found = suggestions(BERT_TASK, config, efficiency, 500, plan, fullest_step(plan), 8, machines, "cuda")
    assert len(found) > 50 and {one.layout.context for one in found} == {1, 2, 4, 8}
    for one in found:
        flags = flags_of(one)
        assert (one.layout.context > 1) == ("--cp-comm-type allgather" in flags)
        assert not problems_of(SMALL + flags, one.layout.data, [*RULES, *BERT_TASK.rules])


def test_flops_are_those_of_the_task(tmp_path: Path) -> None:
    """Twice the attention of a GPT, logits and their transform of 15 % of its tokens, and a head over
    pairs."""
    plan_run.main([*f"--task bert {SMALL}".split(), "--output", str(tmp_path)])
    layers, told = 6 * 128 * 12 * 64 * 64 * 4 + 12 * 64 * 128**2 * 4, 0.15 * 128
    row = layers + 6 * told * (64 * 500 + 64 * 64) + 6 * 64 * 66
    assert json.loads((tmp_path / "plan.json").read_text())["flops"] == pytest.approx(4 * 16 * row)
