"""Tokenizers from local files, under Megatron's names. Nothing is ever fetched.

A kind of tokenizer is a function `(options, engine) -> Tokenizer` and an entry in `TOKENIZERS`. `options`
is anything with the attributes tokenizer_type, tokenizer_model, vocab_file, merge_file, eod_token and
vocab_size.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.data.token_engines import (
    Encode,
    apart,
    first_difference,
    gigatoken_engine,
    numbers_engine,
    probe,
    sentencepiece_engine,
    tokenizers_engine,
)

EOD_NAMES = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOD]")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>")


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as a value. `encode_batch` gives the ids of all texts back to back and the length of
    each; it adds nothing. `reference` does the same by the library that defines the tokenizer."""

    kind: str
    files: tuple[Path, ...]
    engine: str
    encode_batch: Encode
    reference: Encode
    decode: Callable[[Sequence[int] | np.ndarray], str]
    vocab_size: int
    eod: int
    pad: int | None
    special_tokens: dict[str, int]
    token_bytes: Callable[[], np.ndarray]
    """How many UTF-8 bytes of text every id stands for, int64 [vocab_size]; special tokens stand for none."""

    def identity(self) -> dict[str, Any]:
        """What must be equal for two datasets to hold the same ids."""
        files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files]
        return {"type": self.kind, "sha256": files, "vocab_size": self.vocab_size}


def build_tokenizer(options: Any, engine: str = "tokenizers") -> Tokenizer:
    """The tokenizer that the options name. `engine`: "tokenizers" is the reference library, "gigatoken"
    the fast one (UserError where it cannot), "auto" the fast one where it can."""
    if options.tokenizer_type not in TOKENIZERS:
        raise UserError(f"--tokenizer-type {options.tokenizer_type}: choose one of {', '.join(TOKENIZERS)}")
    tokenizer = TOKENIZERS[options.tokenizer_type](options, engine)
    if tokenizer.files and options.vocab_size not in (None, tokenizer.vocab_size):
        raise UserError(
            f"--vocab-size {options.vocab_size}: the tokenizer has {tokenizer.vocab_size} tokens; leave "
            "--vocab-size out"
        )
    return tokenizer


def describe_identity(identity: dict[str, Any] | None) -> str:
    """A tokenizer's identity in words."""
    if not identity:
        return "an unknown tokenizer"
    files = " ".join(str(one)[:12] for one in identity.get("sha256", ()))
    return f"a {identity.get('type')} of {identity.get('vocab_size')} tokens" + (
        f" (files {files}...)" if files else ""
    )


def _huggingface(options: Any, engine: str) -> Tokenizer:
    """A tokenizer.json, or the folder that holds one."""
    import tokenizers

    path = _given(options, "tokenizer_model")
    if path.is_dir():
        held = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
        path = _file(path / "tokenizer.json", f"the folder holds {held}")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"{path}: is no tokenizer.json that HF tokenizers can read: {error}") from None
    return _by_huggingface(options, engine, tokenizer, (path,))


def _gpt2_bpe(options: Any, engine: str) -> Tokenizer:
    """GPT-2's byte-level BPE from its vocab.json and merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    files = (_given(options, "vocab_file"), _given(options, "merge_file"))
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(*map(str, files)))
    except Exception as error:  # the library raises no narrower class
        raise UserError(
            f"{files[0]}, {files[1]}: are no vocab.json and merges.txt of one BPE: {error}"
        ) from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [name for name in (options.eod_token, *EOD_NAMES) if name and tokenizer.token_to_id(name) is not None]
    )
    return _by_huggingface(options, engine, tokenizer, files)


def _by_huggingface(options: Any, engine: str, tokenizer: Any, files: tuple[Path, ...]) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    config = _config_beside(files[0])
    eod = _end_of_document(options, vocabulary, config.get("eos_token"))
    special = {token.content: number for number, token in sorted(added.items()) if token.special} | {
        tokenizer.id_to_token(eod): eod
    }
    reference = tokenizers_engine(tokenizer)
    texts = probe(token.content for token in added.values())
    used, encode = _choose(
        engine, reference, lambda: gigatoken_engine(tokenizer_json=tokenizer.to_str()), texts
    )
    return Tokenizer(
        kind=options.tokenizer_type,
        files=files,
        engine=used,
        encode_batch=encode,
        reference=reference,
        decode=lambda ids: tokenizer.decode(list(map(int, ids)), skip_special_tokens=False),
        vocab_size=max(vocabulary.values()) + 1,
        eod=eod,
        pad=next(
            (vocabulary[name] for name in (config.get("pad_token"), *PAD_NAMES) if name in vocabulary), None
        ),
        special_tokens=special,
        token_bytes=lambda: _huggingface_bytes(tokenizer, vocabulary, special),
    )


def _sentencepiece(options: Any, engine: str) -> Tokenizer:
    """A SentencePiece .model."""
    import sentencepiece

    path = _given(options, "tokenizer_model")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(_file(path)))
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path}: is no SentencePiece model: {error}") from None
    pieces = [processor.id_to_piece(number) for number in range(processor.vocab_size())]
    own_eod = pieces[processor.eos_id()] if processor.eos_id() >= 0 else None
    named = _config_beside(path).get("eos_token") or own_eod
    eod = _end_of_document(options, {piece: number for number, piece in enumerate(pieces)}, named)
    special = {
        piece: n
        for n, piece in enumerate(pieces)
        if n == eod or processor.is_control(n) or processor.is_unknown(n)
    }
    reference = sentencepiece_engine(processor)
    # sentencepiece reads the name of a control token inside a text as plain text, gigatoken as the token.
    names = re.compile("|".join(map(re.escape, special)))
    fast = lambda: apart(names, gigatoken_engine(sentencepiece_model=str(path)), reference)  # noqa: E731
    used, encode = _choose(engine, reference, fast, probe(special))
    return Tokenizer(
        kind=options.tokenizer_type,
        files=(path,),
        engine=used,
        encode_batch=encode,
        reference=reference,
        decode=lambda ids: processor.decode(list(map(int, ids))),
        vocab_size=processor.vocab_size(),
        eod=eod,
        pad=processor.pad_id() if processor.pad_id() >= 0 else None,
        special_tokens=special,
        token_bytes=lambda: np.array(
            [0 if piece in special else _piece_bytes(piece) for piece in pieces], np.int64
        ),
    )


def _null(options: Any, engine: str) -> Tokenizer:
    """Texts of ids; the end-of-document token is one more id behind the vocabulary."""
    if not options.vocab_size or options.vocab_size < 1:
        raise UserError(
            f"--vocab-size {options.vocab_size}: {options.tokenizer_type} needs the number of ids, at least 1"
        )
    if engine == "gigatoken":
        raise UserError(
            f"--tokenizer-engine gigatoken: {options.tokenizer_type} needs no engine; leave the flag out"
        )
    eod = options.vocab_size
    encode = numbers_engine(eod + 1)
    return Tokenizer(
        kind=options.tokenizer_type,
        files=(),
        engine="numbers",
        encode_batch=encode,
        reference=encode,
        decode=lambda ids: " ".join(str(int(number)) for number in ids),
        vocab_size=eod + 1,
        eod=eod,
        pad=None,
        special_tokens={"<eod>": eod},
        token_bytes=lambda: np.array([len(str(number)) + 1 for number in range(eod)] + [0], np.int64),
    )


TOKENIZERS: dict[str, Callable[[Any, str], Tokenizer]] = {
    "HuggingFaceTokenizer": _huggingface,
    "GPT2BPETokenizer": _gpt2_bpe,
    "SentencePieceTokenizer": _sentencepiece,
    "NullTokenizer": _null,
}


def _choose(
    engine: str, reference: Encode, fast: Callable[[], Encode], texts: list[str]
) -> tuple[str, Encode]:
    """The name and function of the engine to use; gigatoken only where it encodes the probe as the
    reference does."""
    if engine == "tokenizers":
        return "tokenizers", reference
    try:
        candidate = fast()
        different = first_difference(candidate(texts), reference(texts))
        if different is None:
            return "gigatoken", candidate
        why = f"it encodes {texts[different][:60]!r} otherwise"
    except ValueError as error:
        why = str(error)
    if engine == "gigatoken":
        raise UserError(
            f"--tokenizer-engine gigatoken: gigatoken cannot do this tokenizer ({why}); leave the flag out"
        )
    return "tokenizers", reference


def _given(options: Any, name: str) -> Path:
    """The path in an option, which must exist on this machine."""
    flag = "--" + name.replace("_", "-")
    value = getattr(options, name)
    if not value:
        raise UserError(f"{flag} is missing: --tokenizer-type {options.tokenizer_type} needs it")
    if not Path(value).exists():
        raise UserError(
            f"{flag} {value}: does not exist; it must be a local path, tokenizers are never fetched from "
            "a hub"
        )
    return Path(value)


def _file(path: Path, hint: str = "give the file itself") -> Path:
    if not path.is_file():
        raise UserError(f"{path}: is no file; {hint}")
    return path


def _config_beside(path: Path) -> dict[str, Any]:
    """The names of the special tokens in a tokenizer_config.json beside a tokenizer's file, or nothing."""
    config = path.with_name("tokenizer_config.json")
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        return {
            key: value["content"] if isinstance(value, dict) else value
            for key, value in content.items()
            if key.endswith("_token")
        }
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{config}: cannot be read: {error}; mend it or move it away") from None


def _end_of_document(options: Any, vocabulary: dict[str, int], named: str | None) -> int:
    """The id that ends documents: of --eod-token, of the tokenizer's own configuration, or of a usual
    name."""
    if options.eod_token is not None:
        if options.eod_token not in vocabulary:
            raise UserError(f"--eod-token {options.eod_token}: the tokenizer has no such token")
        return vocabulary[options.eod_token]
    for name in (named, *EOD_NAMES):
        if name in vocabulary:
            return vocabulary[name]
    raise UserError(
        f"the tokenizer has none of the usual end-of-document tokens ({', '.join(EOD_NAMES)}); name it "
        "with --eod-token"
    )


def _huggingface_bytes(tokenizer: Any, vocabulary: dict[str, int], special: dict[str, int]) -> np.ndarray:
    """Bytes a token of a HF tokenizer. A token of a byte-level model has one character a byte; an added
    token is plain text."""
    parts = [part.__getstate__() for part in (tokenizer.decoder, tokenizer.pre_tokenizer) if part is not None]
    byte_level = any(b'"ByteLevel"' in part for part in parts)
    added = tokenizer.get_added_tokens_decoder()
    counts = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, number in vocabulary.items():
        if number in added:
            counts[number] = len(token.encode())
        else:
            counts[number] = len(token) if byte_level else _piece_bytes(token)
    counts[list(special.values())] = 0
    return counts


def _piece_bytes(piece: str) -> int:
    """Bytes of a SentencePiece piece: <0x0A> is one byte, ▁ a space."""
    return 1 if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else len(piece.replace("▁", " ").encode())
