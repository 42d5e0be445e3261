"""Whether a space is put before a text, where a tokenizer_config.json says so to a class of transformers that
takes this from there, and not from the tokenizer.json."""

import json
from collections.abc import Mapping
from typing import Any

ADDED = "add_prefix_space"
GPT2 = "GPT2Tokenizer"
BYTE_LEVEL = {GPT2} | {
    f"{name}Tokenizer"
    for name in (
        *("Bart", "Blenderbot", "CodeGen", "Cohere", "Deberta", "GPTNeoX", "LED", "Longformer", "Qwen2"),
        *("Roberta", "Whisper"),
    )
}
LLAMA = {"LlamaTokenizer", "CodeLlamaTokenizer"}
"""Classes without the end Fast of older versions. PreTrainedTokenizerFast takes the tokenizer.json as it
is."""
MARK = "▁"
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
"""How a normalizer marks spaces, where no pre-tokenizer does."""


def set_prefix_space(tokenizer: Any, config: Mapping[str, Any], usual: str | None) -> tuple[str, ...]:
    """Let the library's tokenizer put a space before texts, or none, as its class does by a
    tokenizer_config.json; `usual`: the class where that names none. What was changed, which changes ids."""
    from tokenizers import pre_tokenizers

    wanted, changed = config.get(ADDED), False
    if not isinstance(wanted, bool):
        return ()
    name = str(config.get("tokenizer_class") or usual).removesuffix("Fast")
    if name in LLAMA:
        changed |= _set_normalizer(tokenizer, wanted)
    for part in _parts(tokenizer.pre_tokenizer, "pretokenizers"):
        if isinstance(part, pre_tokenizers.ByteLevel) and name in BYTE_LEVEL:
            changed |= part.add_prefix_space != wanted
            part.add_prefix_space = wanted
        if isinstance(part, pre_tokenizers.Metaspace) and name in LLAMA:
            before = part.prepend_scheme
            changed |= (before != "never") != wanted
            part.prepend_scheme = ("first" if before == "never" else before) if wanted else "never"
    return (f"{ADDED}={wanted}",) if changed else ()


def _set_normalizer(tokenizer: Any, wanted: bool) -> bool:
    """Where a normalizer puts the space before texts: whether it was changed."""
    from tokenizers import normalizers

    parts = _parts(tokenizer.normalizer, "normalizers")
    states = [json.loads(part.__getstate__()) for part in parts]
    put = states[:1] == [{"type": "Prepend", "prepend": MARK}]
    if SPACES not in states or put == wanted:
        return False
    parts = [normalizers.Prepend(MARK), *parts] if wanted else parts[1:]
    tokenizer.normalizer = normalizers.Sequence(parts)
    return True


def _parts(whole: Any, name: str) -> list[Any]:
    """What changes or cuts texts, one after another; `name`: what a sequence of such calls them."""
    if whole is None:
        return []
    several = json.loads(whole.__getstate__()).get(name)
    return [whole] if several is None else [whole[number] for number in range(len(several))]
