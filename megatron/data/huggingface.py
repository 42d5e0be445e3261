"""Tokenizers of HF's `tokenizers`: tokenizer.json, and GPT-2's vocab.json with merges.txt."""

import itertools
import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from megatron.base.errors import UserError, collect_problems
from megatron.data.bpe_files import NO_TEXT, made_by, read_bpe, shared_ids, unmade
from megatron.data.end_of_document import EOD_NAMES, begun_by, config_beside, find_end, named_end, read_config
from megatron.data.mistaken_files import is_tokenizer_json, which_it_is
from megatron.data.prefix_space import GPT2, set_prefix_space
from megatron.data.token_engines import Encode, gigatoken_engine, probe, tokenizers_engine
from megatron.data.tokenizer_value import (
    GIGATOKEN,
    WORD_TABLE,
    TextSizes,
    Tokenizer,
    choose_engine,
    continuing,
    given_file,
    given_path,
    sizes_by_decoding,
    sizes_by_table,
)

PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>")
OTHER_VERSION = (
    "the version of tokenizers that wrote it may know more than the {} that is installed: install that one, "
    "or bring the file again"
)
SPLIT = "split_special_tokens"
"""What a tokenizer_config.json says where the name of a special token inside a text is text."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def huggingface(options: Any, engine: str) -> Tokenizer:
    """A tokenizer.json, or the folder that holds one."""
    path = given_path(options, "tokenizer_model")
    if path.is_dir():
        held = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
        path = given_file(
            path / "tokenizer.json",
            f"the folder holds {held}; name another, or a file with its kind by --tokenizer-type",
        )
    tokenizer = read_tokenizer_json(path)
    made = _made_by_merges(tokenizer, path)
    return from_library(options, engine, tokenizer, {"tokenizer_model": path}, made)


def read_tokenizer_json(path: Path) -> Any:
    """The library's tokenizer. UserError where it cannot read the file."""
    import tokenizers

    try:
        text = path.read_text(encoding="utf-8-sig")
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower class
        way_out = which_it_is(path)
        if is_tokenizer_json(path):
            way_out = OTHER_VERSION.format(tokenizers.__version__)
        why = f"{error}; {way_out}"
        raise UserError(f"{path}: is no tokenizer.json that HF tokenizers can read: {why}") from None
    content = json.loads(text)
    if dropout := content["model"].get("dropout"):
        raise UserError(
            f"{path}: has a dropout of {dropout}, by which a text has other tokens every time; "
            "write null there"
        )
    if problem := _wrong_ids(content, tokenizer.get_vocab(with_added_tokens=True)):
        raise UserError(f"{path}: {problem}")
    return tokenizer


def _wrong_ids(content: dict[str, Any], used: dict[str, int]) -> str:
    """What is wrong where tokens share an id in the file, or where the library, which numbers added tokens
    anew behind the others, gives one another id than the file."""
    words = content["model"].get("vocab", {})
    model = words.items() if isinstance(words, dict) else ((piece, n) for n, (piece, _) in enumerate(words))
    added = [(token["content"], token["id"]) for token in content.get("added_tokens") or ()]
    if problem := shared_ids([*model, *added]) or shared_ids(used.items()):
        return problem
    for token, number in added:
        if used[token] != number:
            return (
                f"gives the added token {token!r} the id {number}, and HF tokenizers reads it as "
                f"{used[token]}, behind the other tokens; write that id there, or bring the file again"
            )
    return ""


def gpt2_bpe(options: Any, engine: str) -> Tokenizer:
    """GPT-2's byte-level BPE from its vocab.json and merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    files, problems = {}, list[str]()
    for name in ("vocab_file", "merge_file"):
        with collect_problems(problems):
            files[name] = given_path(options, name)
    if problems:
        raise UserError(*problems)
    vocabulary, merges = read_bpe(*files.values())
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made, ends = made_by(merges), (options.eod_token, *EOD_NAMES)
    # Names of special tokens would be cut to letters else: these two files do not say which they are.
    beside = [name for name in vocabulary if name in ends or NO_TEXT.fullmatch(name)]
    tokenizer.add_special_tokens([name for name in beside if name not in made])
    return from_library(options, engine, tokenizer, files, made)


def _made_by_merges(tokenizer: Any, path: Path) -> set[str]:
    """The tokens that the merges of a BPE make; none for other models. UserError where it has lost them."""
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] != "BPE":
        return set()
    merges = [one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"]]
    prefix, suffix = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    text = model["vocab"].keys() - added
    lost = [] if model.get("ignore_merges") else unmade(text, merges, prefix, suffix)
    if len(lost) > len(unmade(text, [], prefix, suffix)) / 2:
        raise UserError(
            f"{path}: {len(merges):,} merges make only {len(model['vocab']) - len(lost):,} of its "
            f"{len(model['vocab']):,} tokens; the file has lost its merges, bring it again"
        )
    return made_by(merges, prefix)


def from_library(
    options: Any,
    engine: str,
    tokenizer: Any,
    files: dict[str, Path],
    made: Collection[str] = (),
    settings: tuple[Any, ...] = (),
) -> Tokenizer:
    """A tokenizer of the library as a value. `made`: tokens that merges make, which are text; `settings`:
    what changes ids besides the files."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    config = config_beside(next(iter(files.values())), vocabulary)
    added = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
    end = find_end(
        options,
        vocabulary,
        (
            ("special tokens", {name for name, special in added.items() if special}),
            ("added tokens", added),
            ("tokens that no merge makes", vocabulary.keys() - set(made) if made else ()),
        ),
        named_end(next(iter(files.values())), config, vocabulary),
    )
    settings = (*settings, *_set_up(tokenizer, files))
    special = {name: vocabulary[name] for name, is_special in added.items() if is_special}
    reference = tokenizers_engine(tokenizer)
    fast_name = WORD_TABLE if is_bert(tokenizer) else GIGATOKEN

    def fast() -> Encode:
        if fast_name == WORD_TABLE:
            from megatron.data.word_table import word_table_engine  # numba takes a while to start

            return word_table_engine(reference, added)
        return gigatoken_engine(tokenizer_json=tokenizer.to_str())

    used, encode = choose_engine(engine, reference, fast, probe(added), fast_name=fast_name)
    return Tokenizer(
        kind=options.tokenizer_type,
        files=files,
        engine=used,
        encode_batch=encode,
        reference=reference,
        decode=_decoder(tokenizer),
        vocab_size=max(vocabulary.values()) + 1,
        end=end,
        pad=next(
            (vocabulary[name] for name in (config.get("pad_token"), *PAD_NAMES) if name in vocabulary), None
        ),
        special_tokens=special | {end.name: end.id},
        vocabulary=vocabulary,
        continues=lambda: _continues(tokenizer, vocabulary),
        text_sizes=_text_sizes(tokenizer, vocabulary),
        settings=settings,
        around=_around(tokenizer) or begun_by(next(iter(files.values())), vocabulary),
    )


def _set_up(tokenizer: Any, files: dict[str, Path]) -> tuple[str, ...]:
    """Let the library's tokenizer encode whole texts, as the tokenizer_config.json beside it says. What of
    that changes ids."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    beside = read_config(next(iter(files.values())))
    changed = set_prefix_space(tokenizer, beside, GPT2 if len(files) > 1 else None)
    _give_decoder(tokenizer)
    if beside.get(SPLIT) is not True:
        return changed
    tokenizer.encode_special_tokens = True
    return (*changed, SPLIT)


def _continues(tokenizer: Any, vocabulary: dict[str, int]) -> np.ndarray | None:
    """Models mark what continues a word, as WordPiece does, or what begins one: `Ġ` is the space of
    byte-level BPE, `▁` that of SentencePiece. Added tokens are words of their own. Those that mark neither
    have words alone, or do not tell."""
    model = json.loads(tokenizer.to_str())["model"]
    prefix = model.get("continuing_subword_prefix")
    words = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    begins = "Ġ" if _is_byte_level(tokenizer) else "▁"
    marked = any(token.startswith(begins) for token in vocabulary)
    if not (prefix or marked or model["type"] == "WordLevel"):
        return None

    def continues(token: str) -> bool:
        if token in words:
            return False
        return token.startswith(prefix) if prefix else marked and not token.startswith(begins)

    return continuing(vocabulary, max(vocabulary.values()) + 1, continues)


def _around(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that its post-processor puts around a text."""
    empty = tokenizer.encode("")
    return tuple(itertools.compress(empty.tokens, empty.special_tokens_mask))


def is_bert(tokenizer: Any) -> bool:
    """Whether the library's tokenizer cuts and cleans texts as BERT's does."""
    content = json.loads(tokenizer.to_str())
    normalizer, cut = content["normalizer"] or {}, content["pre_tokenizer"] or {}
    return (
        content["model"]["type"] == "WordPiece"
        and (normalizer.get("type"), cut.get("type")) == ("BertNormalizer", "BertPreTokenizer")
        and normalizer["clean_text"]
        and not any(token["normalized"] for token in content["added_tokens"])
    )


def _give_decoder(tokenizer: Any) -> None:
    """A file may lack the decoder, without which ids become pieces with spaces between them: what marks
    spaces in a text says how they come back."""
    from tokenizers import decoders, pre_tokenizers

    if tokenizer.decoder is not None:
        return
    cut = tokenizer.pre_tokenizer
    if _is_byte_level(tokenizer):
        tokenizer.decoder = decoders.ByteLevel()
    elif isinstance(cut, pre_tokenizers.Metaspace):
        tokenizer.decoder = decoders.Metaspace(replacement=cut.replacement, prepend_scheme=cut.prepend_scheme)


def _is_byte_level(tokenizer: Any) -> bool:
    parts = [part.__getstate__() for part in (tokenizer.decoder, tokenizer.pre_tokenizer) if part is not None]
    return any(b'"ByteLevel"' in part for part in parts)


def _decoder(tokenizer: Any) -> Callable[[Any], str]:
    """Ids to text. The library's byte-level decoder takes the letters of an added token for bytes where all
    of them could be some, as in `naïve`; such tokens are put in as they are."""

    def plain(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    added = tokenizer.get_added_tokens_decoder() if _is_byte_level(tokenizer) else {}
    altered = {number: token.content for number, token in added.items() if plain([number]) != token.content}

    def decode(ids: Any) -> str:
        pieces = itertools.groupby(map(int, ids), altered.get)
        return "".join(
            plain(list(piece)) if text is None else text * len(list(piece)) for text, piece in pieces
        )

    return decode


def _text_sizes(tokenizer: Any, vocabulary: dict[str, int]) -> TextSizes:
    """A token of a byte-level model has one character a byte; an added token is plain text."""
    if not _is_byte_level(tokenizer):
        bytes_of = {number for token, number in vocabulary.items() if BYTE.fullmatch(token)}
        return sizes_by_decoding(
            lambda rows: tokenizer.decode_batch(rows, skip_special_tokens=False), bytes_of
        )
    added = tokenizer.get_added_tokens_decoder()
    counts = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, number in vocabulary.items():
        counts[number] = len(token.encode()) if number in added else len(token)
    whole = sizes_by_table(counts)
    splits = tokenizer.pre_tokenizer.__getstate__() if tokenizer.pre_tokenizer else b""
    if b'"add_prefix_space":true' not in splits:
        return whole
    spaced = np.zeros(len(counts), bool)  # the library puts a space before every text
    spaced[[number for token, number in vocabulary.items() if token.startswith("Ġ")]] = True
    return lambda rows: whole(rows) - [len(row) > 0 and bool(spaced[row[0]]) for row in rows]
