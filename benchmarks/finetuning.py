"""What pretraining is worth: an encoder pretrained on descriptions of Debian's packages and the same one from
random weights, both finetuned to tell the section of a package. What is there already is kept, so a stopped
measurement goes on. `python benchmarks/finetuning.py --folder runs/finetuning`"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import itertools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import print_table
from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.config.flags import flag

ROOT = Path(__file__).parents[1]
MODEL = (
    "--num-layers 4 --hidden-size 128 --num-attention-heads 4 --seq-length 48 --bert-no-binary-head "
    "--bert-pack --mask-prob 0.2 --short-seq-prob 0 --hidden-dropout 0 --attention-dropout 0"
)
TRAINING = "--split 98,2,0 --micro-batch-size 64 --lr 2e-3 --lr-warmup-fraction 0.05 --eval-iters 10"
VOCABULARY = 4096
TASKS = {"sections": (300, 3), "few": (30, 20)}
"""Training examples of every section, and passes over them."""


@dataclass(frozen=True)
class Options:
    folder: str = flag("runs/finetuning", "where everything goes", metavar="FOLDER")
    train_iters: int = flag(3000, "steps of pretraining", at_least=1)
    tasks: tuple[str, ...] = flag(tuple(TASKS), "many examples, or few", choices=tuple(TASKS))
    rates: str = flag("3e-4,1e-3,3e-3", "learning rates of finetuning", metavar="X,X")
    seeds: str = flag("1234-1238", "seeds of finetuning", metavar="N-N")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__)
    folder = Path(options.folder)
    packages, vocabulary, bert = folder / "sections", folder / "vocab.txt", folder / "bert"
    for task, (examples, _) in TASKS.items():
        if not (folder / task).is_dir():
            command("tools/collect_labelled.py", "--output", folder / task, "--train", examples)
    if not vocabulary.is_file():
        words = ["--model", "wordpiece", "--vocab-size", VOCABULARY, "--output", vocabulary]
        command("tools/train_tokenizer.py", "--input", packages / "text.jsonl", *words)
    prefix = folder / "text"
    if not (folder / "text_text_sentence.bin").is_file():
        named = ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", vocabulary]
        words = ["--input", packages / "text.jsonl", "--output-prefix", prefix, "--split-sentences"]
        command("tools/preprocess_data.py", *words, *named)
    places = ["--data-path", f"{prefix}_text_sentence", "--save", bert, "--load", bert]
    length = ["--train-iters", options.train_iters, "--save-interval", 500, "--log-interval", 100]
    command("pretrain_bert.py", *MODEL.split(), *TRAINING.split(), *places, *length)
    for task in options.tasks:
        found = [rows(options, task, start) for start in ("pretrained", "random")]
        print_table(HEADINGS, itertools.chain(*found))


HEADINGS = ("task, weights", "rate", "metric", "median", "std", "least", "most")


def command(*words: object) -> None:
    """Run a command of this repository; UserError where it fails."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=os.environ, check=False)
    if done.returncode:
        raise UserError(f"{words[0]} has failed")


def rows(options: Options, task: str, start: str) -> list[list[str]]:
    """Finetune from these weights, and a row for every rate and metric."""
    folder = Path(options.folder)
    save, data = folder / f"{task}_{start}", folder / task / "sections"
    files = [f"--{flag}-file={data / name}.tsv" for flag, name in zip(("train", "valid", "test"), SPLITS)]
    sweep = ["--sweep-lr", options.rates, "--seeds", options.seeds, "--hidden-dropout", 0.1]
    more = ["--random-init"] if start == "random" else []
    words = ["--task", "classification", "--text-column", "sentence", "--epochs", TASKS[task][1], *files]
    command("finetune.py", *words, "--load", folder / "bert", "--save", save, *sweep, *more)
    found = json.loads((save / "sweep.json").read_text(encoding="utf-8"))
    return [
        [f"{task}, {start}", f"{float(rate):g}", name, *(shown(one[key]) for key in SHOWN)]
        for rate, values in found["rates"].items()
        for name, one in values.items()
    ]


def shown(value: float | None) -> str:
    """In hundredths; of one seed there is no deviation."""
    return "-" if value is None else f"{100 * value:.2f}"


SPLITS = ("train", "dev", "test")
SHOWN = ("median", "standard_deviation", "least", "most")

if __name__ == "__main__":
    run_command(main)
