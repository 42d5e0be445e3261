"""From a resolved configuration to the plain values that a model is built from and priced by."""

from dataclasses import replace

import torch

from megatron.config.bert import window, window_layers
from megatron.config.config import Config
from megatron.config.experts import expert_layers, loss_names
from megatron.config.training import TrainingConfig
from megatron.model.architecture import Architecture, Mixture, Pictures
from megatron.model.flops import model_flops
from megatron.parallel.stages import stages_of
from megatron.schedule.data_efficiency import DataEfficiency
from megatron.schedule.plan import RowFlops


def gpt_architecture(config: Config, vocab_size: int) -> Architecture:
    """The GPT of a resolved configuration over `vocab_size` tokens."""
    uniform = config.training.recompute_method == "uniform"
    model, multiple = config.model, config.model.make_vocab_size_divisible_by
    return Architecture(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        kv_channels=model.kv_channels,
        ffn_hidden_size=model.ffn_hidden_size,
        vocab_size=vocab_size,
        padded_vocab_size=-(-vocab_size // multiple) * multiple,
        max_position_embeddings=model.max_position_embeddings,
        position_embedding_type=model.position_embedding_type,
        rotary_base=model.rotary_base,
        rotary_percent=model.rotary_percent,
        normalization=model.normalization,
        norm_epsilon=model.norm_epsilon,
        activation=model.activation,
        gated=model.gated,
        linear_bias=not model.disable_bias_linear,
        qkv_bias=model.add_qkv_bias or not model.disable_bias_linear,
        tied_head=not model.untie_embeddings_and_output_weights,
        hidden_dropout=model.hidden_dropout,
        attention_dropout=model.attention_dropout,
        attention_backend=model.attention_backend,
        init_method_std=model.init_method_std,
        precision=precision_of(config.training),
        apex=config.training.apex,
        recomputed_layers=recomputed_layers(config),
        recompute_run=config.training.recompute_num_layers if uniform else 1,
        recompute_attention=config.training.recompute_granularity == "selective",
        mixture=mixture_of(config),
        residual_after_norm=model.apply_residual_connection_post_layernorm,
        norm_bias=not model.disable_norm_bias,
        rotary_interpolation=model.rotary_seq_len_interpolation_factor,
        rope_scaling=model.rope_scaling_factor if model.use_rope_scaling else 0.0,
    )


def bert_architecture(config: Config, vocab_size: int) -> Architecture:
    """The encoder of a resolved configuration over `vocab_size` tokens."""
    bert = config.bert
    return replace(
        gpt_architecture(config, vocab_size),
        encoder=True,
        pair_head=bool(config.sentences.pair),
        embedding_norm=bert.embedding_norm,
        near_layers=window_layers(bert, config.model.num_layers),
        window=window(bert),
        near_rotary_base=bert.local_rotary_base,
        told=bert.mask_prob,
    )


def vit_architecture(config: Config, vocab_size: int) -> Architecture:
    """The vision transformer of a resolved configuration over so many classes."""
    vision, one = config.vision, gpt_architecture(config, vocab_size)
    return replace(
        one,
        padded_vocab_size=vocab_size,
        tied_head=False,
        qkv_bias=one.qkv_bias and not vision.disable_qkv_bias,
        encoder=True,
        pictures=Pictures(
            height=vision.img_h,
            width=vision.img_w,
            channels=vision.num_channels,
            patch=vision.patch_dim,
            mean=vision.img_mean,
            std=vision.img_std,
            smoothing=vision.label_smoothing,
        ),
    )


def mixture_of(config: Config) -> Mixture | None:
    """The experts of a resolved configuration, where it has any."""
    flags, layers = config.experts, expert_layers(config.experts, config.model.num_layers)
    if not layers:
        return None
    return Mixture(
        layers=layers,
        experts=flags.num_experts,
        inner=flags.moe_ffn_hidden_size or config.model.ffn_hidden_size,
        shared=flags.moe_shared_expert_intermediate_size or 0,
        top=flags.moe_router_topk,
        softmax=flags.moe_router_score_function == "softmax",
        before=flags.moe_router_pre_softmax,
        factor=flags.moe_router_topk_scaling_factor or 1.0,
        groups=flags.moe_router_num_groups or 1,
        top_groups=flags.moe_router_group_topk or 1,
        precision=torch.float64 if flags.moe_router_dtype == "fp64" else torch.float32,
        jitter=flags.moe_input_jitter_eps or 0.0,
        balance=flags.moe_router_load_balancing_type,
        bias_rate=flags.moe_router_bias_update_rate if flags.moe_router_enable_expert_bias else 0.0,
        losses=tuple(loss_names(flags).items()),
        capacity=flags.moe_expert_capacity_factor or 0.0,
        drop_policy=flags.moe_token_drop_policy,
        batch_groups=config.training.micro_batch_size // flags.moe_group_size,
        padded=flags.moe_pad_expert_input_to_capacity,
        gathers_tokens=flags.moe_token_dispatcher_type == "allgather",
    )


def precision_of(training: TrainingConfig) -> torch.dtype | None:
    """Of activations, where it is not that of the weights."""
    if training.bf16:
        return torch.bfloat16
    return torch.float16 if training.fp16 else None


def recomputed_layers(config: Config) -> tuple[int, ...]:
    """Numbers of the layers that are computed again: all, or the first few of every stage."""
    training = config.training
    if training.recompute_granularity != "full":
        return ()
    stages = [one.layers for one in stages_of(config.parallel, config.model)]
    few = training.recompute_num_layers if training.recompute_method == "block" else None
    return tuple(layer for layers in stages for layer in layers[:few])


def gpt_flops(config: Config, efficiency: DataEfficiency, vocab_size: int) -> RowFlops:
    """FLOPs of a row of a GPT; a `vocab_size` of 0 leaves the logits out."""
    return model_flops(gpt_architecture(config, vocab_size), efficiency.dropping_layers)


def bert_flops(config: Config, efficiency: DataEfficiency, vocab_size: int) -> RowFlops:
    """FLOPs of a row of an encoder."""
    return model_flops(bert_architecture(config, vocab_size), efficiency.dropping_layers)


def vit_flops(config: Config, efficiency: DataEfficiency, vocab_size: int) -> RowFlops:
    """FLOPs of an image through a vision transformer."""
    return model_flops(vit_architecture(config, vocab_size), efficiency.dropping_layers)
