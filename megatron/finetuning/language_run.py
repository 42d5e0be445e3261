"""One run of language modelling: pretraining's own engine from given weights, and what perplexity it comes
to."""

import json
import math
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.base.terminal import print_line, show
from megatron.base.units import perplexity
from megatron.checkpoint.load import find_checkpoint
from megatron.finetuning.language_job import LanguageJob, language_task
from megatron.finetuning.results import RESULTS, Results, earlier_results, in_words
from megatron.finetuning.text_files import count_tokens, count_words
from megatron.parallel.ranks import launched_rank, world_size
from megatron.train.places import metrics_path
from megatron.train.pretrain import run_training

ORIGIN = "finetune.json"
MOST = 700.0
"""Of a loss per word, whose perplexity is still a number."""


def finetune_language(job: LanguageJob) -> None:
    """Do one run, or go on with it, unless its results are there. UserError where another's are."""
    folder, began = Path(job.save), time.perf_counter()
    training = job.config.training
    evaluates = training.skip_train or training.dry_run
    if not evaluates and (found := earlier_results(folder, job)):
        if launched_rank() == 0:
            print(f"{folder / RESULTS}: is there already; {in_words(found)}")
        return
    if not evaluates:
        _require_same_origin(folder, job)
    task = language_task(job.base.vocabulary)
    whole = run_training(job.config, [*job.notes, *_words(job)], task)
    if evaluates or launched_rank() != 0:
        return
    if not whole:
        print_line(f"{folder}: stopped before the end, without results; the same command goes on")
        return
    results = results_of(job, time.perf_counter() - began)
    with whole_file(folder / RESULTS, "w") as file:
        file.write(json.dumps(results, indent=1) + "\n")
    show(table_of_epochs(results))
    print_line(f"{folder / RESULTS}: {in_words(results)}")


def _require_same_origin(folder: Path, job: LanguageJob) -> None:
    """Keep from which weights and texts the run began, which its checkpoints do not say. UserError where a
    run in its folder began from others."""
    path, mine = folder / ORIGIN, job.describe()
    mine = {name: mine[name] for name in ("base", "random_init", "data")}
    if find_checkpoint(str(folder), None, tell=lambda _: None):
        if not path.is_file():
            raise UserError(
                f"--save {folder}: holds a checkpoint of another kind of run; choose another --save"
            )
        try:
            theirs = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise UserError(f"{path}: is no JSON object; move {folder} away") from None
        if other := [name for name in mine if theirs.get(name) != mine[name]]:
            raise UserError(
                f"{path}: is of another run, which differs in {', '.join(other)}; choose another --save"
            )
    elif launched_rank() == 0:
        with whole_file(path, "w") as file:
            file.write(json.dumps(mine, indent=1) + "\n")


def _words(job: LanguageJob) -> list[str]:
    epoch = job.steps_of_epoch * job.config.training.global_batch_size * job.config.data.seq_length
    lines = [
        f"{split}: {job.files[split]}, {count_tokens(prefix):,} tokens in {prefix}"
        for split, prefix in job.prefixes.items()
    ]
    return [
        *lines,
        f"an epoch is {job.steps_of_epoch:,} steps of {job.config.training.global_batch_size} blocks, "
        f"{epoch:,} tokens; perplexity is per token",
    ]


def results_of(job: LanguageJob, seconds: float) -> Results:
    """What the run's records come to. Perplexities are per token; `word_perplexity`: per word of a .txt
    file."""
    records = records_of(job)
    valid = [one for one in records.values() if one["kind"] == "valid"]
    losses = [one["lm_loss"] for one in valid]
    if not losses or any(loss is None for loss in losses):
        raise UserError(f"{metrics_path(job.config)}: has no losses of --valid-file; begin the run anew")
    metrics = {
        "valid": {"best_perplexity": perplexity(min(losses)), "last_perplexity": perplexity(losses[-1])}
        | _per_word(job, "valid", losses[-1])
    }
    test = [one["lm_loss"] for one in records.values() if one["kind"] == "test"]
    if test:
        metrics["test"] = {"perplexity": perplexity(test[-1])} | _per_word(job, "test", test[-1])
    return {
        "task": job.flags.task,
        "load": job.load,
        "lr": job.config.optimizer.lr,
        "seed": job.config.training.seed,
        "random_init": job.flags.random_init,
        "tokens": {split: count_tokens(prefix) for split, prefix in job.prefixes.items()},
        "steps": valid[-1]["iteration"],
        "validations": [
            {name: one[name] for name in ("iteration", "consumed_tokens", "lm_loss", "perplexity")}
            for one in valid
        ],
        "metrics": metrics,
        "seconds": round(seconds, 1),
        "world_size": world_size(),
        "run": job.describe(),
    }


def records_of(job: LanguageJob) -> dict[tuple[str, int], dict[str, Any]]:
    """The validations and tests of the run in order, the last of each step."""
    path = metrics_path(job.config)
    assert path is not None
    found = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record["kind"] in ("valid", "test"):
                found[record["kind"], record["iteration"]] = record
    return found


def _per_word(job: LanguageJob, split: str, loss: float) -> dict[str, float]:
    """The same loss over the words of a .txt file, all of which are scored."""
    path = job.files[split]
    words = count_words(path) if path.endswith(".txt") and job.whole else 0
    told = count_tokens(job.prefixes[split]) - 1
    return {"word_perplexity": math.exp(min(loss * told / words, MOST))} if words else {}


def table_of_epochs(results: Results) -> Table:
    """A line for every validation."""
    table = Table(title="perplexity per token of the validation text")
    for heading in ("step", "effective tokens", "loss", "perplexity"):
        table.add_column(heading, justify="right")
    for one in results["validations"]:
        numbers = f"{one['iteration']:,}", f"{one['consumed_tokens']:,}"
        table.add_row(*numbers, f"{one['lm_loss']:.4f}", f"{one['perplexity']:.2f}")
    return table
