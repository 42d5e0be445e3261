"""Encoders of Hugging Face's as finetuning begins with them: of whatever class, and with whatever heads."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from megatron.base.errors import UserError
from megatron.conversion.bert import BERT
from megatron.conversion.family import Family
from megatron.conversion.folder import spelled_as
from megatron.conversion.modernbert import MODERNBERT
from megatron.conversion.origins import Origin, origin

ENCODERS: dict[str, Family] = {"bert": BERT, "modernbert": MODERNBERT}


class Foreign(NamedTuple):
    """A model of theirs: values of our flags by name, and the origin of every tensor of ours, whether or not
    a file has it: heads differ from class to class. `classifies`: it tells classes, or a value, of texts."""

    flags: dict[str, Any]
    names: dict[str, Origin]
    classifies: bool = False


CLASSIFIER = {f"pair_head.output.{kind}": origin(f"classifier.{kind}") for kind in ("weight", "bias")}
"""The last matrix of a model that does."""
WHOLE = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)


def read_config_json(content: Mapping[str, Any]) -> Foreign:
    """What a config.json means here. UserError with everything that has no like here."""
    kind = content.get("model_type")
    if kind not in ENCODERS:
        raise UserError(f"model_type {kind!r} is none of {', '.join(ENCODERS)}, which are read here")
    family = ENCODERS[kind]
    if missing := [name for name in WHOLE if name not in content]:
        raise UserError(f"says nothing of {missing[0]}, which a {kind} needs; bring the file again")
    if wrong := [name for name in WHOLE if type(content[name]) is not int or content[name] < 1]:
        raise UserError(*(f"{name} {content[name]!r} must be a whole number above 0" for name in wrong))
    flags, problems = family.describe(content)
    if problems:
        raise UserError(*problems)
    classifies = "ForSequenceClassification" in str(content.get("architectures"))
    return Foreign(flags, family.names(flags) | (CLASSIFIER if classifies else {}), classifies)


def found_in(names: Mapping[str, Origin], there: Iterable[str]) -> dict[str, Origin]:
    """The tensors of ours that a file has, whatever class of theirs has written it."""
    known = set(there)
    return {mine: one for mine, one in spelled_as(names, known).items() if {*one.names} <= known}
