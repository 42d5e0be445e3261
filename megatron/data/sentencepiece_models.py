"""Tokenizers of SentencePiece .model files.

All kinds encode alike and end documents with the model's own token. Megatron's Llama2Tokenizer begins every
document with the token that begins texts, too.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError
from megatron.data.end_of_document import begun_by, config_beside, find_end
from megatron.data.mistaken_files import which_it_is
from megatron.data.token_engines import (
    Encode,
    Encoding,
    apart,
    gigatoken_engine,
    probe,
    sentencepiece_engine,
)
from megatron.data.tokenizer_value import (
    EndOfDocument,
    Tokenizer,
    choose_engine,
    continuing,
    given_file,
    given_path,
    sizes_by_decoding,
)

PARTS = {2: "how it was trained", 3: "how it normalizes text"}
"""Fields of a .model, behind its pieces, without which the library encodes by defaults."""


def sentencepiece_model(options: Any, engine: str) -> Tokenizer:
    """A SentencePiece .model; Megatron's names for it differ in nothing that makes ids."""
    return _build(options, engine, "SentencePieceTokenizer", begins=False)


def llama2(options: Any, engine: str) -> Tokenizer:
    """A SentencePiece .model; every document begins with the model's beginning-of-sentence token."""
    return _build(options, engine, "Llama2Tokenizer", begins=True)


def _build(options: Any, engine: str, kind: str, begins: bool) -> Tokenizer:
    path = given_file(given_path(options, "tokenizer_model"))
    processor = _load(path)
    pieces = [processor.id_to_piece(number) for number in range(processor.vocab_size())]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if begins and processor.bos_id() < 0:
        raise UserError(
            f"{path}: has no token that begins a text, which {options.tokenizer_type} needs; use "
            "--tokenizer-type GPTSentencePieceTokenizer"
        )
    end = _end(options, processor, vocabulary, path)

    def is_symbol(number: int) -> bool:
        return number == end.id or processor.is_control(number) or processor.is_unknown(number)

    special = {piece: number for piece, number in vocabulary.items() if is_symbol(number)}
    reference = sentencepiece_engine(processor)
    # sentencepiece reads the name of a control token inside a text as plain text, gigatoken as the token.
    names = re.compile("|".join(map(re.escape, special)))
    fast = lambda: apart(names, gigatoken_engine(sentencepiece_model=str(path)), reference)  # noqa: E731
    used, encode = choose_engine(engine, reference, fast, probe(special))
    if begins:
        first = processor.bos_id()
        exact = encode is reference
        reference = beginning_with(first, reference)
        encode = reference if exact else beginning_with(first, encode)
    return Tokenizer(
        kind=kind,
        files={"tokenizer_model": path},
        engine=used,
        encode_batch=encode,
        reference=reference,
        decode=lambda ids: processor.decode(list(map(int, ids))),
        vocab_size=processor.vocab_size(),
        end=end,
        pad=processor.pad_id() if processor.pad_id() >= 0 else None,
        special_tokens=special,
        vocabulary=vocabulary,
        continues=lambda: continuing(
            vocabulary,
            len(pieces),
            lambda piece: not piece.startswith("▁") and not is_symbol(vocabulary[piece]),
        ),
        text_sizes=sizes_by_decoding(
            processor.decode, {number for number in range(len(pieces)) if processor.is_byte(number)}
        ),
        around=() if begins else begun_by(path, vocabulary),
    )


def _load(path: Path) -> Any:
    """The library's reader of a .model. UserError where the file is none, or cut."""
    import sentencepiece

    content = path.read_bytes()
    missing = [words for number, words in PARTS.items() if number not in _fields(content)]
    if not missing:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=content)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path}: is no SentencePiece model: {error}; bring the file again") from None
    raise UserError(
        f"{path}: is no SentencePiece model, or is cut: its {len(content):,} bytes do not say "
        f"{' and '.join(missing)}; {which_it_is(path) if not _fields(content) else 'bring the file again'}"
    )


def _fields(content: bytes) -> set[int]:
    """The numbers of the fields that a protobuf message holds whole."""
    found, place = set(), 0
    while place < len(content):
        tag, place = _varint(content, place)
        if tag & 7 != 2:  # all fields of a .model are messages
            break
        size, place = _varint(content, place)
        place += size
        if place <= len(content):
            found.add(tag >> 3)
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place behind it."""
    value = shift = 0
    while place < len(content):
        byte = content[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            break
    return value, place


def _end(options: Any, processor: Any, vocabulary: dict[str, int], path: Path) -> EndOfDocument:
    named = config_beside(path, vocabulary).get("eos_token")
    if named:
        by: tuple[str, str] | None = (named, "tokenizer_config.json")
    else:
        number = processor.eos_id()
        by = (processor.id_to_piece(number), "the model itself") if number >= 0 else None
    control = {piece for piece, number in vocabulary.items() if processor.is_control(number)}
    return find_end(options, vocabulary, (("control tokens", control),), by)


def beginning_with(first: int, encode: Encode) -> Encode:
    """Encode as `encode` does, with the token `first` before every text."""

    def encode_all(texts: list[str]) -> Encoding:
        ids, lengths = encode(texts)
        starts = np.cumsum(lengths) - lengths
        return np.insert(ids, starts, first), lengths + 1

    return encode_all
