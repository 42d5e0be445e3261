"""What a folder of Hugging Face's holds, as what a checkpoint of ours is written from."""

import torch

from megatron.base.errors import UserError
from megatron.conversion.folder import Folder, Reader, spelled_as
from megatron.conversion.origins import Origin, origin
from megatron.conversion.to_ours import Source
from megatron.conversion.vit import classes_named

TIED = ("lm_head.weight", "decoder.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
"""The embedding and its bias once more, by another name."""
BIAS = "cls.predictions.bias"
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "base_model.model.": "PEFT",
    "module.": "DistributedDataParallel",
}
"""Parts of names that are no model's own, and where they come from."""


def source_of(folder: Folder) -> Source:
    """The model of a folder, whose files have all of its tensors. UserError otherwise."""
    theirs = folder.theirs
    return Source(
        path=folder.path,
        task=theirs.family.task,
        flags=theirs.flags,
        vocab_size=theirs.vocab_size,
        origins=_matched(folder),
        tensors=folder.tensors,
        reader=lambda: Reader(folder.tensors),
        classes=tuple(classes_named(theirs.content)) if theirs.family.task == "vit" else (),
    )


def _matched(folder: Folder) -> dict[str, Origin]:
    """The origin of every tensor, all there and nothing else beside them. UserError otherwise."""
    flags = folder.theirs.flags
    origins = spelled_as(folder.theirs.family.names(flags), folder.tensors)
    tied = set() if flags.get("untie_embeddings_and_output_weights") else {*TIED}
    if tied:
        origins = _by_the_head(folder, origins)
    used = {name for one in origins.values() for name in one.names}
    problems = [f"has no {name}" for name in sorted(used - folder.tensors.keys())]
    more = sorted(folder.tensors.keys() - used - tied)
    problems += [f"has {name}, which has no like here" for name in more]
    if problems:
        rest = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{folder.path}: {'; '.join(problems[:3])}{rest}; {_way_out(folder)}")
    if tied:
        _refuse_other_heads(folder, origins)
    return origins


def _by_the_head(folder: Folder, origins: dict[str, Origin]) -> dict[str, Origin]:
    """The same, where a file holds a tied embedding by the name of the head alone, as save_model of
    safetensors leaves out one of both."""
    mine = "word_embeddings.weight"
    heads = [name for name in TIED if name.endswith("weight") and name in folder.tensors]
    if mine not in origins or origins[mine].name in folder.tensors or not heads:
        return origins
    return origins | {mine: origin(heads[0])}


def _way_out(folder: Folder) -> str:
    """What to do where tensors are not those of the config.json."""
    whole, named = folder.theirs.family.architecture, folder.theirs.content.get("architectures") or []
    wrapper = next((one for one in WRAPPERS if any(one in name for name in folder.tensors)), None)
    if wrapper:
        return f"{wrapper} is what {WRAPPERS[wrapper]} puts around a model; save the inner one anew"
    if whole in named or not named:
        return "bring the weights that the config.json is of"
    return f"it is a {named[0]}, and what is converted is a whole {whole}; bring such a one"


def _refuse_other_heads(folder: Folder, origins: dict[str, Origin]) -> None:
    """UserError where what a tied model holds once more is not what it is tied to: it would be lost."""
    own = "untie_embeddings_and_output_weights" in folder.theirs.flags
    way = 'write "tie_word_embeddings": false into its config.json where the head is of its own, or ' * own
    with Reader(folder.tensors) as read:
        for name in sorted({*TIED} & folder.tensors.keys()):
            twin = origins["word_embeddings.weight"].name if name.endswith(".weight") else BIAS
            if twin in folder.tensors and not torch.equal(read(name), read(twin)):
                raise UserError(
                    f"{folder.path}: {name} is not {twin}, which it is tied to; {way}bring the weights "
                    "that the config.json is of"
                )
