"""Sampling text from a GPT."""

from collections.abc import Iterator

import torch
from torch import Tensor

from megatron.model.gpt import GPT


@torch.no_grad()
def generate(
    model: GPT,
    prompt_T: Tensor,
    tokens: int,
    context: int,
    temperature: float,
    top_k: int,
    top_p: float,
    generator: torch.Generator,
) -> Iterator[int]:
    """Token ids that continue a prompt [T], one at a time. `context`: how many tokens the model sees at
    most; temperature 0 takes the likeliest token; `top_k` 0 and `top_p` 1 leave the distribution whole."""
    ids_T = prompt_T
    for _ in range(tokens):
        logits_V = model.logits(ids_T[None, -context:])[0, -1].float()
        chosen = _choose(logits_V, temperature, top_k, top_p, generator)
        ids_T = torch.cat([ids_T, chosen])
        yield int(chosen)


def _choose(
    logits_V: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> Tensor:
    if temperature == 0:
        return logits_V.argmax()[None]
    values, order = (logits_V / temperature).softmax(-1).sort(descending=True)
    if top_k:
        values[top_k:] = 0
    before = values.cumsum(-1) - values
    values[before >= top_p] = 0
    return order[torch.multinomial(values, 1, generator=generator)]
