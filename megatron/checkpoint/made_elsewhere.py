"""What other programs have saved: how a folder of theirs is known, and what reads it."""

import re
from pathlib import Path

ADAPTER = "adapter_config.json"
WAY_OF_ADAPTERS = (
    "it is an adapter of PEFT to another model; merge both by merge_and_unload, and name the folder to which "
    "save_pretrained writes the whole"
)
OF_MEGATRON = "tools/convert_checkpoint.py --from megatron-lm reads"
OF_HUGGINGFACE = "tools/convert_checkpoint.py --from hf reads"
OF_DEEPSPEED = (
    "is not read here: where the model is Hugging Face's, zero_to_fp32.py beside it makes whole weights, "
    "by --safe_serialization as safetensors; where it is Megatron-DeepSpeed's, "
    "tools/convert_checkpoint/deepspeed_to_megatron.py there makes a checkpoint of Megatron-LM's"
)
OF_NEMO = (
    "is not read here: let NeMo write a folder of Hugging Face's, by llm.export_ckpt with target hf, or by "
    "the scripts/checkpoint_converters of older versions"
)
READ_BY = {
    "model.safetensors": OF_HUGGINGFACE,
    "model-*.safetensors": OF_HUGGINGFACE,
    "checkpoint-*/model*.safetensors": OF_HUGGINGFACE,
    "model.*.safetensors": f"{OF_HUGGINGFACE} once it is model.safetensors: load it by from_pretrained with "
    "its variant, the word in its name, and save it by save_pretrained without one",
    "model*.safetensors": OF_HUGGINGFACE,
    "mp_rank_*_model_states.pt": OF_DEEPSPEED,
    "*zero_pp_rank_*_optim_states.pt": OF_DEEPSPEED,
    "global_step*": OF_DEEPSPEED,
    "checkpoint-*/global_step*": OF_DEEPSPEED,
    "mp_rank_*": OF_MEGATRON,
    "iter_*/mp_rank_*": OF_MEGATRON,
    "release/mp_rank_*": OF_MEGATRON,
    "iter_*/*.distcp": OF_MEGATRON,
    "release/*.distcp": OF_MEGATRON,
    "weights/*.distcp": OF_NEMO,
    "*.nemo": OF_NEMO,
    "model_weights": OF_NEMO,
    "consolidated.*.pth": "is not read here: it is Meta's, of which src/transformers/models/llama/"
    "convert_llama_weights_to_hf.py of transformers makes a folder of Hugging Face's",
    ADAPTER: f"is not read here: {WAY_OF_ADAPTERS}",
    "snapshots/*/config.json": OF_HUGGINGFACE,
    "pytorch_model*.bin": f"{OF_HUGGINGFACE} once save_pretrained of a newer transformers has written it as "
    "safetensors",
    "*.distcp": "is not read here",
    "step-*/*.distcp": "is not read here",
    "lit_model.pth": "is not read here",
}
READ_BY |= {f"checkpoint-*/{name}": READ_BY[name] for name in (ADAPTER, "pytorch_model*.bin")}
"""Files and folders of Megatron, DeepSpeed and others, and what reads them; the first that is there counts,
so that whole weights come before variants of them and before what was saved to go on training."""
COMMON_STATE = b"common_state/"
"""How the name of the settings among the tensors begins."""


def made_elsewhere(root: str | Path) -> str:
    """Words for the checkpoints of another program that a folder holds; empty where it holds none."""
    root = Path(root)
    there = ((sorted(filter(_is_weights, root.glob(pattern))), how) for pattern, how in READ_BY.items())
    found, how = next((one for one in there if one[0]), ([], ""))
    if not found:
        return ""
    more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
    path = _first(root, found)
    if how is READ_BY["*.distcp"] and _of_megatron(path.parent):
        how = OF_MEGATRON
    if how is OF_HUGGINGFACE and path.parent != root:
        how += f" as {path.parent}"
    return f"the folder holds what another program has saved ({path.relative_to(root)}{more}), which {how}"


def _is_weights(path: Path) -> bool:
    """Safetensors are of many programs; those of Hugging Face's have a config.json beside them."""
    return not path.match("model*.safetensors") or path.with_name("config.json").is_file()


def _first(root: Path, found: list[Path]) -> Path:
    """The first of these paths; of folders with steps in their names the newest, and of a cache of the hub
    the one that main leads to."""
    refs = root / "refs" / "main"
    main = refs.read_text(encoding="utf-8", errors="replace").strip() if refs.is_file() else ""

    def newest(path: Path) -> tuple[bool, int]:
        step = re.fullmatch(r"checkpoint-(\d+)", path.relative_to(root).parts[0])
        return path.parent.name != main, -int(step[1]) if step else 0

    return min(found, key=newest)


def _of_megatron(folder: Path) -> bool:
    """Whether a folder has the settings that Megatron-LM's torch_dist folders alone have: in a file, or, as
    newer versions write them, among the tensors."""
    metadata = folder / ".metadata"
    return (folder / "common.pt").is_file() or (metadata.is_file() and COMMON_STATE in metadata.read_bytes())
