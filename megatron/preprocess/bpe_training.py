"""A byte-level BPE from text: gigatoken finds the merges where it can, else HF's trainer."""

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

BETWEEN_DOCUMENTS = b"\xff"
"""A byte that no UTF-8 text holds."""


def train(content: bytes, vocab_size: int, special_tokens: tuple[str, ...]) -> Any:
    """A byte-level BPE of at most `vocab_size` tokens, equal to what HF's trainer makes of the same
    documents.

    gigatoken finds the merges, some ten times faster than HF; but it goes on where no pair is left, so
    that such (small) texts are left to HF."""
    import gigatoken

    with _quiet():
        _, pairs = gigatoken.train_bpe(
            content, vocab_size - len(special_tokens), [], separator=BETWEEN_DOCUMENTS
        )
    tokenizer = from_merges(pairs, special_tokens)
    if not pairs:
        return tokenizer
    fast = gigatoken.Tokenizer.from_json(tokenizer.to_str())
    ids = np.asarray(
        fast.encode_batch(gigatoken.BytesSource(content, separator=BETWEEN_DOCUMENTS)).layout.content.data
    )
    exhausted = len(set(pairs)) < len(pairs) or not (ids == tokenizer.get_vocab_size() - 1).any()
    return train_by_huggingface(content, vocab_size, special_tokens) if exhausted else tokenizer


def from_merges(pairs: list[tuple[bytes, bytes]], special_tokens: tuple[str, ...]) -> Any:
    """The tokenizer of these merges. Ids: special tokens, the 256 bytes in the order of their characters,
    merges."""
    from tokenizers import models

    characters = byte_characters()
    merges = [
        ("".join(characters[byte] for byte in left), "".join(characters[byte] for byte in right))
        for left, right in pairs
    ]
    tokens = dict.fromkeys([*special_tokens, *sorted(characters), *(left + right for left, right in merges)])
    tokenizer = _byte_level(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.add_special_tokens(list(special_tokens))
    return tokenizer


def train_by_huggingface(content: bytes, vocab_size: int, special_tokens: tuple[str, ...]) -> Any:
    """The same tokenizer from HF's trainer."""
    from tokenizers import models, trainers

    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=byte_characters(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.decode() for text in content.split(BETWEEN_DOCUMENTS)), trainer)
    return tokenizer


def _byte_level(model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_characters() -> list[str]:
    """The character of every byte in a byte-level vocabulary: visible Latin-1 stands for itself, the rest
    counts from U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a library prints by itself off the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for handle, copy in zip((1, 2), kept):
            os.dup2(copy, handle)
            os.close(copy)
