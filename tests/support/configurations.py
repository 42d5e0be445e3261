"""What many tests need: a resolved configuration from a line of flags, or what is wrong with one."""

import shlex
from collections.abc import Iterable

from megatron.base.errors import UserError
from megatron.config.arguments import understand
from megatron.config.config import RULES, Config, Rule, complete
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import Plan, build_plan
from megatron.tasks.architecture import gpt_flops

SMALL = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 128 --micro-batch-size 2 "
    "--lr 1e-3 --mock-data --vocab-size 100 "
)
STOP = "--train-iters 100 "
GPT_1B = (
    "--num-layers 24 --hidden-size 2048 --num-attention-heads 16 --seq-length 2048 --micro-batch-size 8 "
    "--global-batch-size 512 "
    "--lr 2e-4 --min-lr 1e-6 --lr-decay-style cosine --lr-warmup-tokens 3e9 "
)


def make_config(flags: str, ranks: int = 1, rules: Iterable[Rule] = ()) -> Config:
    """A small model's configuration, changed by `flags` (a later flag wins) and resolved for so many
    data-parallel ranks. Without `rules` it may be part of one, such as without a stop."""
    values, problems = understand(Config, shlex.split(SMALL + flags), foreign=FOREIGN_FLAGS)
    return complete(Config, values, problems, ranks, rules)


def problems_of(flags: str, ranks: int = 1, rules: Iterable[Rule] = RULES) -> list[str]:
    """What is wrong with these flags."""
    try:
        make_config(flags, ranks, rules)
    except UserError as error:
        return list(error.problems)
    return []


def make_plan(config: Config, efficiency: DataEfficiency, vocab_size: int = 0) -> Plan:
    """The plan of a GPT's run."""
    return build_plan(config, efficiency, gpt_flops(config, efficiency, vocab_size))
