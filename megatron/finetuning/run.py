"""One finetuning run: train on the examples, measure and predict, and write what it came to."""

import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.base.files import hold, whole_file, writable_folder
from megatron.base.terminal import print_line
from megatron.base.units import count_of
from megatron.checkpoint.load import boxes_of
from megatron.checkpoint.save import clear_unfinished
from megatron.data.corpora import Splits
from megatron.data.tokenizer_files import keep_tokenizer
from megatron.finetuning.job import TRAIN, Job, lengths_note, tokens_notes
from megatron.finetuning.metrics import measure
from megatron.finetuning.predictions import all_logits, predictions_of, write_predictions
from megatron.finetuning.results import RESULTS, Results, earlier_results, in_words
from megatron.finetuning.source import OUTPUT
from megatron.finetuning.task import finetuning_task
from megatron.model.classifier import POOLER, Classifier
from megatron.parallel.layout import layout_of
from megatron.parallel.mesh import repeat_exactly, start_mesh, stop_mesh, together, wait_for_all
from megatron.parallel.ranks import joined_ranks, launched_rank, world_size
from megatron.parallel.roll_call import open_roll_call
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan_layout import layout_problems
from megatron.tasks.task import Data
from megatron.train.log import Log
from megatron.train.loop import train
from megatron.train.places import locks
from megatron.train.records import Start
from megatron.train.resume import describe_run
from megatron.train.saving import Checkpoints
from megatron.train.setup import Prepared, Run, build, join

SHOWN = 5


def finetune(job: Job) -> None:
    """Do one run, unless its results are there. UserError where those of another run are."""
    folder = Path(job.flags.save)
    if found := earlier_results(folder, job):
        if launched_rank() == 0:
            print(f"{folder / RESULTS}: is there already; {in_words(found)}")
        return
    prepared = prepare(job)
    training = job.config.training
    if training.deterministic_mode:
        repeat_exactly()
    layout = layout_of(job.config.parallel, world_size())
    with joined_ranks():
        mesh = start_mesh(training.distributed_backend, training.distributed_timeout_minutes, layout)
        roll = open_roll_call(mesh.world.rank, mesh.world.size, training.distributed_timeout_minutes)
    with joined_ranks(roll), ExitStack() as held:
        run = build(prepared, mesh)  # first: where the weights do not fit, no folder is made
        fresh = [] if job.flags.random_init else load_encoder(run, job)
        if training.skip_train and any(name.startswith(OUTPUT) for name in fresh):
            raise UserError(f"--skip-train: {job.source.folder} {_other_outputs(job)}")
        if mesh.first:
            writable_folder(folder)
            for lock in locks(job.config):
                held.enter_context(hold(lock))
        _run(job, run, fresh)
    stop_mesh()


def prepare(job: Job) -> Prepared:
    """The run's plan and draws. UserError where its ranks cannot do them."""
    known: Splits = {TRAIN: [(None, job.corpora[TRAIN])], "valid": [], "test": []}
    known["valid"] = [(None, job.corpora[job.task.splits[0].name])]
    task = finetuning_task(job.outputs, lambda config: Data(known, job.source.vocabulary))
    efficiency, _ = describe(job.config)
    prepared = join(task, job.config, efficiency, task.open_data(job.config))
    data = layout_of(job.config.parallel, world_size()).data
    if problems := layout_problems(job.config, prepared.plan, data):
        raise UserError(*problems)
    return prepared


def _run(job: Job, run: Run, fresh: list[str]) -> None:
    began, mesh = time.perf_counter(), run.mesh
    if mesh.prints_log:
        print("\n".join(_words(job, run, fresh)), flush=True)
    if not run.config.training.skip_train:
        _train(job, run)
    told, metrics = measured(job, run)
    if mesh.first:
        write_predictions(Path(job.flags.save) / "predictions", job.task, job.files, told)
        results = _results(job, run, metrics, time.perf_counter() - began)
        with whole_file(Path(job.flags.save) / RESULTS, "w") as file:
            file.write(json.dumps(results, indent=1) + "\n")
        print_line(f"{Path(job.flags.save) / RESULTS}: {in_words(results)}")
    wait_for_all(mesh)


def _train(job: Job, run: Run) -> None:
    """UserError where the run is stopped."""
    root, mesh = run.config.checkpoint.save, run.mesh
    manifest = dataclasses.replace(describe_run(run), answers=list(job.answers))
    if mesh.first and root:
        writable_folder(root)
        clear_unfinished(root)
        keep_tokenizer(root, job.config.tokenizer, [], job.source.vocabulary)
    wait_for_all(mesh)
    log = Log(run.config, run.efficiency, run.plan, mesh, Start(0, run.plan.totals(0)))
    with Checkpoints(run, manifest, 0) as checkpoints:
        done = train(run, 0, log, checkpoints)
    log.close()
    if done < run.plan.steps:
        raise UserError(
            f"{job.flags.save}: stopped before the end, without results; the same command begins anew"
        )


def load_encoder(run: Run, job: Job) -> list[str]:
    """Fill the weights that the source has; the names of the others, which are of the head. Its last matrix
    is of its task, and of another one, or of other classes, it is not taken. UserError where a weight is no
    number, which no rate of learning mends."""
    parameters, filled = run.parameters, set()
    same = job.source.answers in (None, job.answers)
    order = job.source.order_for(job.task.labels)

    def read() -> bytes:
        boxes = boxes_of(parameters, run.placements)
        wanted = {name: box for name, box in boxes.items() if same or not name.startswith(OUTPUT)}
        for name, tensor in job.source.read(wanted):
            if not tensor.isfinite().all():
                raise UserError(
                    f"{job.source.folder}: its weights {name} hold what is no finite number, so that nothing "
                    "can be learnt from them; bring or convert them again, or name an earlier checkpoint"
                )
            parameters[name].data.copy_(tensor[order] if order and name.startswith(OUTPUT) else tensor)
            filled.add(name)
        return b""

    together(read, run.mesh)
    return sorted(name for name in parameters if name not in filled)


def _words(job: Job, run: Run, fresh: list[str]) -> list[str]:
    begins = "random weights, by --random-init" if job.flags.random_init else str(job.source.folder)
    if any(not name.startswith(OUTPUT) for name in fresh):
        pooler = job.config.bert.classifier_head == POOLER
        begins += f", which has no {'pooler' if pooler else 'such head'}: that begins anew, too"
    if not job.flags.random_init:
        begins += _outputs(job, any(name.startswith(OUTPUT) for name in fresh))
    lines = [f"task {job.flags.task}, {count_of(job.outputs, 'output')}, from {begins}"]
    for name, examples in job.files.items():
        left = examples.left_out
        out = f"; {count_of(left, 'broken line')} {'is' if left == 1 else 'are'} left out" if left else ""
        lines.append(f"  {name}: {job.corpora[name].describe()} ({examples.path}){out}")
    lines += [f"  {note}" for note in (*tokens_notes(job), lengths_note(job)) if note]
    if run.config.training.skip_train:
        return lines
    plan = run.plan
    still = "" if plan.learning_rate.any() else "; the rate of every step is 0, and nothing is trained: give "
    ways = still and "more --epochs, a smaller --global-batch-size, or --lr-decay-style constant"
    return [*lines, f"plan: {count_of(plan.steps, 'step')} of {plan.at(1).batch_size} examples{still}{ways}"]


def _other_outputs(job: Job) -> str:
    """Why its outputs cannot be measured as they are, with a way out."""
    if not job.source.answers:
        return (
            f"has no classifier of {count_of(job.outputs, 'output')}; give the folder model of a run with "
            "--save-model, or a classifier of Hugging Face's"
        )
    task, *labels = job.source.answers
    return (
        f"is finetuned for {task}{_named(labels)}, and asked for {job.flags.task}{_named(job.task.labels)}; "
        "give its own task and examples of its labels, or finetune it without --skip-train"
    )


def _outputs(job: Job, fresh: bool) -> str:
    """What becomes of the outputs of a classifier; "" where the encoder is none."""
    if job.source.answers is None and not job.source.classes:
        return "; its outputs, which name no task, " + ("begin anew" if fresh else "go on")
    if job.source.answers is None:
        ordered = " in the order of the task" if job.source.order_for(job.task.labels) and not fresh else ""
        return f"; its outputs,{_named(job.source.classes)}, {'begin anew' if fresh else 'go on'}{ordered}"
    if not job.source.answers:
        return ""
    task, *labels = job.source.answers
    return f"; its outputs, for {task}{_named(labels)}, {'begin anew' if fresh else 'go on'}"


def _named(classes: Sequence[str]) -> str:
    return f" of {', '.join(classes[:SHOWN])}{', ...' * (len(classes) > SHOWN)}" if classes else ""


def measured(job: Job, run: Run) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The predictions of every split, and the metrics of those that have labels. All ranks call it alike."""
    model, size = run.model, run.config.training.micro_batch_size
    assert isinstance(model, Classifier)
    told, metrics = {}, {}
    for name, corpus in job.corpora.items():
        if name == TRAIN:
            continue
        logits = all_logits(model, corpus, job.outputs, size, run.mesh)
        if not np.isfinite(logits).all():
            raise UserError(
                f"{job.flags.save}: the model of the last step tells no numbers of {name}, so there are no "
                "results; lower --lr"
            )
        told[name] = predictions_of(logits, job.task)
        if corpus.labels is not None:
            metrics[name] = measure(job.task.metrics, corpus.labels, told[name])
    return told, metrics


def _results(job: Job, run: Run, metrics: dict[str, dict[str, float]], seconds: float) -> Results:
    return {
        "task": job.flags.task,
        "load": job.flags.load,
        "lr": job.config.optimizer.lr,
        "seed": job.config.training.seed,
        "random_init": job.flags.random_init,
        "labels": list(job.task.labels),
        "examples": {name: corpus.windows for name, corpus in job.corpora.items()},
        "steps": 0 if run.config.training.skip_train else run.plan.steps,
        "metrics": metrics,
        "seconds": round(seconds, 1),
        "world_size": run.mesh.world.size,
        "run": job.describe(),
    }
