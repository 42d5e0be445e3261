"""The whole configuration of a run: frozen dataclasses whose fields are the flags, under Megatron's names,
one file a group. Nothing here changes at run time.

A rule is a function that says what is wrong. Its parameters are the groups that it reads, by their names,
and `data_parallel_size`. It is left out where a value that it reads is missing or was refused.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from megatron.base.errors import UserError
from megatron.config import (
    bert,
    checkpoint,
    data,
    data_efficiency,
    experts,
    logging,
    model,
    optimizer,
    parallel,
    tokenizer,
    training,
)
from megatron.config.arguments import ask, build, follow, known, missing, understand
from megatron.config.bert import BertConfig, SentencesConfig
from megatron.config.checkpoint import CheckpointConfig
from megatron.config.data import DataConfig
from megatron.config.data_efficiency import DataEfficiencyConfig
from megatron.config.experts import ExpertsConfig
from megatron.config.flags import flag, spelling
from megatron.config.logging import LoggingConfig
from megatron.config.model import ModelConfig
from megatron.config.optimizer import OptimizerConfig
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.parallel import ParallelConfig
from megatron.config.scale import FULL, SCALES, scaled
from megatron.config.tokenizer import TokenizerOptions
from megatron.config.training import TrainingConfig
from megatron.config.values import Known, Unknown, flatten
from megatron.config.vision import VisionConfig

Rule = Callable[..., list[str]]

RULES: tuple[Rule, ...] = (
    *model.RULES,
    *data.RULES,
    *tokenizer.RULES,
    *training.RULES,
    *parallel.RULES,
    *optimizer.RULES,
    *data_efficiency.RULES,
    *experts.RULES,
    *bert.RULES,
    *checkpoint.RULES,
    *logging.RULES,
)


@dataclass(frozen=True)
class Config:
    """Everything a run depends on, apart from the number of ranks."""

    model: ModelConfig
    data: DataConfig
    tokenizer: TokenizerOptions
    training: TrainingConfig
    parallel: ParallelConfig
    optimizer: OptimizerConfig
    data_efficiency: DataEfficiencyConfig
    checkpoint: CheckpointConfig
    logging: LoggingConfig
    experts: ExpertsConfig = dataclasses.field(default_factory=ExpertsConfig)
    sentences: SentencesConfig = dataclasses.field(default_factory=SentencesConfig)
    bert: BertConfig = dataclasses.field(default_factory=BertConfig)
    vision: VisionConfig = dataclasses.field(default_factory=VisionConfig)
    config: str | None = flag(
        None,
        "YAML file of flags, which may include others; flags on the command line win",
        aliases=("--yaml-cfg",),
        metavar="FILE",
        resume="free",
        of_several="write a file that says include: [FILE, FILE]",
    )
    scale: str | None = flag(
        None,
        "the run of --config as a smaller one of the same shape: for two cores of a CPU, or for one GPU",
        choices=(FULL, *SCALES),
        otherwise="timm's --scale is --img-crop-scale, the least share, here",
        resume="free",
        rewrites=scaled,
    )
    scale_steps: float | None = flag(
        None,
        "with --scale: steps are divided by this instead of 200 (mini) or 10 (small)",
        above=0,
        resume="free",
    )


def configure(ranks: int = 1, **flags: Any) -> Config:
    """The configuration of these flags on so many data-parallel ranks, as from a command line: resolved
    and checked, UserError with every problem. None and empty lists stand for flags that are not given."""
    if not isinstance(ranks, int) or ranks < 1:
        raise UserError(f"ranks={ranks!r} must be a whole number of at least 1")
    words = [word for name, value in flags.items() for word in _words(name, value)]
    return complete(Config, *understand(Config, words, foreign=FOREIGN_FLAGS), ranks)


def complete(
    options: type,
    values: dict[str, Any],
    problems: Iterable[str] = (),
    data_parallel_size: int | None = None,
    rules: Iterable[Rule] = RULES,
) -> Any:
    """The resolved `options`, Config or a dataclass built on it, from values by flag name. UserError: the
    `problems` met before, what is missing, and every broken rule."""
    groups = known(options, values)
    if data_parallel_size is not None:
        groups.data_parallel_size = data_parallel_size
    told = [*problems, *missing(options, values)]
    follow(options, groups, partial=bool(told))
    if told := [*told, *_broken(rules, groups, partial=bool(told))]:
        raise UserError(*told)
    return build(options, groups)


def resolve(config: Config, data_parallel_size: int) -> Config:
    """The configuration with every default that follows from other flags filled in."""
    groups = Known(
        **{
            name: Known(**vars(group)) if dataclasses.is_dataclass(group) else group
            for name, group in vars(config).items()
        }
    )
    groups.data_parallel_size = data_parallel_size
    follow(type(config), groups, partial=False)
    return build(type(config), groups)


def _words(name: str, value: Any) -> list[str]:
    """A flag as words of a command line; none where it is not given."""
    items = [
        str(item).lower() if isinstance(item, bool) else str(item)
        for item in flatten(value)
        if item is not None
    ]
    flag_name = spelling(name)
    if flag_name in ("-h", "--help"):
        raise UserError(f"{name}: is no flag of a configuration; leave it out")
    return [flag_name, *items] if len(items) > 1 else [f"{flag_name}={item}" for item in items]


def _broken(rules: Iterable[Rule], groups: Known, partial: bool) -> list[str]:
    """What the rules say. `partial`: something is unknown, and rules that ask for it are left out."""
    told = []
    for rule in rules:
        try:
            told += ask(rule, groups)
        except Unknown:
            if not partial:
                raise
    return told
