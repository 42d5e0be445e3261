"""Tiny models of Hugging Face's in folders, all of whose weights differ."""

from pathlib import Path
from typing import Any

import torch
import transformers

VOCAB, LENGTH = 101, 64
LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
GPT2 = {
    "vocab_size": VOCAB,
    "n_positions": LENGTH,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
ENCODER = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
SPECIAL = {f"{name}_token_id": 0 for name in ("bos", "eos", "cls", "sep", "pad")}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt2 untied": ("GPT2LMHeadModel", GPT2 | {"tie_word_embeddings": False, "n_inner": 40}),
    "gpt2 of bytes": ("GPT2LMHeadModel", GPT2 | {"vocab_size": 300}),
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama 3": (
        "LlamaForCausalLM",
        LLAMA | {"rope_scaling": LLAMA3, "head_dim": 16, "tie_word_embeddings": True},
    ),
    "llama linear": ("LlamaForCausalLM", LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("MistralForCausalLM", LLAMA | {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", LLAMA),
    "bert": ("BertForPreTraining", ENCODER | {"hidden_act": "gelu_new"}),
    "modernbert": (
        "ModernBertForMaskedLM",
        ENCODER | {"local_attention": 16, "global_attn_every_n_layers": 2} | SPECIAL,
    ),
    "vit": (
        "ViTForImageClassification",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
            "num_channels": 3,
            "id2label": {0: "cat", 1: "dog", 2: "owl"},
        },
    ),
    "mixtral": ("MixtralForCausalLM", LLAMA | {"num_local_experts": 4}),
}
"""Their class and its configuration, by names of our own."""


def write_model(name: str, folder: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    """Write a model to a folder, as save_pretrained does."""
    kind, settings = MODELS[name]
    cls = getattr(transformers, kind)
    torch.manual_seed(3)
    model = cls(cls.config_class(**settings))
    for one in model.parameters():
        one.data += 0.1 * torch.randn(one.shape)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder
