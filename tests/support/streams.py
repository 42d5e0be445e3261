"""Small texts as language modelling reads them, and a GPT-2 of Hugging Face's with its tokenizer."""

import random
from pathlib import Path

from tests.support.huggingface_folders import write_model
from tests.support.made_up_text import write_tokenizer

WORDS = ("the", "of", "a", "fox", "dog", "jumps", "runs", "over", "lazy", "brown", "house", "river")
LINES = {"train": 120, "valid": 14, "test": 9}


def write_streams(folder: Path) -> list[str]:
    """Lines of words, as Penn Treebank has them, and the flags that name them and a GPT-2 of 64 positions."""
    draw = random.Random(0)
    flags = ["--task", "lm", "--load", str(write_model("gpt2 of bytes", folder / "gpt2"))]
    write_tokenizer(folder / "gpt2", 300)
    for split, lines in LINES.items():
        path = folder / f"{split}.txt"
        path.write_text("".join(f" {' '.join(draw.choices(WORDS, k=12))} \n" for _ in range(lines)))
        flags += [f"--{split}-file", str(path)]
    return flags
