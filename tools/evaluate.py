"""Loss, perplexity and bits per byte of a checkpoint, by corpus and split, at full length with nothing
dropped; of an encoder losses and accuracies of masks that are the same every time. Of a GPT also domains,
questions made of held-out text, and the tasks of EleutherAI's lm-evaluation-harness."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import checksum, whole_file, writable_file
from megatron.checkpoint.manifest import NAME
from megatron.config.arguments import parse, understand, unused_flags
from megatron.config.config import Config, TokenizerOptions
from megatron.config.evaluation import (
    BOS_TOKEN,
    CHOICE,
    CLOZE,
    DOMAINS,
    HARNESS,
    DomainOptions,
    HarnessOptions,
    QuestionOptions,
    without_effect,
)
from megatron.config.flags import NEWEST, flag
from megatron.config.foreign import Foreign
from megatron.config.other_megatrons import OF_THE_CHECKPOINT
from megatron.data.corpora import SPLITS, Splits, made_anew
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.asked import ask
from megatron.evaluation.paper_tasks import GROUP, paper_mean
from megatron.evaluation.restore import Restored, require_same_tokenizer, restore, tokenizer_of
from megatron.evaluation.results import earlier_results, set_aside, with_earlier
from megatron.evaluation.score import Scorer, make_scorer
from megatron.evaluation.windows import evaluate_windows, require_scored
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh, start_mesh, stop_mesh
from megatron.parallel.ranks import joined_ranks, launched_rank, require_launch, world_size
from megatron.parallel.roll_call import open_roll_call
from megatron.report import evaluation_tables as tables
from megatron.tasks.gpt import GPT_TASK

LENGTH = "windows are as long as the sequences that it was trained on"
FOREIGN = OF_THE_CHECKPOINT | dict.fromkeys(("seq-length", "max-length"), Foreign(None, LENGTH))
EXAMPLES = """\
  # the validation and test parts of the data it was trained on
  python tools/evaluate.py --load runs/small --splits valid test --output runs/small/evaluation.json

  # other texts; bits per byte compare models of different tokenizers
  python tools/evaluate.py --load runs/small --data-path books_text_document --split 0,0,1 --splits test

  # a vision transformer: loss, top-1 and top-5 accuracy, on other images of the same classes
  python tools/evaluate.py --load runs/vit --data-path photos --split 0,0,1 --splits test

  # an encoder: losses and accuracies of masked tokens and of pairs, on sentences
  python tools/evaluate.py --load runs/bert --data-path books_text_sentence --split 0,0,1 --splits test

  # questions made of held-out text, and what another checkpoint answers to the same
  python tools/evaluate.py --load runs/small --cloze 1000 --multiple-choice 1000 --compare runs/baseline

  # the paper's 19 tasks by EleutherAI's harness, on two ranks
  torchrun --nproc-per-node 2 tools/evaluate.py --load runs/small --lm-eval paper --json runs/small/tasks.json
"""
INSTALL = "python -m pip install -c constraints.txt -e '.[eval]'"
MINUTES = 600.0
"""That ranks wait for each other: one of them may be downloading data."""


@dataclass(frozen=True, kw_only=True)
class Options:
    load: str = flag(help="folder of checkpoints, or one checkpoint", metavar="FOLDER")
    tokenizer: TokenizerOptions
    splits: tuple[str, ...] = flag(("valid", "test"), "which parts", choices=SPLITS)
    data_path: tuple[str, ...] = flag((), "prefixes of .bin/.idx files; those it was trained on")
    split: str | None = flag(None, "shares of training, validation and test; those it was trained with")
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest", otherwise=NEWEST)
    micro_batch_size: int = flag(16, "windows, texts, or an encoder's samples, at a time", at_least=1)
    max_windows: int | None = flag(
        None, "at most so many windows or samples of each corpus, from its start; all", at_least=1
    )
    output: str | None = flag(
        None,
        "also write the results as JSON; what is there of the same checkpoint stays, and of --lm-eval, tasks "
        "that are there are left out",
        metavar="FILE",
        aliases=("--json",),
    )
    bos_token: str | None = flag(None, f"of what is asked: {BOS_TOKEN}", metavar="TOKEN")
    domain: DomainOptions
    question: QuestionOptions
    harness: HarnessOptions

    @property
    def asked(self) -> list[str]:
        """The flags that ask a GPT for more than the loss of windows."""
        given = {
            DOMAINS: self.domain.domains,
            CLOZE: self.question.cloze,
            CHOICE: self.question.multiple_choice,
            HARNESS: self.harness.lm_eval,
        }
        return [name for name, value in given.items() if value]


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    idle = without_effect(understand(Options, sys.argv[1:], foreign=FOREIGN)[0], options.asked)
    for line in [*unused_flags(Options, sys.argv[1:], FOREIGN), *idle] if launched_rank() == 0 else ():
        print(f"note: {line}", file=sys.stderr)
    if options.output:
        writable_file(options.output)
    if options.harness.lm_eval_cache:
        os.environ["HF_HOME"] = os.path.abspath(options.harness.lm_eval_cache)
    require_launch()
    with joined_ranks():
        mesh = start_mesh(None, MINUTES, Layout(data=world_size()))
        roll = open_roll_call(mesh.world.rank, mesh.world.size, MINUTES)
    with joined_ranks(roll), _speaking(mesh.first):
        _run(options, mesh)
    stop_mesh()


@contextlib.contextmanager
def _speaking(first: bool) -> Iterator[None]:
    """All ranks come to the same results, and the first alone tells them."""
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as held:
        if not first:
            held.enter_context(contextlib.redirect_stdout(nowhere))
            held.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _run(options: Options, mesh: Mesh) -> None:
    restored = restore(options.load, options.ckpt_step, mesh.device)
    config, tokenizer = _with_tokenizer(restored, options)
    content: dict[str, Any] = {
        "checkpoint": str(restored.folder),
        "iteration": restored.manifest.iteration,
        "fingerprint": checksum(restored.folder / NAME),
        "results": [],
    }
    if not options.asked:
        content["results"] = _windows(restored, config, tokenizer, options, mesh)
    else:
        size, begin = options.micro_batch_size, options.bos_token
        scorer = make_scorer(restored, tokenizer, size, mesh, options.asked[0], begin)
        content |= _ask(restored, _with_data(config, options), scorer, options, mesh)
        if options.harness.lm_eval:
            content["lm_eval"] = _harness(scorer, options, content, str(restored.folder))
    _write(options, content, mesh)


def _write(options: Options, content: dict[str, Any], mesh: Mesh) -> None:
    if options.output and mesh.first:
        if note := set_aside(options.output):
            print(f"note: {note}", file=sys.stderr)
        content = with_earlier(content, earlier_results(options.output, content))
        with whole_file(options.output, "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")


def _windows(
    restored: Restored, config: Config, tokenizer: Tokenizer | None, options: Options, mesh: Mesh
) -> list[dict[str, Any]]:
    """Results of the windows of --splits, which are shown."""
    results, data, title = [], _with_data(config, options), str(restored.folder)
    for split, corpora in _opened(restored, data, options, mesh).items():
        if split in options.splits:
            rest = (tokenizer, options.max_windows, options.micro_batch_size, mesh)
            results += evaluate_windows(restored, data, split, corpora, *rest)
    require_scored(results, options.splits, config.data.seq_length)
    if restored.task is GPT_TASK:
        tables.show_windows(results, title)
        print(tables.unused_tokens(results))
        tables.explain_bytes(results)
    else:
        tables.show_samples(results, title)
    return results


def _opened(restored: Restored, data: Config, options: Options, mesh: Mesh) -> Splits:
    """The splits of the data. What was made anew since the training is told, unless it was asked for."""
    splits = restored.task.open_splits(data)
    changed = [] if options.data_path else made_anew(restored.manifest.data, splits["train"])
    if changed and mesh.first:
        print(
            f"note: {', '.join(changed[:3])}{', ...' * (len(changed) > 3)}: not the data that the checkpoint "
            "was trained on, but made again, so what is held out now may have been trained on",
            file=sys.stderr,
        )
    return splits


def _ask(restored: Restored, data: Config, scorer: Scorer, options: Options, mesh: Mesh) -> dict[str, Any]:
    """Results of domains and of questions, and how another checkpoint's differ; all are shown."""
    compare, title = options.question.compare, str(restored.folder)
    other = None
    if compare:
        against = restore(compare, None, mesh.device)
        named = tokenizer_of(against, TokenizerOptions())
        size, begin = options.micro_batch_size, options.bos_token
        other = make_scorer(against, named and named[0], size, mesh, "--compare", begin)
    splits = (
        _opened(restored, data, options, mesh)
        if options.question.cloze or options.question.multiple_choice
        else {}
    )
    corpora = [corpus for split in options.splits for _, corpus in splits.get(split, [])]
    require_same_tokenizer(restored, corpora, data.tokenizer)
    found = ask(scorer, other, corpora, data.data, options.domain, options.question)
    if "domains" in found:
        tables.show_domains(found["domains"], title)
    if "questions" in found:
        tables.show_questions(found["questions"], title)
    if compare:
        tables.show_differences(found["compared"], f"{title} minus {compare}")
        found["compared_with"] = compare
    return found


def _harness(scorer: Scorer, options: Options, content: dict[str, Any], title: str) -> dict[str, Any]:
    """What the harness counts of every task, which is written behind each of them, and shown."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the harness and of what it imports
    try:
        from megatron.evaluation import harness
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "lm_eval":
            raise
        raise UserError(f"--lm-eval: the package lm-eval is not installed: {INSTALL}") from None

    def save(found: dict[str, Any]) -> None:
        _write(options, content | {"lm_eval": found}, scorer.mesh)

    there = earlier_results(options.output, content).get("lm_eval", {})
    found = harness.run_tasks(scorer, options.harness, there, save, options.question.seed)
    tables.show_harness(found, title)
    results = {task: numbers for entry in found.values() for task, numbers in entry["results"].items()}
    if GROUP in options.harness.tasks and (mean := paper_mean(results)):
        print(tables.mean_in_words(mean))
        content["paper_mean"] = mean._asdict()
    return found


def _with_data(config: Config, options: Options) -> Config:
    """The checkpoint's configuration with the data of the flags. UserError where neither names any."""
    data = config.data
    known = data.data_path or data.train_data_path or data.valid_data_path or data.test_data_path
    needed = not options.asked or options.question.cloze or options.question.multiple_choice
    if needed and not (options.data_path or known or data.mock_data):
        raise UserError(
            f"--data-path is required: the checkpoint in {options.load} is of no training here, so that it "
            "names no data; --split says which shares are held out"
        )
    if options.data_path:
        data = dataclasses.replace(
            data,
            data_path=options.data_path,
            train_data_path=(),
            valid_data_path=(),
            test_data_path=(),
            mock_data=False,
        )
    if options.split and data.train_data_path:
        raise UserError(
            f"--split {options.split}: without effect, as the checkpoint in {options.load} was trained on "
            "whole files for every part; leave it out, or name what is split by --data-path"
        )
    if options.split:
        data = dataclasses.replace(data, split=options.split)
    return dataclasses.replace(config, data=data)


def _with_tokenizer(restored: Restored, options: Options) -> tuple[Config, Tokenizer | None]:
    """The checkpoint's configuration with its tokenizer, wherever that is found."""
    found = tokenizer_of(restored, options.tokenizer)
    if found is None:
        without = f"note: no tokenizer is kept in {options.load}, and without --tokenizer-type and its files"
        if restored.task is GPT_TASK:
            print(f"{without} there are no bits per byte", file=sys.stderr)
        size = None if restored.config.tokenizer.tokenizer_type else restored.config.tokenizer.vocab_size
        return dataclasses.replace(restored.config, tokenizer=TokenizerOptions(vocab_size=size)), None
    tokenizer, named = found
    return dataclasses.replace(restored.config, tokenizer=named), tokenizer


if __name__ == "__main__":
    run_command(main, ranks=True)
