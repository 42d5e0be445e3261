"""GPT checkpoints of Megatron-LM: `mp_rank_*` folders of ranks, and torch_dist folders."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from megatron.base.errors import UserError
from megatron.config.flags import flags_of, spelling
from megatron.config.model import ModelConfig, without_idle_angles
from megatron.conversion.folder import Like
from megatron.conversion.megatron_ranks import tensors_of_ranks
from megatron.conversion.origins import Origin, origin
from megatron.conversion.saved_by_torch import Lazy, read_pickle, read_saved
from megatron.conversion.to_ours import Source

LATEST = "latest_checkpointed_iteration.txt"
NEUTRAL = {
    "num_experts": (None, 0, 1),
    **dict.fromkeys(
        (
            "apply_layernorm_1p",
            "qk_layernorm",
            "multi_latent_attention",
            "rotary_interleaved",
            "mtp_num_layers",
            "qk_l2_norm",
            "attention_output_gate",
            "glu_linear_offset",
            "quick_geglu",
        ),
        (None, False, 0),
    ),
    **dict.fromkeys(
        (
            *("heterogeneous_layers_config_path", "hybrid_override_pattern", "no_rope_freq"),
            *("window_size", "softmax_scale", "activation_func_clamp_value"),
            *("experimental_attention_variant", "linear_attention_freq"),
        ),
        (None,),
    ),
    "softmax_type": (None, "vanilla"),
    "position_embedding_type": (None, "learned_absolute", "rope", "none"),
    "normalization": (None, "LayerNorm", "RMSNorm"),
}
"""Settings of models that have no like here, and the values that mean nothing."""
OF_THE_MODEL = ("embedding.", "decoder.", "output_layer.")
EXTRA = "_extra_state"
"""Scales of fp8, which Transformer Engine keeps in every layer, of no number where there are none."""
COMMON, COMMON_STATE = "common.pt", "common_state"
"""Where a torch_dist folder has its settings: in a file of their own, or, newer ones, among the tensors."""


def open_checkpoint(path: str, step: int | None) -> Source:
    """The GPT of a checkpoint folder, or of the folder of several. UserError where there is none, or one
    that has no like here."""
    folder = find(Path(path), step)
    if (folder / ".metadata").is_file():
        settings, tensors = _of_dist(folder)
    else:
        settings, tensors = tensors_of_ranks(folder)
    flags = _flags(folder, settings)
    known = {
        name: one
        for name, one in tensors.items()
        if name.startswith(OF_THE_MODEL) and not name.endswith(EXTRA)
    }
    if "embedding.word_embeddings.weight" not in known:
        raise UserError(f"{folder}: holds no word embeddings of a GPT; name the checkpoint of a GPT")

    @contextmanager
    def reader() -> Iterator[Callable[[str], Tensor]]:
        yield lambda name: _read(known[name])

    return Source(
        path=folder,
        task="gpt",
        flags=flags,
        vocab_size=known["embedding.word_embeddings.weight"].shape[0],
        origins=_matched(folder, _origins(flags, known), known, settings),
        tensors=known,
        reader=reader,
        padded=True,
    )


def _read(one: Like) -> Tensor:
    assert one.read is not None
    return one.read()


def find(root: Path, step: int | None) -> Path:
    """The folder of a step, or of the newest; `root` may be it. UserError where there is none, or one of
    DeepSpeed's."""
    if any(root.glob("mp_rank_*_model_states.pt")) or (
        any(root.glob("global_step*")) and not any(root.glob("iter_*"))
    ):
        raise UserError(
            f"{root}: holds a checkpoint of DeepSpeed's, which is not read; make one of Megatron-LM's of it "
            "by tools/convert_checkpoint/deepspeed_to_megatron.py of Megatron-DeepSpeed"
        )
    if any(root.glob("mp_rank_*")) or (root / ".metadata").is_file():
        return root
    if step is None:
        pointer = root / LATEST
        if not pointer.is_file():
            raise UserError(
                f"{root}: holds neither {LATEST} nor mp_rank_ folders nor .metadata; name a folder that "
                "Megatron-LM's --save was given"
            )
        text = pointer.read_text(encoding="utf-8").strip()
        folder = root / ("release" if text == "release" else f"iter_{int(text) if text.isdigit() else 0:07d}")
    else:
        folder = root / f"iter_{step:07d}"
    if not folder.is_dir():
        raise UserError(f"{folder}: is missing; choose another with --ckpt-step")
    return folder


def _flags(folder: Path, settings: SimpleNamespace) -> dict[str, Any]:
    """Their settings as flags of ours, most of which have the same names."""
    there = vars(settings)
    problems = [
        f"{spelling(name)} {there[name]} has no like here"
        for name, neutral in NEUTRAL.items()
        if there.get(name) not in neutral
    ]
    names = {one.name for one in flags_of(ModelConfig)} | {"seq_length"}
    flags = {name: there[name] for name in names if isinstance(there.get(name), bool | int | float | str)}
    flags.pop("attention_backend", None)
    if not flags.get("group_query_attention"):
        flags.pop("num_query_groups", None)
    if "norm_epsilon" not in flags and there.get("layernorm_epsilon") is not None:
        flags["norm_epsilon"] = there["layernorm_epsilon"]
    flags = without_idle_angles(flags)
    flags["disable_bias_linear"] = not there.get("add_bias_linear", True)
    gelu = not (flags.get("swiglu") or flags.get("squared_relu"))
    if gelu and there.get("bias_gelu_fusion") and not flags["disable_bias_linear"]:
        flags["openai_gelu"] = True  # which is what the fused kernel computes
    lacking = [name for name in ("num_layers", "hidden_size", "num_attention_heads") if name not in flags]
    if not flags.get("seq_length") and "max_position_embeddings" not in flags:
        lacking.append("seq_length")
    if problems or lacking:
        told = problems + [f"its settings lack {name}; name a checkpoint of training" for name in lacking]
        raise UserError(*(f"{folder}: {one}" for one in told))
    return flags | {"seq_length": flags.get("seq_length") or flags["max_position_embeddings"]}


def _origins(flags: Mapping[str, Any], there: Mapping[str, Like]) -> dict[str, Origin]:
    """The origin of every tensor. Norms lie in the linear layer behind them where both are fused."""
    heads = flags["num_attention_heads"]
    groups = flags.get("num_query_groups", 1) if flags.get("group_query_attention") else heads
    found = {"word_embeddings.weight": origin("embedding.word_embeddings.weight")}
    if "embedding.position_embeddings.weight" in there:
        found["position_embeddings.weight"] = origin("embedding.position_embeddings.weight")
    if flags.get("untie_embeddings_and_output_weights"):
        found["output_layer.weight"] = origin("output_layer.weight")
    for kind in ("weight", "bias"):
        if f"decoder.final_layernorm.{kind}" in there or kind == "weight":
            found[f"final_norm.{kind}"] = origin(f"decoder.final_layernorm.{kind}")
        for layer in range(flags["num_layers"]):
            found |= _layer(layer, kind, heads // groups, groups, bool(flags.get("swiglu")), there)
    return found


def _layer(
    layer: int, kind: str, queries: int, groups: int, gated: bool, there: Mapping[str, Like]
) -> dict[str, Origin]:
    here, hers = f"layers.{layer}.", f"decoder.layers.{layer}."
    qkv, first = f"{hers}self_attention.linear_qkv.", f"{hers}mlp.linear_fc1."
    norms = {"attention_norm": (f"{hers}input_layernorm.{kind}", f"{qkv}layer_norm_{kind}")}
    norms["mlp_norm"] = (f"{hers}pre_mlp_layernorm.{kind}", f"{first}layer_norm_{kind}")
    found = {f"{here}{mine}.{kind}": origin(names[names[1] in there]) for mine, names in norms.items()}
    found[f"{here}attention.projection.{kind}"] = origin(f"{hers}self_attention.linear_proj.{kind}")
    cuts = {"query": (0, queries), "key": (queries, queries + 1), "value": (queries + 1, queries + 2)}
    for mine, (start, stop) in cuts.items():
        cut = {"groups": groups, "of": queries + 2, "start": start, "stop": stop}
        found[f"{here}attention.{mine}.{kind}"] = origin(f"{qkv}{kind}", **cut)
    for place, mine in enumerate(("gate", "up") if gated else ("up",)):
        cut = {"of": 2, "start": place, "stop": place + 1} if gated else {}
        found[f"{here}mlp.{mine}.{kind}"] = origin(f"{first}{kind}", **cut)
    found[f"{here}mlp.down.{kind}"] = origin(f"{hers}mlp.linear_fc2.{kind}")
    if kind == "bias":
        return {mine: one for mine, one in found.items() if one.name in there}
    return found


def _matched(
    folder: Path, origins: dict[str, Origin], there: Mapping[str, Like], settings: SimpleNamespace
) -> dict[str, Origin]:
    """The same origins, all there and nothing else beside them. UserError otherwise."""
    used = {name for one in origins.values() for name in one.names}
    problems = [f"has no {name}" for name in sorted(used - there.keys())]
    more = sorted(there.keys() - used)
    if not getattr(settings, "untie_embeddings_and_output_weights", False):
        more = [name for name in more if name != "output_layer.weight"]
    problems += [f"has {name}, which has no like here" for name in more]
    if problems:
        rest = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{folder}: {'; '.join(problems[:3])}{rest}; name the checkpoint of a plain GPT")
    return origins


def _of_dist(folder: Path) -> tuple[SimpleNamespace, dict[str, Like]]:
    """Settings and tensors of a torch_dist folder. Layers may be stacked in one tensor."""
    try:
        metadata = read_pickle(folder / ".metadata").state
        places = [(key.state, one.state) for key, one in metadata["storage_data"].items()]
        kinds = {name: one.state for name, one in metadata["state_dict_metadata"].items()}
        return _settings(folder, places), _stored(folder, places, kinds)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / '.metadata'}: is not understood ({error}); bring the file again"
        ) from None


def _settings(folder: Path, places: list[tuple[dict[str, Any], dict[str, Any]]]) -> SimpleNamespace:
    """Those that training saves with a torch_dist folder. UserError where there are none."""
    file, part = folder / COMMON, [one for key, one in places if key["fqn"].split("/")[0] == COMMON_STATE]
    if file.is_file():
        common = read_saved(file)
    elif part:
        file = folder / Path(part[0]["relative_path"]).name
        (common,) = read_saved(file, part[0]["offset"], part[0]["length"])  # its shards, of which it has one
    else:
        raise UserError(
            f"{folder}: holds no {COMMON}, so it is no torch_dist folder of Megatron-LM's; save it anew by "
            "--ckpt-format torch_dist"
        )
    settings = common.get("args") if isinstance(common, Mapping) else None
    if not isinstance(settings, SimpleNamespace):
        raise UserError(
            f"{file}: holds no settings of Megatron-LM's training; name a checkpoint of it, or export one of "
            "NeMo or Megatron-Bridge to Hugging Face's format there, and give --from hf"
        )
    return settings


def _stored(
    folder: Path, places: list[tuple[dict[str, Any], dict[str, Any]]], kinds: Mapping[str, Any]
) -> dict[str, Like]:
    chunks: dict[str, list[tuple[tuple[int, ...], dict[str, Any]]]] = {}
    for key, place in places:
        if key.get("offset") is not None and Path(place["relative_path"]).name == place["relative_path"]:
            chunks.setdefault(key["fqn"], []).append((tuple(key["offset"]), place))
    found = {}
    for name, parts in chunks.items():
        kind = kinds[name]
        shape, dtype = tuple(kind["size"]), kind["properties"].state[0]
        for layer, whole, rest in _layers_of(name, shape):
            own = [(offset, one) for offset, one in parts if layer is None or offset[0] == layer]
            if not own:
                raise ValueError(f"layer {layer} of {name} is in no file")
            read = _joined(folder, name, own, rest, layer is not None)
            found[whole] = Like(folder / own[0][1]["relative_path"], rest, dtype, read)
    return found


def _layers_of(name: str, shape: tuple[int, ...]) -> Iterator[tuple[int | None, str, tuple[int, ...]]]:
    """A tensor, or every layer of one that holds all of them: its number, its own name and shape."""
    stacked = re.fullmatch(r"decoder\.layers\.(\D.*)", name)
    if stacked is None:
        yield None, name, shape
        return
    for layer in range(shape[0]):
        yield layer, f"decoder.layers.{layer}.{stacked[1]}", shape[1:]


def _joined(
    folder: Path,
    name: str,
    parts: list[tuple[tuple[int, ...], dict[str, Any]]],
    shape: tuple[int, ...],
    stacked: bool,
) -> Callable[[], Tensor]:
    """What reads a tensor from the parts that ranks have written."""

    def read() -> Tensor:
        whole, seen = None, 0
        for offset, place in parts:
            file = folder / place["relative_path"]
            saved = read_saved(file, place["offset"], place["length"])
            if not isinstance(saved, Lazy):
                raise UserError(f"{file}: what it holds of {name} is no tensor; bring the file again")
            part = saved.read()
            part, start = (part.squeeze(0), offset[1:]) if stacked else (part, offset)
            whole = part.new_empty(shape) if whole is None else whole
            box = tuple(slice(one, one + size) for one, size in zip(start, part.shape))
            whole[box] = part
            seen += part.numel()
        if whole is None or seen != whole.numel():
            raise UserError(f"{folder}: parts of {name} are missing; bring the files of all ranks")
        return whole

    return read
