"""Small texts, corpora and tokenizers to test with."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

from megatron.config.config import TokenizerOptions
from megatron.preprocess.bad_lines import BadLineOptions
from megatron.preprocess.bpe_training import BETWEEN_DOCUMENTS, train
from megatron.preprocess.preprocess import PreprocessOptions

BAD_LINE_FLAGS = {field.name for field in dataclasses.fields(BadLineOptions)}
TOKENIZER_FLAGS = {field.name for field in dataclasses.fields(TokenizerOptions)}
TEXTS = [
    "The quick brown fox jumps over the lazy dog's back; it doesn't mind.\n",
    "def add(a, b):\n    return a + b  # 1234567890\n\n\n\tassert add(1, 2) == 3\r\n",
    "Größe, naïve café, ¡señor! Ελληνικά, русский язык, 中文字符 and 日本語.",
    "",
    "   spaces   inside   and at the end   ",
    "emoji 👩‍💻 flags 🇩🇪, combining e\u0301, zero\u200bwidth, \u00a0 no-break",
    "x",
    "word " * 300,
]


def write_tokenizer(folder: Path, vocab_size: int = 400) -> str:
    """A byte-level BPE as a tokenizer.json."""
    path = folder / "tokenizer.json"
    train(BETWEEN_DOCUMENTS.join(text.encode() for text in TEXTS * 2), vocab_size, ("<|endoftext|>",)).save(
        str(path)
    )
    return str(path)


def write_sentencepiece(path: Path, kind: str = "bpe", size: int = 420, **changes: Any) -> str:
    """A SentencePiece model that keeps texts as they are, unless told otherwise."""
    import sentencepiece

    settings = {
        "byte_fallback": True,
        "pad_id": 3,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    content = io.BytesIO()
    lines = [line for text in TEXTS * 40 for line in text.splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=content,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **{**settings, **changes},
    )
    path.write_bytes(content.getvalue())
    return str(path)


def write_metaspace(folder: Path, legacy: bool) -> str:
    """Words that begin with ▁: by the pre-tokenizer, or by normalizing as in Llama's tokenizer.json."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    words = ["<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *map(chr, range(33, 127))]
    vocabulary = {word: n for n, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    path = folder / ("legacy.json" if legacy else "metaspace.json")
    tokenizer.save(str(path))
    return str(path)


def write_model_without_unknown(folder: Path, kind: str) -> str:
    """A tokenizer.json that knows the words a and b, and has no token for any other."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    words = {"a": 0, "b": 1, "<|endoftext|>": 2}
    model = {
        "WordLevel": lambda: models.WordLevel(words, unk_token="[UNK]"),
        "WordPiece": lambda: models.WordPiece(words, unk_token="[UNK]"),
        "Unigram": lambda: models.Unigram([(word, -1.0) for word in words]),
    }[kind]()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "words.json"))
    return str(folder / "words.json")


BERT_WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the quick brown fox jump ##s over lazy dog ' back ; it doesn t mind . , "
    '! ? " ( ) [ ] un ##want ##ed running café cafe ##é nai ##ve naive groß ##e mask ##ing 中 文 The Fox Ca '
    "##fé 123 ##4 ##5 - / a b ##b α ##β σ ##ς й и"
)


def write_bert_vocabulary(path: Path, words: str = BERT_WORDS) -> str:
    """A vocab.txt with the words, then every letter of ASCII by itself and as a continuation."""
    letters = [mark + chr(code) for mark in ("", "##") for code in range(ord("a"), ord("z") + 1)]
    path.write_text(
        "".join(f"{word}\n" for word in dict.fromkeys([*words.split(), *letters])), encoding="utf-8"
    )
    return str(path)


def many_texts(count: int) -> list[str]:
    """Different texts of all lengths, some of them empty."""
    return [f"{number}: {TEXTS[number % len(TEXTS)]}" * (number % 7) for number in range(count)]


def write_lines(path: Path, records: list[Any], **spelling: Any) -> str:
    """JSON lines; texts become records with the key `text`."""
    lines = [
        json.dumps({"text": record} if isinstance(record, str) else record, **spelling) for record in records
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def make_options(folder: Path, *inputs: str, **changes: Any) -> PreprocessOptions:
    """Options that write `<folder>/out_text_document` with the tokenizer of `write_tokenizer`; what is there
    is replaced."""
    model = folder / "tokenizer.json"
    tokenizer = {name: changes.pop(name) for name in list(changes) if name in TOKENIZER_FLAGS}
    bad_lines = {name: changes.pop(name) for name in list(changes) if name in BAD_LINE_FLAGS}
    defaults = {
        "input": inputs,
        "output_prefix": str(folder / "out"),
        "workers": 2,
        "overwrite": True,
    }
    trained = {
        "tokenizer_type": "HuggingFaceTokenizer",
        "tokenizer_model": str(model) if model.exists() else write_tokenizer(folder),
    }
    if "tokenizer_type" in tokenizer:
        trained = {}  # a file beside a type that does not read it is refused
    return PreprocessOptions(
        **{**defaults, **changes},
        tokenizer=TokenizerOptions(**{**trained, **tokenizer}),
        bad_lines=BadLineOptions(**bad_lines),
    )
