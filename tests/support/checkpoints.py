"""Checkpoints of models that were never trained, with the tokenizer kept beside them."""

import dataclasses
import json
from pathlib import Path

import torch

from megatron.checkpoint.manifest import Manifest, as_read
from megatron.checkpoint.save import save_checkpoint
from megatron.config.tokenizer import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.data.tokenizer_files import keep_tokenizer
from megatron.data.vocabulary import Vocabulary
from megatron.parallel.initialization import initialize
from megatron.parallel.placement import placements
from megatron.tasks.gpt import GPT_TASK
from tests.support.configurations import make_config
from tests.support.made_up_text import write_tokenizer

NONE = TokenizerOptions()
FLAGS = "--num-layers 2 --hidden-size 16 --seq-length 16 --train-iters 1 --hidden-dropout 0.5 "


def tokenizer_in(folder: Path, size: int = 400) -> TokenizerOptions:
    folder.mkdir(exist_ok=True)
    return TokenizerOptions("HuggingFaceTokenizer", tokenizer_model=write_tokenizer(folder, size))


def trained(
    root: Path, options: TokenizerOptions = NONE, task: str = "gpt", more: str = "", seed: int = 5
) -> torch.nn.Module:
    """A model with first weights, saved as the checkpoint of step 3; `options` name its tokenizer."""
    config = dataclasses.replace(make_config(FLAGS + more), tokenizer=options)
    vocabulary = Vocabulary(90, 7, None)
    if options != NONE:
        tokenizer = build_tokenizer(options)
        identity = json.loads(json.dumps(tokenizer.identity()))
        vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.eod, identity)
    model = GPT_TASK.build_model(config, vocabulary.size, ())
    initialize(model, seed)
    manifest = as_read(Manifest(task, dataclasses.asdict(config), vocabulary, [], [], {}, {}, {}))
    files = {"model": {name: one.data for name, one in model.named_parameters()}}
    save_checkpoint(root, files, placements(model), dataclasses.replace(manifest, iteration=3))
    return model.eval()


def kept_with(root: Path, options: TokenizerOptions) -> None:
    """Keep the tokenizer with the run, as training does."""
    tokenizer = build_tokenizer(options)
    identity = json.loads(json.dumps(tokenizer.identity()))
    keep_tokenizer(str(root), options, [], Vocabulary(tokenizer.vocab_size, tokenizer.eod, identity))
