"""All kinds of models that are read and written, by the model_type of a config.json."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.config.config import Config
from megatron.config.flags import flags_of, spelling
from megatron.conversion.bert import BERT
from megatron.conversion.family import Family
from megatron.conversion.gpt2 import GPT2
from megatron.conversion.llama import LLAMA, MISTRAL, MIXTRAL, QWEN2
from megatron.conversion.modernbert import MODERNBERT
from megatron.conversion.vit import VIT, classes_in

FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "mixtral": MIXTRAL,
    "bert": BERT,
    "modernbert": MODERNBERT,
    "vit": VIT,
}


class Theirs(NamedTuple):
    """A model of theirs: its family, its config.json, the flags of the same model here, and how many tokens,
    or classes, it knows."""

    family: Family
    content: dict[str, Any]
    flags: dict[str, Any]
    vocab_size: int


def read_content(content: Mapping[str, Any]) -> Theirs:
    """What a config.json means here. UserError with everything that has no like here."""
    kind = content.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"model_type {kind!r} is none of {', '.join(FAMILIES)}, which are known here")
    try:
        flags, problems = FAMILIES[kind].describe(content)
        vocabulary = classes_in(content) if kind == "vit" else content["vocab_size"]
    except KeyError as error:
        raise UserError(
            f"says nothing of {error.args[0]}, which a {kind} needs; bring the file again"
        ) from None
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"is no config.json of a {kind} ({error}); bring the file again") from None
    problems = [*problems, *_odd(flags), *_quantized(content)]
    if type(vocabulary) is not int or vocabulary < 1:
        problems.append(f"vocab_size {vocabulary!r} is no number of tokens; bring the file again")
    if problems:
        raise UserError(*problems)
    return Theirs(FAMILIES[kind], dict(content), flags, vocabulary)


def _quantized(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with weights of fewer bits, whatever types their files have."""
    found = content.get("quantization_config")
    if not found:
        return []
    kind = found.get("quant_method", "of some kind") if isinstance(found, Mapping) else found
    return [
        f"quantization_config ({kind}) has no like here; bring the model as it was before, or, where the "
        "files have whole weights again, take that entry out"
    ]


def _odd(flags: Mapping[str, Any]) -> list[str]:
    """What is no value of its flag."""
    numbers = [one for one in flags_of(Config) if one.kind in (int, float) and one.name in flags]
    return [
        f"{spelling(one.name)} would be {flags[one.name]!r}, which is no {one.kind.__name__}; bring the file "
        "again"
        for one in numbers
        if flags[one.name] is not None and not _fits(one.kind, flags[one.name])
    ]


def _fits(kind: type, value: Any) -> bool:
    return type(value) is int or (kind is float and type(value) is float)


def lost_tokens(theirs: Theirs) -> str:
    """Words for the tokens of a config.json that a checkpoint does not keep without their tokenizer."""
    names = [f"{name}_token_id" for name in ("bos", "pad", "cls", "sep")]
    said = [f"{name} {theirs.content[name]}" for name in names if theirs.content.get(name) is not None]
    return f"; without it the config.json loses {' and '.join(said)}" if said else ""


def state_content(task: str, config: Config, vocab_size: int) -> Theirs:
    """The model of a configuration as one of theirs. UserError with what the nearest one has no like for."""
    found: dict[str, list[str]] = {}
    for kind, family in FAMILIES.items():
        if family.task != task or family.state is None:
            continue
        content, problems = family.state(config, vocab_size)
        if not problems:
            content = {"architectures": [family.architecture], "model_type": kind, **content}
            return Theirs(family, content, family.describe(content)[0], vocab_size)
        found[kind] = problems
    if not found:
        raise UserError(
            f"a model of the task {task} has no like at Hugging Face; convert the checkpoint that it began "
            "with"
        )
    near = min(found, key=lambda kind: ("--num-experts" in found[kind], len(found[kind])))
    raise UserError(
        f"no model of Hugging Face's is the same: the nearest, {near}, has no like for "
        f"{'; '.join(found[near])}. Known are {', '.join(found)}"
    )
