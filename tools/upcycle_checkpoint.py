"""Make a mixture of experts of a dense checkpoint, and say by which command it is trained on: every expert is
a copy of the layer's MLP, or of a piece of it, and the model's outputs stay as they are."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron.base.errors import UserError, collect_problems
from megatron.base.terminal import progress
from megatron.checkpoint.contents import chosen_flags, ranks_of
from megatron.checkpoint.load import find_checkpoint, require_file
from megatron.checkpoint.made_elsewhere import made_elsewhere
from megatron.checkpoint.manifest import Manifest, as_read, read_manifest
from megatron.checkpoint.saved_config import saved_config
from megatron.checkpoint.upcycle import tensors_of, write_upcycled
from megatron.config import upcycling as upcycling_rules
from megatron.config.arguments import build, known, missing, understand, unused_flags
from megatron.config.config import RULES, Config, complete
from megatron.config.experts import ExpertsConfig, expert_layers
from megatron.config.flags import NEWEST, flag, flags_of, spelling
from megatron.config.other_megatrons import OF_THE_CHECKPOINT
from megatron.config.upcycling import width_by_granularity
from megatron.config.values import flatten
from megatron.conversion.to_ours import SHAPE_RULES
from megatron.model.architecture import Mixture
from megatron.model.experts import inactive_parameters
from megatron.model.upcycling import Upcycling, upcycling
from megatron.parallel.layout import layout_of
from megatron.tasks.architecture import gpt_architecture
from megatron.tasks.tasks import TASKS

EXAMPLES = """\
  8 experts in every second layer, of which a token goes to 2
    python tools/upcycle_checkpoint.py --load runs/dense --save runs/mixture --num-experts 8 \\
      --moe-layer-freq 2 --moe-aux-loss-coeff 1e-2
  64 experts of a quarter of the MLP each: 16 copies of every quarter, and a token has two of each
    python tools/upcycle_checkpoint.py --load runs/dense --save runs/fine --num-experts 64 \\
      --moe-upcycling-granularity 4 --moe-router-topk 8
  copies that are not quite the same
    python tools/upcycle_checkpoint.py --load runs/dense --save runs/mixture --num-experts 8 \\
      --noise 0.01 --seed 1"""
OF_THE_DENSE_RUN = ("metrics_file", "tensorboard_dir", "wandb_exp_name", "wandb_save_dir", "ckpt_step")
"""Flags that name its own places, or a step of it: a run of the mixture has others."""


@dataclass(frozen=True, kw_only=True)
class Options:
    load: str = flag(help="folder of checkpoints of a dense model, or one checkpoint", metavar="FOLDER")
    save: str = flag(help="new folder for the mixture's checkpoint", metavar="FOLDER")
    experts: ExpertsConfig
    ckpt_step: int | None = flag(None, "step of the dense checkpoint; the newest", otherwise=NEWEST)
    moe_upcycling_granularity: int | None = flag(
        None, "pieces into which the MLP is cut, one an expert; as --moe-ffn-hidden-size has it", at_least=1
    )
    noise: float = flag(
        0.0,
        "normal noise on every expert's matrices, in standard deviations of the dense matrix",
        at_least=0,
    )
    seed: int | None = flag(None, "seed of the routers and of the noise; that of the dense run")


def main() -> None:
    values, problems = understand(Options, sys.argv[1:], __doc__ or "", EXAMPLES, OF_THE_CHECKPOINT)
    problems += missing(Options, values)
    dense = None
    with collect_problems(problems):
        _require_new(values.get("save"))
    with collect_problems(problems):
        dense = _dense(values.get("load"), values.get("ckpt_step"))
    if dense is None:
        raise UserError(*problems)
    config = _mixture_config(*dense, values, problems)
    for line in [*unused_flags(Options, sys.argv[1:], OF_THE_CHECKPOINT), *_left_out(*dense)]:
        print(f"note: {line}", file=sys.stderr)
    _upcycle(dense, config, build(Options, known(Options, values)))


def _require_new(save: str | None) -> None:
    """UserError where something lies at the target already."""
    target = Path(save or "")
    if save and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise UserError(f"--save {save}: something is there already; name a new folder")


def _dense(load: str | None, step: int | None) -> tuple[Path, Manifest] | None:
    """The dense checkpoint; None where none is named. UserError where there is none, or it has experts."""
    if load is None:
        return None
    folder = find_checkpoint(load, step)
    if folder is None:
        found = made_elsewhere(load)
        raise UserError(
            f"--load {load}: holds no checkpoint{f'; {found}' if found else ''}; name a folder of --save"
        )
    manifest = read_manifest(folder)
    if manifest.task not in TASKS:
        raise UserError(
            f"{folder}: holds a model of the task {manifest.task}, and known are {', '.join(TASKS)}; "
            "name a checkpoint of a GPT"
        )
    if manifest.task != "gpt":
        raise UserError(
            f"{folder}: holds a model of the task {manifest.task}, and mixtures of experts are built by "
            "pretrain_gpt.py alone; name a checkpoint of a GPT"
        )
    config = saved_config(manifest.config, folder)
    if expert_layers(config.experts, config.model.num_layers):
        raise UserError(f"{folder}: is a mixture of experts already; name a checkpoint of a dense model")
    return folder, manifest


def _mixture_config(folder: Path, manifest: Manifest, values: dict[str, Any], problems: list[str]) -> Config:
    """The dense run's flags with those of the mixture; UserError with every problem."""
    config = saved_config(manifest.config, folder)
    experts = {one.name for one in flags_of(ExpertsConfig)}
    saved = {
        name: value
        for group in dataclasses.asdict(config).values()
        if isinstance(group, dict)
        for name, value in group.items()
        if name not in experts | {*OF_THE_DENSE_RUN, "compile", "overwrite_run"} and value is not None
    }
    given = {name: value for name, value in values.items() if name in experts}
    places = {name: values[name] for name in ("load", "save") if values.get(name)}
    with collect_problems(problems):
        given |= width_by_granularity(config.model, values)
    replicas = layout_of(config.parallel, ranks_of(manifest)).data
    rules = (*(RULES if _of_a_run(config) else SHAPE_RULES), *upcycling_rules.RULES)
    found: Config = complete(
        Config, {**saved, **given, **places, "finetune": True}, problems, replicas, rules
    )
    return found


def _of_a_run(config: Config) -> bool:
    """Whether the flags are of training. Those of a converted model are of its shape alone: they name no data
    and no end."""
    training = config.training
    return any((training.train_iters, training.train_samples, training.train_tokens))


def _left_out(folder: Path, manifest: Manifest) -> list[str]:
    """What of the dense run does not go with experts."""
    compiled = saved_config(manifest.config, folder).training.compile
    return ["--compile is left out, as it does not go with experts"] if compiled else []


def _upcycle(dense: tuple[Path, Manifest], config: Config, options: Options) -> None:
    """Write the mixture and say how to go on."""
    folder, manifest = dense
    seed = config.training.seed if options.seed is None else options.seed
    how = upcycling(gpt_architecture(config, manifest.vocabulary.size), options.noise, seed)
    with torch.device("meta"):
        model = TASKS[manifest.task].build_model(config, manifest.vocabulary.size, ())
    tensors = tensors_of(model, folder, manifest)
    for line in _notes(how, config.experts):
        print(f"note: {line}", file=sys.stderr, flush=True)
    _verify(folder, manifest)
    stated = as_read(dataclasses.replace(manifest, config=dataclasses.asdict(config))).config
    total = sum(one.nbytes for one in tensors.values())
    with progress("upcycling", total, "MB", 1e6) as advance:
        place = write_upcycled(Path(options.save), dense, stated, model, how, advance)
    count = sum(one.numel() for one in model.parameters())
    print(
        f"wrote {place}: {_words(how, config.model.num_layers)}; {count:,} parameters, of which "
        f"{count - inactive_parameters(model):,} compute a token"
    )
    begun = "train it on, from step 0 and with new moments of the optimizer, by"
    if _of_a_run(config):
        print(f"{begun}\n{_command(config, manifest)}")
    else:
        print(
            f"{begun} pretrain_{manifest.task}.py --load {options.save} --finetune --use-checkpoint-args, "
            "with --seq-length, data and schedule of your own"
        )


def _notes(how: Upcycling, experts: ExpertsConfig) -> list[str]:
    """In what the mixture differs from the dense model, beside noise."""
    found = []
    if not how.equal:
        found.append(
            f"with these flags the weights of a token's experts sum to {how.gates:.3g} on average, and not "
            "for every token: experts are scaled by that, so outputs are near those of the dense model; they "
            "are equal with --moe-router-topk of 2 or more and neither --moe-router-pre-softmax nor sinkhorn"
        )
    if experts.moe_expert_capacity_factor:
        found.append(
            f"--moe-expert-capacity-factor {experts.moe_expert_capacity_factor:g}: in training, full experts "
            "drop tokens, whose outputs then differ from the dense model's"
        )
    return found


def _verify(folder: Path, manifest: Manifest) -> None:
    """Compare the checksums of the weights; UserError where one differs."""
    files = {name: entry.bytes for name, entry in manifest.files.items() if name.startswith("model")}
    with progress(f"verifying {folder.name}", sum(files.values()), "MB", 1e6) as advance:
        for name in files:
            require_file(folder, manifest, name, verify=True, advance=advance)


def _words(how: Upcycling, layers: int) -> str:
    mixture: Mixture = how.mixture
    parts = "the dense MLP" if how.pieces == 1 else f"one of {how.pieces} pieces of the dense MLP"
    share = f", beside a shared expert of {mixture.shared} channels" if mixture.shared else ""
    return f"{mixture.experts} experts in {len(mixture.layers)} of {layers} layers, each {parts}{share}"


def _command(config: Config, manifest: Manifest) -> str:
    """What trains the mixture on: the dense run's flags, with those of the mixture."""
    save = str(config.checkpoint.save).rstrip("/")
    checkpoint = dataclasses.replace(config.checkpoint, load=save, save=f"{save}_trained")
    config = dataclasses.replace(config, checkpoint=checkpoint)
    stated = as_read(dataclasses.replace(manifest, config=dataclasses.asdict(config)))
    flags = chosen_flags(stated, Path(save))
    several = {spelling(one.name) for one in flags_of(Config) if one.field.metadata["repeat"]}
    words = ["python"] if (ranks := ranks_of(manifest)) == 1 else ["torchrun", "--nproc-per-node", str(ranks)]
    words.append(f"pretrain_{manifest.task}.py")
    for name, value in flags.items():
        items = [] if value is True else [str(one) for one in flatten(value)]
        words += [word for one in items for word in (name, one)] if name in several else [name, *items]
    return shlex.join(words)


if __name__ == "__main__":
    run_command(main)
