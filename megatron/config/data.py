"""The flags of the data, and the rules between them."""

import re
from dataclasses import dataclass

from megatron.config.flags import flag
from megatron.config.tokenizer import TokenizerOptions

USUAL_SPLIT = "969,30,1"


@dataclass(frozen=True)
class DataConfig:
    seq_length: int = flag(help="tokens of a full sample", at_least=1)
    data_path: tuple[str, ...] = flag(
        (), "prefix of the .bin/.idx files, or weights and prefixes: W1 P1 W2 P2 ...", resume="meaning"
    )
    split: str = flag(
        USUAL_SPLIT, "shares of training, validation and test, as ranges of sequences", resume="meaning"
    )
    train_data_path: tuple[str, ...] = flag(
        (), "like --data-path, for training alone; whole files, no split", resume="meaning"
    )
    valid_data_path: tuple[str, ...] = flag((), "like --train-data-path, for validation", resume="meaning")
    test_data_path: tuple[str, ...] = flag((), "like --train-data-path, for test", resume="meaning")
    mock_data: bool = flag(False, "made-up tokens instead of files, to try a configuration out")
    eod_mask_loss: bool = flag(False, "no loss where the input is an end-of-document token")
    reset_position_ids: bool = flag(False, "positions start at 0 after every end-of-document token")
    reset_attention_mask: bool = flag(False, "no attention across documents")
    allow_trailing_bytes: bool = flag(False, "accept a .bin longer than its .idx says", resume="free")


def _once(data: DataConfig) -> list[str]:
    separate, found = data.train_data_path or data.valid_data_path or data.test_data_path, []
    if sum(map(bool, (data.data_path, separate, data.mock_data))) != 1:
        found.append("give the data once: --data-path, or --train-data-path and its fellows, or --mock-data")
    if separate and not data.train_data_path:
        found.append(
            "--valid-data-path and --test-data-path go with --train-data-path; give it, or one --data-path "
            "with --split"
        )
    return found


def _made_up(data: DataConfig, tokenizer: TokenizerOptions) -> list[str]:
    if data.mock_data and tokenizer.vocab_size is None:
        return ["--mock-data needs --vocab-size, the number of made-up tokens"]
    return []


def split_numbers(text: str) -> list[float]:
    """The numbers of a split such as "969,30,1": at most three, apart by commas, slashes or spaces, and in
    brackets or quotes or not, as Megatron reads them. ValueError where they are none."""
    parts = re.split(r"\s*[,/]\s*|\s+", text.strip("[]()'\" \t\n"))
    if len(parts) > 3 or not all(re.fullmatch(r"\d+\.?\d*|\.\d+", part, re.ASCII) for part in parts):
        raise ValueError
    return [float(part) for part in parts]


def split_problems(text: str) -> list[str]:
    """What is wrong with a split."""
    try:
        numbers = split_numbers(text)
    except ValueError:
        return [
            f"--split {text}: is no list of up to three plain numbers, the shares of training, validation "
            "and test; write for example 969,30,1"
        ]
    if not any(numbers):
        return [f"--split {text}: no share is above 0; write for example 969,30,1"]
    return []


def known_split(data: DataConfig) -> list[str]:
    """Where a split is none, or is given beside whole files, which it does not split."""
    if data.train_data_path and data.split != USUAL_SPLIT:
        return [
            f"--split {data.split}: without effect, as --train-data-path and its fellows give whole files; "
            "leave it out, or give one --data-path with it"
        ]
    return split_problems(data.split)


RULES = (_once, _made_up, known_split)
