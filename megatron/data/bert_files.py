"""BERT's WordPiece tokenizers, from a vocab.txt or a tokenizer.json: the library is HF's `tokenizers`, put
together as `transformers.BertTokenizerFast` does."""

import codecs
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from megatron.base.errors import UserError
from megatron.data.end_of_document import CONFIG, read_config
from megatron.data.huggingface import from_library, read_tokenizer_json
from megatron.data.mistaken_files import which_it_is
from megatron.data.tokenizer_value import Tokenizer, given_file, given_path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LOWER = "BertWordPieceLowerCase"
NAMES = ("tokenizer.json", "vocab.txt")
SHOWN = 3
CASED = 0.05
"""Of a vocabulary's tokens those with upper-case letters, if it keeps the case: BERT's own have over 0.2."""


def bert_wordpiece(options: Any, engine: str) -> Tokenizer:
    """BertWordPieceLowerCase or BertWordPieceCase. UserError where the file is of the other, is no WordPiece,
    or lacks a special token of BERT."""
    flag = "vocab_file" if options.vocab_file else "tokenizer_model"
    path = given_path(options, flag if options.tokenizer_model else "vocab_file")
    path = _in_folder(path) if path.is_dir() else given_file(path)
    lower = options.tokenizer_type == LOWER
    library, settings = library_of(path, lower)
    _require_bert(library, path, lower)
    return from_library(options, engine, library, {flag: path}, settings=settings)


def library_of(path: Path, lower: bool) -> tuple[Any, tuple[Any, ...]]:
    """The library's tokenizer of a vocab.txt or a tokenizer.json, and what is set otherwise than usual."""
    if path.read_bytes().removeprefix(codecs.BOM_UTF8)[:1] == b"{":
        return read_tokenizer_json(path), ()
    return _of_vocabulary(path, lower)


def _in_folder(folder: Path) -> Path:
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        held = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise UserError(f"{folder}: holds {held}; give a vocab.txt, or a folder with {' or '.join(NAMES)}")
    return found


def _of_vocabulary(path: Path, lower: bool) -> tuple[Any, tuple[Any, ...]]:
    """The library's tokenizer of a vocab.txt, and what a tokenizer_config.json beside it sets otherwise."""
    vocabulary, config = read_vocabulary(path), read_config(path)
    if config.get("do_lower_case", lower) != lower:
        other = "BertWordPieceCase" if lower else LOWER
        raise UserError(
            f"{path.with_name(CONFIG)}: says do_lower_case {str(not lower).lower()}, and --tokenizer-type is "
            f"{LOWER if lower else 'BertWordPieceCase'}; give --tokenizer-type {other}"
        )
    if lower and "do_lower_case" not in config and (upper := upper_case(vocabulary)):
        raise UserError(
            f"{path}: {len(upper):,} of {len(vocabulary):,} tokens have upper-case letters, such as "
            f"{upper[0]!r}, and {LOWER} makes none of them; give --tokenizer-type BertWordPieceCase, or, if "
            f'lower case is meant, a {CONFIG} beside it with {{"do_lower_case": true}}'
        )
    if not lower and "do_lower_case" not in config and _is_lower(vocabulary):
        raise UserError(
            f"{path}: no token has an upper-case letter, so that every word with one would be [UNK]; give "
            f"--tokenizer-type {LOWER}, or, if that is meant, a {CONFIG} beside it with "
            '{"do_lower_case": false}'
        )
    chinese, accents = config.get("tokenize_chinese_chars", True), config.get("strip_accents")
    tokenizer = bert_of_vocabulary(vocabulary, lower, chinese=chinese, accents=accents)
    changed = {"tokenize_chinese_chars": (chinese, True), "strip_accents": (accents, None)}
    return tokenizer, tuple(f"{name} {value}" for name, (value, usual) in changed.items() if value != usual)


def bert_of_vocabulary(
    vocabulary: dict[str, int],
    lower: bool,
    special: Iterable[str] = SPECIAL,
    chinese: bool = True,
    accents: bool | None = None,
) -> Any:
    """The library's tokenizer. `chinese`: Chinese characters are words of their own; `accents`: they are
    stripped, None where `lower` is set."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=accents, lowercase=lower
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([name for name in special if name in vocabulary])
    if {"[CLS]", "[SEP]"} <= vocabulary.keys():
        ends = [(name, vocabulary[name]) for name in ("[SEP]", "[CLS]")]
        tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer


def upper_case(vocabulary: Iterable[str]) -> list[str]:
    """The tokens with upper-case letters of a vocabulary that keeps the case; none of another. Names in
    brackets are no text."""
    tokens = list(vocabulary)
    upper = [
        one for one in tokens if one != one.lower() and (one[0], one[-1]) not in (("[", "]"), ("<", ">"))
    ]
    return upper if len(upper) > CASED * len(tokens) else []


def _is_lower(vocabulary: Iterable[str]) -> bool:
    """Whether a vocabulary has all small Latin letters, but no large letter of any kind."""
    text = {one for one in vocabulary if (one[0], one[-1]) not in (("[", "]"), ("<", ">"))}
    return set(ascii_lowercase) <= text and all(one == one.lower() for one in text)


def read_vocabulary(path: Path) -> dict[str, int]:
    """The tokens of a vocab.txt, one a line, by their ids. UserError where it is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is no vocab.txt, byte {error.start + 1} is no UTF-8; {which_it_is(path)}"
        ) from None
    first: dict[str, int] = {}
    for number, token in enumerate(lines):
        if not token or token in first:
            what = f"repeats {token!r} of line {first[token] + 1}" if token else "is empty"
            raise UserError(
                f"{path}: is no vocab.txt of one token a line: line {number + 1} {what}; {which_it_is(path)}"
            )
        first[token] = number
    return first


def _require_bert(library: Any, path: Path, lower: bool) -> None:
    content = json.loads(library.to_str())
    kind = content["model"]["type"]
    if kind != "WordPiece":
        raise UserError(
            f"{path}: is a {kind} tokenizer, no WordPiece; give --tokenizer-type HuggingFaceTokenizer"
        )
    vocabulary = library.get_vocab(with_added_tokens=True)
    if missing := [name for name in SPECIAL if name not in vocabulary]:
        shown = " ".join(map(repr, itertools.islice(vocabulary, SHOWN)))
        raise UserError(
            f"{path}: has no {', '.join(missing)}, which BERT needs, among its {len(vocabulary):,} tokens, "
            f"such as {shown}; bring the vocabulary of a BERT, or train one with tools/train_tokenizer.py "
            "--model wordpiece"
        )
    says = (content.get("normalizer") or {}).get("lowercase")
    if says is not None and says != lower:
        other = "BertWordPieceCase" if lower else LOWER
        raise UserError(
            f"{path}: {'keeps' if lower else 'lowers'} the case of letters; give --tokenizer-type {other}"
        )
