"""What a file seems to be that is given as another kind of tokenizer."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

TIKTOKEN = re.compile(rb"(?:[A-Za-z0-9+/]+=* \d+\r?\n){3}")
VOCABULARY = re.compile(rb"(?:[^\t\n]+\t-?[\d.e-]+\r?\n){3}")
BERT = re.compile(rb"^\[CLS\]\r?$", re.MULTILINE)
PIECE = re.compile(rb"\x0a.\x0a.", re.DOTALL)
"""How a .model begins: its first piece, a message with a text."""
MERGES = re.compile(rb"#version: |(?:[^ \t\n]+ [^ \t\n]+\r?\n){3}")
PAIR = "give it as --{}-file, with its {} as --{}-file and --tokenizer-type GPT2BPETokenizer"
SETTINGS = {"tokenizer_class", "model_max_length", "eos_token", "bos_token", "unk_token", "model_type"}
SEEN = 1 << 12


def which_it_is(path: Path) -> str:
    """Words for what the file seems to be, with the flags that read it, or to bring it again."""
    with path.open("rb") as file:
        start = file.read(SEEN).removeprefix(codecs.BOM_UTF8)
    if TIKTOKEN.match(start):
        return (
            "it looks like a list of tiktoken's, as Llama 3 has: give the tokenizer.json beside it with "
            "--tokenizer-type HuggingFaceTokenizer, or one of Megatron's with --tokenizer-type TikTokenizer"
        )
    if VOCABULARY.match(start):
        return "it looks like a .vocab, a list of pieces for people: give the .model beside it"
    if BERT.search(start):
        return "it looks like BERT's vocab.txt: give it with --tokenizer-type BertWordPieceLowerCase"
    if PIECE.match(start):
        return "it looks like a SentencePiece model: give --tokenizer-type GPTSentencePieceTokenizer"
    if is_tokenizer_json(path):
        return "it looks like a tokenizer.json: give --tokenizer-type HuggingFaceTokenizer"
    if MERGES.match(start):
        return f"it looks like a merges.txt: {PAIR.format('merge', 'vocab.json', 'vocab')}"
    content = _json(path)
    if isinstance(content, dict) and content.keys() & SETTINGS:
        return (
            "it looks like a tokenizer_config.json or another file of settings: give the tokenizer.json or "
            "the tokenizer.model beside it"
        )
    if isinstance(content, dict) and content and all(isinstance(one, int) for one in content.values()):
        return f"it looks like a vocab.json: {PAIR.format('vocab', 'merges.txt', 'merge')}"
    return "bring the file again"


def is_tokenizer_json(path: Path) -> bool:
    """Whether a file has the parts of a tokenizer.json, whatever they hold."""
    content = _json(path)
    return isinstance(content, dict) and isinstance(content.get("model"), dict)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None
