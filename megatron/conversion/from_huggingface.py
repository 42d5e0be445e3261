"""What a folder of Hugging Face's holds, as what a checkpoint of ours is written from."""

from collections.abc import Iterable, Mapping

from megatron.base.errors import UserError
from megatron.conversion.folder import Folder, Reader
from megatron.conversion.origins import Origin
from megatron.conversion.to_ours import Source

LEFT_OUT = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")
"""What older files hold beside weights."""


def source_of(folder: Folder) -> Source:
    """The model of a folder, whose files have all of its tensors. UserError otherwise."""
    theirs = folder.theirs
    return Source(
        path=folder.path,
        task=theirs.family.task,
        flags=theirs.flags,
        vocab_size=theirs.content["vocab_size"],
        origins=_matched(folder),
        tensors=folder.tensors,
        reader=lambda: Reader(folder.tensors),
    )


def found_in(origins: Mapping[str, Origin], there: Iterable[str]) -> dict[str, Origin]:
    """The same origins by the names that a file has: the bare model leaves out the first word of each."""
    known = set(there)

    def spelled(name: str) -> str:
        bare = name.partition(".")[2]
        return bare if bare in known and name not in known else name

    return {mine: one._replace(names=tuple(map(spelled, one.names))) for mine, one in origins.items()}


def _matched(folder: Folder) -> dict[str, Origin]:
    """The origin of every tensor, all there and nothing else beside them. UserError otherwise."""
    flags = folder.theirs.flags
    origins = found_in(folder.theirs.family.names(flags), folder.tensors)
    used = {name for one in origins.values() for name in one.names}
    problems = [f"has no {name}" for name in sorted(used - folder.tensors.keys())]
    tied = set() if flags["untie_embeddings_and_output_weights"] else {"lm_head.weight"}
    more = sorted(name for name in folder.tensors.keys() - used - tied if not name.endswith(LEFT_OUT))
    problems += [f"has {name}, which has no like here" for name in more]
    if problems:
        rest = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{folder.path}: {'; '.join(problems[:3])}{rest}; bring the weights that the config.json is of"
        )
    return origins
