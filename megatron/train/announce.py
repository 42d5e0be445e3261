"""What a run says before its first step: arguments, plan, sizes, and `run.json` for reports."""

from megatron.base.start import ROOT

import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from megatron.base.cores import usable_cores
from megatron.base.terminal import show
from megatron.checkpoint.manifest import Manifest
from megatron.config.config import Config
from megatron.curriculum.sampler import describe_passes
from megatron.data.corpora import Splits
from megatron.evaluation.losses import validation_windows
from megatron.model.experts import inactive_parameters
from megatron.schedule.plan_summary import summarise, tables
from megatron.train.log import process_environment
from megatron.train.setup import Prepared, Run
from megatron.train.throughput import device_name


def print_start(prepared: Prepared, notes: list[str]) -> None:
    """Print the arguments, notes, the plan in short, and what validation will score."""
    config, plan = prepared.config, prepared.plan
    values = {
        name: value
        for group in dataclasses.asdict(config).values()
        if isinstance(group, dict)
        for name, value in group.items()
    }
    print("------------------------ arguments ------------------------")
    for name in sorted(values, key=str.lower):
        print(f"  {name} {'.' * (48 - len(name))} {values[name]}")
    print("-------------------- end of arguments ---------------------")
    for note in notes:
        print(note if note.startswith("warning: ") else f"note: {note}")
    totals = plan.totals(plan.steps)
    print(
        f"plan: {plan.steps:,} steps, {totals['consumed_tokens']:,} effective tokens "
        f"({totals['raw_tokens']:,} raw, "
        f"{totals['drawn_tokens']:,} drawn), sequence length "
        f"{plan.sequence_length[0]}-{plan.sequence_length[-1]}, kept length "
        f"{plan.kept_length[0]}-{plan.kept_length[-1]}, {plan.flops.sum():.3E} FLOPs"
    )
    print(
        "\n".join([_validation_line(config, prepared.data.splits), *unscored(config, prepared.data.splits)])
    )
    sys.stdout.flush()


def _validation_line(config: Config, splits: Splits) -> str:
    """How many windows validation and test will score, of how many."""
    parts = []
    for what, split in (("validation", "valid"), ("test", "test")):
        scored = len(validation_windows(config, splits[split]))
        there = sum(corpus.windows for _, corpus in splits[split])
        whole = f"all {there:,}" if scored == there else f"the first {scored:,} of {there:,}"
        parts.append(f"{what} on {whole} windows" if scored else f"no {what}")
    return f"losses: {', '.join(parts)} (--eval-iters x --global-batch-size)"


def unscored(config: Config, splits: Splits) -> list[str]:
    """Notes of the datasets of validation and test that --eval-iters leaves without a window, and so without
    a loss of their own."""
    notes = []
    for what, split in (("validation", "valid"), ("test", "test")):
        scored = set(validation_windows(config, splits[split])[:, 0].tolist())
        names = [corpus.name for number, (_, corpus) in enumerate(splits[split]) if number not in scored]
        if scored and names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            given = any(weight is not None for weight, _ in splits[split])
            heavier = "a larger weight" if given else "a weight before every path"
            notes.append(
                f"note: the {what} scores no window of {', '.join(names[:5])}{more}; for a loss of its own "
                f"give more --eval-iters, or {heavier}"
            )
    return notes


def print_sizes(prepared: Prepared, ranks: int) -> None:
    """Print the summary of a plan, the passes over every corpus, and how large its model is."""
    config, efficiency, vocab_size = prepared.config, prepared.efficiency, prepared.data.vocabulary.size
    show(*tables(summarise(config, efficiency, prepared.plan, ranks) | {"vocab_size": vocab_size}))
    size, idle = whole_size(prepared)
    active = f", {size - idle:,} of them active for a token," if idle else ""
    print(f"model: {size:,} parameters{active} over a vocabulary of {vocab_size:,}")
    print("\n".join(describe_passes(prepared.sampler, prepared.plan)))


def whole_size(prepared: Prepared) -> tuple[int, int]:
    """Parameters of the whole model, which is built without memory for it, and how many of them are experts'
    that do not compute a token."""
    config, vocab_size = prepared.config, prepared.data.vocabulary.size
    with torch.device("meta"):
        model = prepared.task.build_model(config, vocab_size, prepared.efficiency.dropping_layers)
    return sum(parameter.numel() for parameter in model.parameters()), inactive_parameters(model)


def count_line(run: Run) -> str:
    """Megatron's line of how large this rank's part of the model is."""
    parameters, mesh = sum(one.numel() for stage in run.stages for one in stage.parameters()), run.mesh
    place = f"({mesh.tensor.rank}, {mesh.pipeline.rank})"
    return f" > number of parameters on (tensor, pipeline) model parallel rank {place}: {parameters}"


def describe_for_reports(run: Run, manifest: Manifest, start: int) -> dict[str, Any]:
    """What `run.json` says."""
    size, idle = whole_size(run)
    return {
        "command": sys.argv,
        "config": manifest.config,
        "parameters": size,
        "active_parameters": size - idle,
        "vocab_size": manifest.vocabulary.size,
        "data": [
            {"name": Path(corpus.name).name, "samples": corpus.windows, "weight": weight}
            for weight, corpus in run.data.splits["train"]
        ],
        "steps": run.plan.steps,
        "flops": float(run.plan.flops.sum()),
        "started": datetime.now().isoformat(timespec="seconds"),
        "resumed_after": start,
        "world_size": run.mesh.world.size,
        "device": str(run.mesh.device),
        "machine": _machine(run.mesh.device),
        "commit": _commit(),
        "versions": manifest.versions,
        "environment": process_environment(),
    }


def _machine(device: torch.device) -> str:
    """Processors, cores that may be used, and system of this rank's machine in words."""
    gpu = [device_name(device)] if device.type == "cuda" else []
    return ", ".join([*gpu, _processor(), f"{usable_cores()} cores", platform.platform(terse=True)])


def _processor() -> str:
    """What the processor is called, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    told = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    names = re.findall(r"^model name\s*: (.+)$", told, re.MULTILINE)
    return next(iter(names), platform.processor() or platform.machine())


def _commit() -> str | None:
    """The commit of this tree, with -dirty behind it where files have changed since; None where git does not
    know."""
    words = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"]
    if not os.path.exists(os.path.join(ROOT, ".git")) or not shutil.which("git"):
        return None
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or None
