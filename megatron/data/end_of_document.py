"""Which token ends a document, from what a tokenizer's files say; and whether the settings beside them are
of the same tokenizer."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.base.errors import UserError
from megatron.data.tokenizer_value import EndOfDocument

EOD_NAMES = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOD]")
SEPARATOR = "[SEP]"
"""What BERT's tokenizers have in the place of an end, of a usual name or none."""
CONFIG, ADDED, TOKENS_MAP = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
SHOWN = 5
Ranks = Sequence[tuple[str, Collection[str]]]
"""Groups of tokens by what they are, in words, from those that most likely end documents."""


def find_end(
    options: Any, vocabulary: Mapping[str, int], ranks: Ranks, named: tuple[str, str] | None = None
) -> EndOfDocument:
    """The token that ends documents: of --eod-token, `named` with who names it, or else a usual name of the
    first rank that has one. UserError where a rank has several."""
    if options.eod_token is not None:
        if options.eod_token not in vocabulary:
            raise UserError(
                f"--eod-token {options.eod_token}: the tokenizer has no such token; name one that it has"
            )
        return EndOfDocument(vocabulary[options.eod_token], options.eod_token, "named by --eod-token")
    if named is not None:
        return EndOfDocument(vocabulary[named[0]], named[0], f"named by {named[1]}")
    for kind, tokens in (*ranks, ("tokens", vocabulary)):
        found = [name for name in EOD_NAMES if name in tokens]
        if len(found) > 1:
            raise UserError(
                f"any of {' and '.join(found)} could end documents, and nothing says which does; choose with "
                "--eod-token"
            )
        if found:
            reason = f"the only usual name among the {kind}"
            return EndOfDocument(vocabulary[found[0]], found[0], reason)
        if SEPARATOR in tokens:
            reason = "which parts texts, for no token has a usual name of an end"
            return EndOfDocument(vocabulary[SEPARATOR], SEPARATOR, reason)
    raise UserError(
        f"the tokenizer has none of the usual end-of-document tokens ({', '.join(EOD_NAMES)}); name it "
        "with --eod-token, or, if it has none, train it again with one of these among its special tokens"
    )


def read_config(path: Path) -> dict[str, Any]:
    """The tokenizer_config.json beside a tokenizer's file; empty where there is none. UserError where it is
    no JSON object."""
    config = path.with_name(CONFIG)
    try:
        content = json.loads(config.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(_cannot(config, error)) from None
    if not isinstance(content, dict):
        raise UserError(_cannot(config, "it is no object"))
    return content


def _cannot(config: Path, why: object) -> str:
    return f"{config}: cannot be read: {why}; mend it or move it away"


def config_beside(path: Path, vocabulary: Mapping[str, int]) -> dict[str, str]:
    """The names of the special tokens in a tokenizer_config.json beside a tokenizer's file, or nothing.
    UserError where it is of another tokenizer."""
    _require_added(path, vocabulary)
    config, content = path.with_name(CONFIG), read_config(path)
    try:
        named = {
            key: text for key, value in content.items() if key.endswith("_token") if (text := _text(value))
        }
        more = [_text(one) for one in content.get("additional_special_tokens") or ()]
        by_id = {int(number): _text(one) for number, one in content.get("added_tokens_decoder", {}).items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(_cannot(config, error)) from None
    named.pop("fill_token", None)  # CodeLlama's stands for a place in a text, and is no token
    names = [*named.items(), *(("additional_special_tokens", one) for one in more if one)]
    wrong = [f"{key} {name}, which is no token there" for key, name in names if name not in vocabulary]
    wrong += [
        f"{name} as token {number}, which is {vocabulary.get(name, 'none')} there"
        for number, name in by_id.items()
        if name is not None and vocabulary.get(name) != number
    ]
    if wrong:
        rest = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{config}: is not of the tokenizer in {path.name} ({len(vocabulary):,} tokens): it names "
            f"{'; '.join(wrong[:SHOWN])}{rest}; bring the files that belong together, or move this one away"
        )
    return named


def named_end(path: Path, config: Mapping[str, str], vocabulary: Mapping[str, int]) -> tuple[str, str] | None:
    """The end of texts that a tokenizer_config.json names, or else the special_tokens_map.json of older
    tokenizers, with the name of the file; None where neither does."""
    if name := config.get("eos_token"):
        return name, CONFIG
    try:
        content = json.loads(path.with_name(TOKENS_MAP).read_text(encoding="utf-8-sig"))
        name = _text(content.get("eos_token"))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(_cannot(path.with_name(TOKENS_MAP), error)) from None
    return (name, TOKENS_MAP) if name is not None and name in vocabulary else None


def begun_by(path: Path, vocabulary: Mapping[str, int]) -> tuple[str, ...]:
    """The token before every text that a tokenizer_config.json beside a tokenizer's file asks for, in its
    words or as the class of LLaMA does; none where there is no such file."""
    name, config = config_beside(path, vocabulary).get("bos_token"), read_config(path)
    of_llama = str(config.get("tokenizer_class")).removeprefix("Code").startswith("LlamaTokenizer")
    return (name,) if name and config.get("add_bos_token", of_llama) else ()


def _require_added(path: Path, vocabulary: Mapping[str, int]) -> None:
    """UserError where the file of tokens that were added to a tokenizer later has some that it lacks: texts
    would be cut to their letters, but for padding, which no text has. A tokenizer.json has its own."""
    beside = path.with_name(ADDED)
    if path.name == "tokenizer.json" or not beside.is_file():
        return
    try:
        added = list(json.loads(beside.read_text(encoding="utf-8-sig")))
    except (ValueError, TypeError) as error:
        raise UserError(_cannot(beside, error)) from None
    lacking = [str(name) for name in added if name not in vocabulary and "pad" not in str(name).lower()]
    if lacking:
        rest = f", and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        raise UserError(
            f"{beside}: has {', '.join(lacking[:SHOWN])}{rest}, and {path.name} has not; write a "
            "tokenizer.json by save_pretrained of transformers' AutoTokenizer and name that, or move this "
            "away where texts have no such token"
        )


def _text(value: Any) -> str | None:
    """The text of a token, which may be an object that holds it."""
    text = value["content"] if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
