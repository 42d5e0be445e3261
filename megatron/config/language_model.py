"""The flags of finetuning a GPT on text, beside those of pretraining, and the rules between them."""

from dataclasses import dataclass, field

from megatron.config.config import Config
from megatron.config.finetuning import LM, of_sweeps
from megatron.config.flags import flag

ENDINGS = (".txt", ".jsonl")
BATCH, RATE = 4, 1e-4
"""Blocks of a step, and peak rate, where no flag says otherwise (arXiv 2212.03597, Penn Treebank)."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    task: str = flag(help="language modelling", choices=(LM,))
    train_file: str = flag(
        help="text to train on: .txt, which is one stream, or .jsonl, whose lines are documents",
        metavar="FILE",
    )
    valid_file: str = flag(help="the same, whose perplexity is told after every epoch", metavar="FILE")
    test_file: str | None = flag(None, "the same, whose perplexity is told at the end", metavar="FILE")
    epochs: float = flag(
        3.0,
        "passes over the training text, in effective tokens; where given, --train-* are left out",
        above=0,
        aliases=("--num-train-epochs",),
    )
    cache: str | None = flag(
        None, "folder for tokens and converted weights; the folder cache beside --save", metavar="FOLDER"
    )
    random_init: bool = flag(False, "the same model from random weights, to compare with")
    sweep_lr: str | None = flag(None, "a run for every learning rate, such as 2e-5,3e-5", metavar="X,X")
    seeds: str | None = flag(None, "a run for every seed, such as 1234-1238 or 1,2,5", metavar="N-N")
    parallel: int | None = flag(
        None, "runs of a sweep at a time; cores / threads of a run, or GPUs", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class LanguageModelFlags(Config):
    """What finetune.py --task lm takes: the flags of pretraining, and those of the text."""

    finetuning: LanguageModelConfig = field()


def of_text_files(finetuning: LanguageModelConfig) -> list[str]:
    """Which files are read."""
    one = finetuning
    files = {"train": one.train_file, "valid": one.valid_file, "test": one.test_file}
    return [
        f"--{name}-file {path}: is read by its ending: rename plain text to .txt, and JSON lines to .jsonl; "
        "of tables pandas makes these by to_json(FILE, orient='records', lines=True)"
        for name, path in files.items()
        if path and not path.endswith(ENDINGS)
    ]


RULES = (of_text_files, of_sweeps)
