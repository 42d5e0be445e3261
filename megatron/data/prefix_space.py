"""Whether a space is put before a text, where a tokenizer_config.json says so to a class of transformers that
takes this from there, and not from the tokenizer.json."""

import json
from collections.abc import Iterator, Mapping
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


def set_prefix_space(tokenizer: Any, config: Mapping[str, Any], usual: str | None) -> tuple[str, ...]:
    """Let the library's tokenizer put a space before texts, or none, as its class does by a
    tokenizer_config.json; `usual`: the class where that names none. What was changed, which changes ids."""
    from tokenizers import pre_tokenizers

    wanted, changed = config.get(ADDED), False
    if not isinstance(wanted, bool):
        return ()
    name = str(config.get("tokenizer_class") or usual).removesuffix("Fast")
    for part in _parts(tokenizer.pre_tokenizer):
        if isinstance(part, pre_tokenizers.ByteLevel) and name in BYTE_LEVEL:
            changed |= part.add_prefix_space != wanted
            part.add_prefix_space = wanted
        if isinstance(part, pre_tokenizers.Metaspace) and name in LLAMA:
            before = part.prepend_scheme
            changed |= (before != "never") != wanted
            part.prepend_scheme = ("first" if before == "never" else before) if wanted else "never"
    return (f"{ADDED}={wanted}",) if changed else ()


def _parts(cut: Any) -> Iterator[Any]:
    """What cuts texts, one after another."""
    if cut is not None:
        several = json.loads(cut.__getstate__()).get("pretokenizers")
        yield from [cut] if several is None else (cut[number] for number in range(len(several)))
