"""Train a tokenizer on text: a byte-level BPE for GPT, or BERT's WordPiece, as a tokenizer.json."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.base.terminal import progress
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.config.foreign import Foreign
from megatron.config.values import as_words
from megatron.data.bert_files import SPECIAL
from megatron.data.end_of_document import CONFIG
from megatron.preprocess.bad_lines import BadLineOptions, LeftOut, leave_out, refuse, report
from megatron.preprocess.bpe_training import BETWEEN_DOCUMENTS, train
from megatron.preprocess.documents import Piece, cut_into_pieces
from megatron.preprocess.inputs import find_files
from megatron.preprocess.long_words import cut_long_words
from megatron.preprocess.wordpiece_training import MOST_LETTERS, train_wordpiece

EXAMPLES = """\
  python tools/train_tokenizer.py --input corpus.jsonl --output tokenizer.json
  python tools/train_tokenizer.py --input 'shards/*.jsonl.zst' --vocab-size 32768 --output tokenizer.json \\
      --special-tokens '<|endoftext|>' '<|pad|>' --max-bytes 2e9
  python tools/train_tokenizer.py --input corpus.jsonl --model wordpiece --vocab-size 30528 \\
      --output my_wordpiece/vocab.txt
      writes vocab.txt and, beside it, tokenizer.json for --tokenizer-type BertWordPieceLowerCase"""

LETTERS = "a BPE of bytes has all characters, WordPiece as many as --limit-alphabet says; leave it out"
FOREIGN = {
    "character-coverage": Foreign((), LETTERS),
    "min-frequency": Foreign((), "give a smaller --vocab-size, which leaves the rarest merges out"),
}
LARGEST_VOCABULARY = 1 << 24


@dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = flag(
        help="files, globs or folders, as for tools/preprocess_data.py",
        metavar="FILES",
        of_several="give all behind one --input",
    )
    output: str = flag(
        help="the tokenizer.json to write, or a folder; of wordpiece also a vocab.txt: both are written",
        metavar="FILE",
    )
    model: str = flag("bpe", "bpe: of bytes; wordpiece: BERT's", choices=("bpe", "wordpiece"))
    cased: bool = flag(
        False, "keep the case of letters and their accents, as BertWordPieceCase; of wordpiece"
    )
    vocab_size: int = flag(
        8192, "tokens, special ones included; a multiple of 128 wastes none", at_most=LARGEST_VOCABULARY
    )
    limit_alphabet: int = flag(
        MOST_LETTERS,
        "letters and signs of wordpiece, the most frequent; words with others are [UNK]",
        at_least=1,
    )
    json_keys: tuple[str, ...] = flag(("text",), "keys or columns that hold text", metavar="KEY")
    special_tokens: tuple[str, ...] = flag(
        ("<|endoftext|>",),
        "tokens of their own, from id 0 on; no other is learned from them. Of wordpiece: behind [PAD] [UNK] "
        "[CLS] [SEP] [MASK]",
        metavar="TOKEN",
    )
    max_bytes: int = flag(
        500_000_000, "read about so many bytes of text, from the start of the input", at_least=1
    )
    overwrite: bool = flag(False, "replace a file that is there already")
    bad_lines: BadLineOptions = field(default_factory=BadLineOptions)


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    files = find_files(options.input)
    outputs = output_files(options)
    if problems := _problems(options, files, outputs):
        raise UserError(*problems)
    began = time.perf_counter()
    with ExitStack() as opened:
        open_files = {path: opened.enter_context(whole_file(path, "w")) for path in outputs}
        content = read_text(options, files)
        tokenizer = _train(options, content)
        for path, file in open_files.items():
            file.write(outputs[path](tokenizer, options))
    size, seconds = tokenizer.get_vocab_size(), time.perf_counter() - began
    print(f"{options.output}: {size:,} tokens from {len(content) / 1e6:,.1f} MB of text, in {seconds:.1f} s")
    if size < options.vocab_size:
        print(f"the text holds no more pairs to merge: --vocab-size {options.vocab_size} was not reached")


def output_files(options: Options) -> "dict[str, Callable[[Any, Options], str]]":
    """What is written, by path, from the tokenizer."""
    path = options.output
    if options.model == "bpe":
        return {os.path.join(path, "tokenizer.json") if _is_folder(path) else path: _whole}
    if _is_folder(path):
        contents = {"tokenizer.json": _whole, "vocab.txt": _lines, CONFIG: _config}
        return {os.path.join(path, name): content for name, content in contents.items()}
    if path.endswith(".txt"):
        return {path: _lines, os.path.join(os.path.dirname(path), "tokenizer.json"): _whole}
    return {path: _whole}


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) or path.endswith("/")


def _whole(tokenizer: Any, options: Options) -> str:
    return str(tokenizer.to_str(pretty=True))


def _lines(tokenizer: Any, options: Options) -> str:
    vocabulary = tokenizer.get_vocab()
    return "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))


def _config(tokenizer: Any, options: Options) -> str:
    """What transformers needs to know beside the files."""
    return (
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": not options.cased}, indent=2) + "\n"
    )


def _train(options: Options, content: bytes) -> Any:
    if options.model == "bpe":
        return train(content, options.vocab_size, options.special_tokens)
    texts = [text.decode() for text in content.split(BETWEEN_DOCUMENTS)]
    return train_wordpiece(
        texts, options.vocab_size, options.cased, special_of(options), options.limit_alphabet
    )


def special_of(options: Options) -> tuple[str, ...]:
    """The special tokens; the one of a BPE is none of BERT's."""
    if options.model == "bpe":
        return options.special_tokens
    more = () if options.special_tokens == Options.special_tokens else options.special_tokens
    return tuple(dict.fromkeys([*SPECIAL, *more]))


def _problems(options: Options, files: list[str], outputs: Iterable[str]) -> list[str]:
    """What is wrong with the flags."""
    special, found = options.special_tokens, []
    if options.cased and options.model == "bpe":
        found.append("--cased is of --model wordpiece: a BPE of bytes keeps all text; leave it out")
    if options.limit_alphabet != MOST_LETTERS and options.model == "bpe":
        found.append("--limit-alphabet is of --model wordpiece: a BPE of bytes has all letters; leave it out")
    if options.model == "bpe" and options.vocab_size < 256 + len(special):
        found.append(
            f"--vocab-size {options.vocab_size} must be at least {256 + len(special)}, for 256 bytes and "
            f"{len(special)} special tokens"
        )
    if len(set(special)) < len(special):
        found.append(f"--special-tokens {' '.join(special)}: a token is given twice; give each once")
    for token in special:
        if several := as_words(token, lambda word: word.startswith("<") and word.endswith(">")):
            found.append(f"--special-tokens {token}: {several}")
    if not options.json_keys:
        found.append("--json-keys needs a value: the key or column that holds the text")
    for output in outputs:
        if any(os.path.exists(output) and os.path.samefile(output, path) for path in files):
            found.append(f"--output {output} is a file of --input, which would be lost; write elsewhere")
        elif os.path.isfile(output) and not options.overwrite:
            found.append(_is_there(output, options.output))
    return found


def _is_there(path: str, output: str) -> str:
    """Of a file that is not to be lost: that of --output, or one that is written beside it."""
    if path == output or os.path.dirname(path) == output.rstrip("/"):
        return (
            f"--output {path}: is there already, and datasets may be of it; choose another, or replace "
            "it with --overwrite"
        )
    folder = os.path.join(os.path.dirname(path), "my_wordpiece", os.path.basename(output))
    return (
        f"--output {output}: {os.path.basename(path)} is written beside it, and {path} is there already, "
        f"perhaps of another tokenizer; choose a folder of its own, such as {folder}, or replace it with "
        "--overwrite"
    )


def read_text(options: Options, files: list[str]) -> bytes:
    """The documents of the files without special tokens, parted by a byte that is no text, up to about
    --max-bytes."""
    size = 0
    pieces: list[bytes] = []
    left_out = LeftOut()
    input_pieces = iter(cut_into_pieces(files))
    with progress("reading", min(sum(map(os.path.getsize, files)), options.max_bytes), "MB", 1e6) as advance:
        for piece in input_pieces:
            texts, bad = piece.read(options.json_keys)
            refuse(piece, bad, options.bad_lines)
            leave_out(left_out, piece, bad, options.bad_lines)
            found = [part for text in itertools.chain(*texts) for part in apart(text, special_of(options))]
            pieces += found
            size += sum(map(len, found))
            advance(piece.input_bytes)
            if size >= options.max_bytes:
                break
    if not size:
        raise UserError(f"no text in {', '.join(options.input)}; name files that hold some", *left_out.shown)
    if size >= options.max_bytes and _any_left(input_pieces):
        print(_not_all(size, options.max_bytes), file=sys.stderr)
    report(left_out)
    return BETWEEN_DOCUMENTS.join(pieces)


def _any_left(input_pieces: Iterator[Piece]) -> bool:
    """Whether there is more to read, be it damaged: nobody needs it."""
    try:
        return next(input_pieces, None) is not None
    except UserError:
        return True


def _not_all(size: int, most: int) -> str:
    return (
        f"note: the first {size / 1e6:,.1f} MB of text were read, as --max-bytes {most:,} says, and the rest "
        "of --input was not: raise it, or give files of all kinds first"
    )


def apart(text: str, special_tokens: tuple[str, ...]) -> list[bytes]:
    """What lies between the special tokens of a text, which are found as an encoder finds them: the longest
    one at a place. A token learned from their letters would never be used. Words of a length that no trainer
    takes are cut, too."""
    longest_first = sorted(filter(None, special_tokens), key=len, reverse=True)
    parts = re.split("|".join(map(re.escape, longest_first)), text) if longest_first else [text]
    return [piece.encode() for part in parts for piece in cut_long_words(part)]


if __name__ == "__main__":
    run_command(main)
