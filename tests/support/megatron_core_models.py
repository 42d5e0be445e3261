"""Checkpoints by megatron-core itself, on the CPU: `python megatron_core_models.py FOLDER` writes

    FOLDER/NAME/torch, FOLDER/NAME/dist        a GPT in both formats, `gelu` and `swiglu`
    FOLDER/NAME/logits.pt                      its logits for `tokens()`
    FOLDER/swiglu_4_ranks/torch, .../dist      the same weights from 2 tensor ranks in 2 stages

What asks for a GPU in megatron-core, and does nothing without one, is left out.
"""

import argparse
import contextlib
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

LAYERS, HIDDEN, HEADS, LENGTH, VOCAB = 4, 32, 4, 64, 128


def tokens() -> torch.Tensor:
    return (torch.arange(2 * LENGTH).view(2, LENGTH) * 7) % VOCAB


def settings(swiglu: bool) -> argparse.Namespace:
    """As far as they say what the model is, those that training saves."""
    from megatron.core.enums import ModelType
    from megatron.core.transformer.enums import AttnBackend

    return argparse.Namespace(
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        group_query_attention=swiglu,
        num_query_groups=2 if swiglu else 1,
        ffn_hidden_size=48 if swiglu else 4 * HIDDEN,
        kv_channels=HIDDEN // HEADS,
        max_position_embeddings=LENGTH,
        seq_length=LENGTH,
        padded_vocab_size=VOCAB,
        swiglu=swiglu,
        bias_gelu_fusion=False,
        normalization="RMSNorm" if swiglu else "LayerNorm",
        norm_epsilon=1e-5,
        add_bias_linear=not swiglu,
        add_qkv_bias=False,
        position_embedding_type="rope" if swiglu else "learned_absolute",
        rotary_base=10000,
        rotary_percent=1.0,
        untie_embeddings_and_output_weights=swiglu,
        num_experts=None,
        qk_layernorm=False,
        params_dtype=torch.float32,
        model_type=ModelType.encoder_or_decoder,
        attention_backend=AttnBackend.auto,
    )


def build(args: argparse.Namespace, tensor: int, pipeline: int) -> Any:
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    config = TransformerConfig(
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_query_groups=2 if args.swiglu else HEADS,
        ffn_hidden_size=args.ffn_hidden_size,
        use_cpu_initialization=True,
        gated_linear_unit=args.swiglu,
        activation_func=torch.nn.functional.silu if args.swiglu else torch.nn.functional.gelu,
        add_bias_linear=args.add_bias_linear,
        normalization=args.normalization,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        pipeline_dtype=torch.float32,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
    )
    return GPTModel(
        config,
        get_gpt_layer_local_spec(normalization="RMSNorm" if args.swiglu else None),
        vocab_size=VOCAB,
        max_sequence_length=LENGTH,
        position_embedding_type=args.position_embedding_type,
        share_embeddings_and_output_weights=not args.swiglu,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
    )


def save(model: Any, args: argparse.Namespace, folder: Path) -> None:
    """In both formats, as training saves it, with what it saves beside the weights."""
    from megatron.core import dist_checkpointing, parallel_state

    common = {"args": args, "checkpoint_version": 3.0, "iteration": 7}
    states = {
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.get_state(),  # noqa: NPY002
        "torch_rng_state": torch.get_rng_state(),
    }
    tensor, stage = (
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_pipeline_model_parallel_rank(),
    )
    suffix = f"_{stage:03d}" if parallel_state.get_pipeline_model_parallel_world_size() > 1 else ""
    place = folder / "torch" / "iter_0000007" / f"mp_rank_{tensor:02d}{suffix}"
    place.mkdir(parents=True)
    weights = model.state_dict_for_save_checkpoint()
    torch.save({**common, "model": weights, "rng_state": [states]}, place / "model_optim_rng.pt")
    target = folder / "dist" / "iter_0000007"
    if dist.get_rank() == 0:
        target.mkdir(parents=True)
        for kind in ("torch", "dist"):
            (folder / kind / "latest_checkpointed_iteration.txt").write_text("7")
    dist.barrier()
    dist_checkpointing.save({**common, "model": model.sharded_state_dict()}, str(target))


def logits(model: Any) -> torch.Tensor:
    positions = torch.arange(LENGTH)[None].expand(2, -1)
    unseen = ~torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    with torch.no_grad():
        return model.eval()(tokens(), positions, unseen)


def without_gpu() -> None:
    """What waits for a GPU, or forks its random state, does nothing."""
    from megatron.core.transformer import dot_product_attention

    class Tracker:
        def fork(self) -> Any:
            return contextlib.nullcontext()

    torch.cuda.synchronize = lambda *rest: None  # type: ignore[assignment]
    torch.cuda.current_device = lambda: "cpu"  # type: ignore[assignment,return-value]
    dot_product_attention.tensor_parallel.get_cuda_rng_tracker = Tracker


def rank_of(root: Path, name: str, rank: int, tensor: int, pipeline: int) -> None:
    """One rank: a model of one rank with weights of its own, or the parts of it on several."""
    from megatron.core import dist_checkpointing, parallel_state

    torch.set_num_threads(1)
    args, size = settings(name.startswith("swiglu")), tensor * pipeline
    store = dist.FileStore(str(root / f"{name}.store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    parallel_state.initialize_model_parallel(tensor, pipeline)
    model = build(args, tensor, pipeline)
    if size > 1:
        wanted = {"model": model.sharded_state_dict()}
        model.load_state_dict(
            dist_checkpointing.load(wanted, str(root / "swiglu" / "dist" / "iter_0000007"))["model"]
        )
    else:
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
        (root / name).mkdir()
        torch.save(logits(model), root / name / "logits.pt")
    save(model, args, root / name)
    dist.barrier()
    dist.destroy_process_group()


def in_ranks(root: Path, name: str, tensor: int = 1, pipeline: int = 1) -> None:
    children = []
    for rank in range(tensor * pipeline):
        if not (child := os.fork()):
            try:
                rank_of(root, name, rank, tensor, pipeline)
            except BaseException as error:
                print(f"rank {rank} of {name}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit(f"{name}: a rank has failed")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.setdefault("LOCAL_RANK", "0")
    without_gpu()
    target = Path(sys.argv[1])
    for name in ("gelu", "swiglu"):
        in_ranks(target, name)
    in_ranks(target, "swiglu_4_ranks", 2, 2)
