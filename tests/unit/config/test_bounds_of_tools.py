"""Numbers that a tool cannot work with are refused while its flags are read."""

from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.config.flags import flags_of
from megatron.curriculum.analyze_dataset import AnalysisOptions
from megatron.preprocess.preprocess import PreprocessOptions
from tools import collect_corpus, convert_checkpoint, evaluate, generate_text, inspect_data, train_tokenizer

IN_GB = "--max-shard-size takes a number, not '{}'; give GB without their unit, such as 5, and 0.5 for 500 MB"


@pytest.mark.parametrize(
    "options, word, told",
    [
        (PreprocessOptions, "--workers=0", "--workers 0 must be at least 1"),
        (PreprocessOptions, "--max-sequence-length=0", "--max-sequence-length 0 must be at least 1"),
        (PreprocessOptions, "--max-bad-lines=-1", "--max-bad-lines -1 must not be negative"),
        (AnalysisOptions, "--workers=0", "--workers 0 must be at least 1"),
        (AnalysisOptions, "--seq-length=0", "--seq-length 0 must be at least 1"),
        (collect_corpus.Options, "--min-size=-1", "--min-size -1.0 must not be negative"),
        (evaluate.Options, "--micro-batch-size=0", "--micro-batch-size 0 must be at least 1"),
        (evaluate.Options, "--max-windows=0", "--max-windows 0 must be at least 1"),
        (generate_text.Options, "--num-tokens=0", "--num-tokens 0 must be at least 1"),
        (generate_text.Options, "--temperature=-1", "--temperature -1.0 must not be negative"),
        (generate_text.Options, "--top-p=1.5", "--top-p 1.5 must be in [0, 1]"),
        (inspect_data.Options, "--samples=-1", "--samples -1 must not be negative"),
        (convert_checkpoint.Options, "--max-shard-size=5GB", IN_GB.format("5GB")),
        (convert_checkpoint.Options, "--max-shard-size=5G", IN_GB.format("5G")),
        (train_tokenizer.Options, "--max-bytes=0", "--max-bytes 0 must be at least 1"),
        (train_tokenizer.Options, "--vocab-size=1e9", "--vocab-size 1000000000 must be at most 16777216"),
    ],
)
def test_bounds(options: Any, word: str, told: str) -> None:
    needed = {one.spellings[0]: one.field.metadata["choices"] for one in flags_of(options) if one.required}
    required = [f"{name}={choices[0] if choices else 1}" for name, choices in needed.items()]
    with pytest.raises(UserError) as caught:
        parse(options, [*required, word], description="")
    assert caught.value.problems == (told,)
