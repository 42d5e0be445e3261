"""Megatron's TikTokenizer: a list of byte strings by rank, behind room for special tokens.

The file is Megatron's JSON (objects of rank, token_bytes and token_str) or a .tiktoken of lines `base64
rank`. The first --vocab-size less --tiktoken-num-special-tokens of its tokens are used, and ids of special
tokens come first.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.data.end_of_document import find_end
from megatron.data.mistaken_files import which_it_is
from megatron.data.token_engines import tiktoken_engine
from megatron.data.tokenizer_value import Tokenizer, choose_engine, given_file, given_path, sizes_by_table

VOCAB_SIZE = 2**17
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
MARK = r"[^\r\n\p{L}\p{N}]"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SPACES = (r"\s+(?!\S)", r"\s+")
PATTERNS = {
    "v1": (MARK + r"?+\p{L}+", r"\p{N}", r" ?[^\s\p{L}\p{N}]++[\r\n]*", r"\s*[\r\n]", *SPACES),
    "v2": (
        f"{MARK}?{UPPER}*{LOWER}+",
        f"{MARK}?{UPPER}+{LOWER}*",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        *SPACES,
    ),
}
"""Megatron's two ways to cut a text into words, as alternatives from left to right."""


def tiktokenizer(options: Any, engine: str) -> Tokenizer:
    """A list of byte strings, encoded by OpenAI's tiktoken."""
    path = given_file(given_path(options, "tokenizer_model"))
    if options.tiktoken_pattern is None:
        raise UserError(f"--tiktoken-pattern is missing: it is one of {' and '.join(PATTERNS)}")
    size = options.vocab_size or VOCAB_SIZE
    special = _special_tokens(options, size)
    tokens = read_ranks(path)
    room = size - len(special)
    if len(tokens) < room:
        raise UserError(
            f"{path}: holds {len(tokens):,} tokens, and a vocabulary of {size:,} with {len(special):,}"
            f" special ones needs {room:,}; the file is cut, or --vocab-size is {len(tokens) + len(special)}"
        )
    return _build(options, engine, path, tokens[:room], special)


def _build(options: Any, engine: str, path: Path, tokens: list[bytes], special: dict[str, int]) -> Tokenizer:
    import tiktoken

    encoding = tiktoken.Encoding(
        name=path.stem,
        pat_str="|".join(PATTERNS[options.tiktoken_pattern]),
        mergeable_ranks={token: number for number, token in enumerate(tokens, len(special))},
        special_tokens=special,
    )
    reference = tiktoken_engine(encoding)
    used, encode = choose_engine(engine, reference, _no_fast_engine, [], name="tiktoken")
    end = find_end(options, special, (), ("</s>", "Megatron's TikTokenizer"))
    sizes = [*(len(name.encode()) for name in special), *map(len, tokens)]
    named = options.tiktoken_special_tokens or SPECIAL_TOKENS
    return Tokenizer(
        kind=options.tokenizer_type,
        files={"tokenizer_model": path},
        engine=used,
        encode_batch=encode,
        reference=reference,
        decode=lambda ids: encoding.decode(list(map(int, ids))),
        vocab_size=len(sizes),
        end=end,
        pad=special.get("<pad>"),
        special_tokens=special,
        vocabulary=special,
        continues=lambda: np.array([False] * len(special) + [token[:1] != b" " for token in tokens]),
        text_sizes=sizes_by_table(np.array(sizes, np.int64)),
        settings=(options.tiktoken_pattern, len(special), *named),
    )


def _no_fast_engine() -> Any:
    raise ValueError("it knows no Megatron pattern of tiktoken")


def _special_tokens(options: Any, size: int) -> dict[str, int]:
    """The special tokens and their ids, filled up to their number."""
    names = list(options.tiktoken_special_tokens or SPECIAL_TOKENS)
    count = options.tiktoken_num_special_tokens
    flag = f"--tiktoken-special-tokens {' '.join(names)}"
    if len(set(names)) < len(names):
        raise UserError(f"{flag}: names a token twice; name each once")
    if missing := [name for name in SPECIAL_TOKENS if name not in names]:
        raise UserError(f"{flag}: needs {' '.join(missing)} too, as in Megatron")
    if not len(names) <= count < size:
        raise UserError(
            f"--tiktoken-num-special-tokens {count}: must be at least the {len(names)} that are named and "
            f"below the vocabulary's {size:,}"
        )
    names += [f"<SPECIAL_{number}>" for number in range(len(names), count)]
    return {name: number for number, name in enumerate(names)}


def read_ranks(path: Path) -> list[bytes]:
    """The byte strings of a file by rank. UserError where it is cut, or no such list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        tokens = _of_json(json.loads(text)) if text.lstrip().startswith("[") else _of_lines(text)
        if problem := _problem(tokens):
            raise ValueError(problem)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is no whole list of tiktoken's tokens: {error}; {which_it_is(path)}"
        ) from None
    return tokens


def _of_json(content: Any) -> list[bytes]:
    for number, one in enumerate(content):
        if one["rank"] != number:
            raise ValueError(f"entry {number} has the rank {one['rank']}")
    return [base64.b64decode(one["token_bytes"], validate=True) for one in content]


def _of_lines(text: str) -> list[bytes]:
    tokens = []
    for number, line in enumerate(filter(None, text.split("\n")), 1):
        parts = line.split()
        if len(parts) != 2 or not parts[1].isdigit():
            raise ValueError(f"line {number}, {line[:40]!r}, is no token and rank")
        if int(parts[1]) != number - 1:
            raise ValueError(f"line {number} has the rank {parts[1]}")
        tokens.append(base64.b64decode(parts[0], validate=True))
    return tokens


def _problem(tokens: list[bytes]) -> str | None:
    """What a list lacks whose tokens are to be made from bytes, each from two earlier ones."""
    ranks = {token: number for number, token in enumerate(tokens)}
    if len(ranks) < len(tokens):
        return f"{len(tokens) - len(ranks)} of its {len(tokens):,} tokens are there twice"
    if absent := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        return f"{len(absent)} of the 256 bytes are not among its {len(tokens):,} tokens"
    return None
