"""Flags of other converters in front of tools/convert_checkpoint.py: read as ours, refused or told to be
unused."""

import dataclasses

from megatron.config.foreign import ANY, Foreign, dashed, is_our
from megatron.config.model import ModelConfig

FOREIGN = {
    "loader": Foreign((), "give --from hf, or --from megatron-lm"),
    "saver": Foreign((), "give --to megatron, or --to hf"),
    "convert-checkpoint-from-megatron-to-transformers": Foreign((), "give --from and --to"),
    **dict.fromkeys(
        ("model-type", "model-size", "checkpoint-type", "position-embedding-type", "true-vocab-size"),
        Foreign(None, "the input says it"),
    ),
    **dict.fromkeys(
        ("megatron-path", "*-transformer-impl", "max-queue-size", "no-checking"),
        Foreign(None, "nothing of Megatron's own is run"),
    ),
    **dict.fromkeys(
        ("bf16", "fp16", "params-dtype", "target-params-dtype"),
        Foreign(None, "weights keep their type; --dtype gives them another on the way to Hugging Face"),
    ),
    "make-vocab-size-divisible-by": Foreign(None, "training pads the vocabulary"),
    "print-checkpoint-structure": Foreign(None, "tools/inspect_checkpoint.py shows it"),
    **dict.fromkeys(
        (
            *("target-expert*-parallel-size", "target-data-parallel-size", "target-ep", "ep", "ep-size"),
            *("expert-model-parallel-size", "expert-tensor-parallel-size"),
        ),
        Foreign(("1",), "every layout reads every checkpoint; leave it out"),
    ),
    **dict.fromkeys(
        (dashed(one.name) for one in dataclasses.fields(ModelConfig)), Foreign(None, "the input says it")
    ),
    **dict.fromkeys(
        ("seq-length", "padded-vocab-size", "architecture", "architectures", "config-file"),
        Foreign(None, "the input says it"),
    ),
    **dict.fromkeys(
        ("*ckpt-format", "use-dist-ckpt", "strict", "not-strict"),
        Foreign(None, "there is one format here, and all weights are converted"),
    ),
    **dict.fromkeys(
        ("iteration", "iter", "step", "global-step"),
        Foreign(None, "it is another word for a flag of ours", ours=is_our("ckpt_step")),
    ),
    **dict.fromkeys(("overwrite", "force", "exist-ok"), Foreign(None, "the folder of --output must be new")),
    **dict.fromkeys(
        ("safe-serialization", "no-safe-serialization", "use-safetensors", "no-safetensors"),
        Foreign(None, "", (ANY,), beside=lambda _: "safetensors are written, whatever is given"),
    ),
    **dict.fromkeys(
        ("trust-remote-code", "device", "device-map", "low-cpu-mem-usage"),
        Foreign(None, "tensors are converted one by one on the CPU, and no code of a model's is run"),
    ),
    **dict.fromkeys(
        ("revision", "cache-dir", "hf-token", "push-to-hub", "hub-model-id", "repo-id"),
        Foreign((), "nothing is fetched or sent; hf download and hf upload do that; leave it out"),
    ),
    **dict.fromkeys(
        ("adapter", "adapter-path", "lora", "lora-path", "lora-merge", "merge-lora"),
        Foreign((), "merge the adapter by PEFT's merge_and_unload, and convert what save_pretrained writes"),
    ),
}
"""Flags of Megatron-LM's tools/checkpoint/convert.py, of transformers' script for Megatron-LM's, and of other
converters."""
