"""Small models of transformers by the name of their family: random weights, no dropout, double precision."""

import torch
import transformers
from torch import nn

LAYERS, TOKENS, VOCABULARY = 4, 24, 90
PLAIN = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
TEXT = PLAIN | {"vocab_size": VOCABULARY, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = TEXT | {"num_key_value_heads": 2}
ENCODER = TEXT | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
PATCHES = PLAIN | {"image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.0}
SHAPES = {
    "GPT2LMHead": {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
    | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED | {"sliding_window": 7},
    "Qwen2ForCausalLM": GROUPED,
    "Qwen3ForCausalLM": GROUPED | {"head_dim": 8},
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 4},
    "GPTNeoXForCausalLM": TEXT,
    "BertForMaskedLM": ENCODER,
    "RobertaForMaskedLM": ENCODER,
    "ElectraForMaskedLM": ENCODER,
    "ModernBertForMaskedLM": TEXT | {"local_attention": 8, "pad_token_id": 0},
    "ViTForImageClassification": PATCHES | {"intermediate_size": 48},
    "DeiTForImageClassification": PATCHES | {"intermediate_size": 48},
    "Dinov2ForImageClassification": PATCHES,
}
IMAGES = [name for name in SHAPES if "Image" in name]
TEXTS = [name for name in SHAPES if "Image" not in name]


def small_model(name: str, attention: str = "sdpa", seed: int = 3) -> nn.Module:
    """A model of this class in training mode, whose weights differ from their first ones."""
    family = name.partition("LMHead")[0].partition("For")[0]
    config = getattr(transformers, f"{family}Config")(**SHAPES[name])
    config._attn_implementation = attention
    if family == "Mixtral":
        config._experts_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2LMHead" else name)(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.train()


def text_rows(rows: int = 3, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(5))


def padding(sides: str, tokens: int = TOKENS) -> torch.Tensor:
    """A mask of three rows: a whole one, one with 9 tokens of padding at its right or left, one with 19."""
    mask = torch.ones(3, tokens, dtype=torch.long)
    for row, count in ((1, 9), (2, 19)):
        mask[row, -count:] = 0
    return mask.flip(1) if sides == "left" else mask


def inputs_of(name: str, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """What a model of this class is called with, labels too."""
    if name in IMAGES:
        generator = torch.Generator().manual_seed(5)
        images = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=generator)
        return {"pixel_values": images, "labels": torch.tensor([0, 1, 1])}
    ids = text_rows()
    labels = ids if mask is None else ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "labels": labels} | ({} if mask is None else {"attention_mask": mask})
