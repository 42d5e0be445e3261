"""From the command line of training to its configuration."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from megatron.base.errors import UserError
from megatron.base.units import count_of
from megatron.checkpoint.earlier import elsewhere, missing_weights
from megatron.checkpoint.load import find_checkpoint
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.config import bert, vision
from megatron.config.arguments import understand, unused_flags
from megatron.config.config import RULES, Config, Rule, complete
from megatron.config.experts import ExpertsConfig
from megatron.config.flags import flags_of, spelling
from megatron.config.idle import idle_flags
from megatron.config.logging import idle_notes
from megatron.config.model import ModelConfig
from megatron.config.optimizer import idle_scale_notes
from megatron.config.other_megatrons import FOREIGN_FLAGS
from megatron.config.scale import scale_notes
from megatron.config.tokenizer import unread_files
from megatron.parallel.ranks import world_size
from megatron.schedule import data_efficiency_flags
from megatron.schedule.deepspeed_training import clipping_notes


def read_config(
    argv: list[str],
    description: str,
    examples: str,
    of_task: tuple[Rule, ...] = (),
    with_followers: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
) -> tuple[Config, list[str]]:
    """The resolved, checked configuration of a command line, and notes for the user. UserError lists every
    problem; `of_task`, `with_followers`: rules of what is trained, and values that follow there alone."""
    values, problems = understand(Config, argv, description, examples, FOREIGN_FLAGS)
    values, notes = with_model_of_checkpoint(values)
    rules: tuple[Rule, ...] = (*RULES, *data_efficiency_flags.RULES, *of_task)
    problems += data_efficiency_flags.switched_off(values)
    problems, replicas = count_replicas(values, problems, "; tools/plan_run.py shows the run on one")
    config = complete(Config, with_followers(values), problems, replicas, rules)
    batch = [] if "global_batch_size" in values else _batch_of_ranks(config, replicas)
    idle = [
        *unread_files(config.tokenizer),
        *idle_scale_notes(config.optimizer, config.training),
        *bert.window_notes(config.bert, config.model),
        *idle_notes(config.logging),
        *idle_flags(config, world_size()),
    ]
    clipping = [] if "clip_grad" in values else clipping_notes(config.data_efficiency)
    scaling = scale_notes(Config, argv, FOREIGN_FLAGS)
    return config, [*scaling, *notes, *batch, *clipping, *idle, *unused_flags(Config, argv, FOREIGN_FLAGS)]


def _batch_of_ranks(config: Config, ranks: int) -> list[str]:
    """A note that the batch follows from the number of ranks, where there are several."""
    if ranks == 1:
        return []
    size, micro = config.training.global_batch_size, config.training.micro_batch_size
    return [
        f"--global-batch-size is {size}, as --micro-batch-size {micro} x {ranks} ranks; give it, and batches "
        "do not depend on the number of ranks"
    ]


def with_model_of_checkpoint(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a command line, the model's being those of the checkpoint where --use-checkpoint-args
    asks for them, and notes for the user."""
    model, notes = model_of_checkpoint(values)
    given = {name: value for name, value in values.items() if name not in model}
    return given | {name: value for name, value in model.items() if value is not None}, notes


def model_of_checkpoint(
    values: dict[str, Any], free: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The model's flags as in the checkpoint of --load where --use-checkpoint-args asks for them, and a
    note that says so. Those given that resuming may change stay, and so do those that are `free`."""
    if not values.get("use_checkpoint_args") or not values.get("load"):
        return {}, []
    folder = find_checkpoint(values["load"], values.get("ckpt_step"))
    if folder is None and values.get("finetune"):
        raise UserError(missing_weights(values["load"], "--finetune"))
    if folder is None and (found := made_elsewhere(values["load"])):
        raise UserError(elsewhere(values["load"], found))
    if folder is None:
        return {}, []
    manifest = read_manifest(folder)
    saved = saved_config(manifest.config, folder)
    own = {"moe_group_size", "moe_per_layer_logging"}  # which fit a batch and a log
    for one in (*flags_of(ModelConfig), *flags_of(ExpertsConfig)):
        if (one.field.metadata["resume"] == "free" or one.name in free) and one.name in values:
            own.add(one.name)
    if saved.model.position_embedding_type != "learned_absolute" and values.get("max_position_embeddings"):
        own.add("max_position_embeddings")  # which no weight depends on
    every = dataclasses.asdict(saved.model) | dataclasses.asdict(saved.experts)
    if manifest.task == "bert":
        encoder = dataclasses.asdict(saved.bert) | dataclasses.asdict(saved.sentences)
        every |= {name: encoder[name] for name in bert.OF_THE_MODEL}
    if manifest.task == "vit":
        every |= {name: getattr(saved.vision, name) for name in vision.OF_THE_MODEL}
    model = {name: value for name, value in every.items() if name not in own}
    lost = [spelling(name) for name, value in model.items() if values.get(name, value) != value]
    more = f", and not as given: {', '.join(lost)}" if lost else ""
    return model, [f"the model's flags are those of {folder}{more}"]


def count_replicas(values: dict[str, Any], problems: list[str], or_else: str = "") -> tuple[list[str], int]:
    """The problems, and how many replicas of the model the ranks that torchrun started make. `or_else`: one
    more way out."""
    names = ("tensor_model_parallel_size", "context_parallel_size", "pipeline_model_parallel_size")
    sizes = [values.get(name) or 1 for name in names]
    each, ranks = math.prod(sizes), world_size()
    if ranks % each:
        words = " x ".join(f"{spelling(name)} {size}" for name, size in zip(names, sizes) if size > 1)
        begun = f"{count_of(ranks, 'rank')} {'was' if ranks == 1 else 'were'} started"
        line = (
            f"{begun}, which is no multiple of {words} = {each}; start so many with "
            f"torchrun, or share the model among fewer{or_else}"
        )
        return [*problems, line], 1
    return problems, ranks // each
