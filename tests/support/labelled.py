"""Small labelled texts in the words of a small vocabulary, and small encoders of Hugging Face's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.support.made_up_text import write_bert_vocabulary

WORDS = {"0": ("quick", "fox", "jump", "dog"), "1": ("lazy", "mind", "doesn", "brown")}
"""The words that tell a class, by class."""
FILLING = ("the", "it", "over", "back", "t", "running")


def texts_of(labels: list[str], seed: int = 0) -> list[str]:
    """A text for every label."""
    generator = np.random.default_rng(seed)
    drawn = [[*generator.choice(WORDS[label], 2), *generator.choice(FILLING, 3)] for label in labels]
    return [" ".join(generator.permutation(words)) for words in drawn]


def write_own(folder: Path, count: int = 48) -> list[str]:
    """Files of a classification, and the flags that name them."""
    flags = ["--task", "classification", "--text-column", "sentence"]
    for seed, (name, ending) in enumerate({"train": "jsonl", "valid": "tsv", "test": "tsv"}.items()):
        labels = [str(number % 2) for number in range(count if name == "train" else 20)]
        rows = list(zip(texts_of(labels, seed), labels))
        path = folder / f"{name}.{ending}"
        if ending == "jsonl":
            lines = [json.dumps({"sentence": text, "label": int(label)}) for text, label in rows]
        else:
            lines = ["sentence\tlabel", *map("\t".join, rows)]
        path.write_text("\n".join(lines) + "\n")
        flags += [f"--{name}-file", str(path)]
    return flags


def bert_config(vocab_size: int, **more: Any) -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
        initializer_range=0.2,
        **more,
    )


def modern_config(vocab_size: int, **more: Any) -> transformers.ModernBertConfig:
    return transformers.ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=24,
        local_attention=6,
        initializer_range=0.2,
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
        attn_implementation="sdpa",
        **more,
    )


def write_huggingface(
    folder: Path,
    seed: int = 3,
    kind: type = transformers.BertModel,
    config: Callable[..., Any] = bert_config,
    **more: Any,
) -> Path:
    """A folder with a random encoder and its vocabulary."""
    folder.mkdir()
    vocabulary = write_bert_vocabulary(folder / "vocab.txt")
    size = len(Path(vocabulary).read_text(encoding="utf-8").splitlines())
    torch.manual_seed(seed)
    kind(config(size, **more)).save_pretrained(folder)
    return folder
