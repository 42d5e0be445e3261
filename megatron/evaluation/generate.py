"""Sampling text from a GPT."""

import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from megatron.data.tokenizer_value import Tokenizer
from megatron.model.gpt import GPT

Documents = Callable[[Tensor], tuple[Tensor | None, Tensor | None]]


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
    stop: int | None = None,
    documents: Documents = lambda _: (None, None),
) -> Iterator[int]:
    """Token ids that continue a prompt [T], one at a time. `context`: how many tokens the model sees at
    most; temperature 0 takes the likeliest token; `top_k` 0 and `top_p` 1 leave the distribution whole.
    `stop`: the token that ends the text; it is not given out. `documents`: positions, and where documents
    begin, of the tokens [1, T] that the model sees."""
    ids_T = prompt_T
    for _ in range(tokens):
        seen = ids_T[None, -context:]
        logits_V = model.logits(seen, *documents(seen))[0, -1].float()
        chosen = _choose(logits_V, temperature, top_k, top_p, generator)
        if int(chosen) == stop:
            return
        ids_T = torch.cat([ids_T, chosen])
        yield int(chosen)


def continuation(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
    """The text that ids add to a prompt. What a token stands for depends on those before it, so the whole is
    decoded, and cut behind what it shares with the prompt."""
    before, whole = decode_documents(tokenizer, prompt), decode_documents(tokenizer, [*prompt, *ids])
    shared = os.path.commonprefix([before, whole])  # noqa: RUF071, of any strings
    return whole[len(shared) :]


def decode_documents(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of ids, document by document; the token that ends one is shown by its name."""
    documents: list[list[int]] = [[]]
    for one in ids:
        if one == tokenizer.eod:
            documents.append([])
        else:
            documents[-1].append(one)
    return tokenizer.end.name.join(tokenizer.decode(document) if document else "" for document in documents)


def _choose(
    logits_V: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> Tensor:
    if temperature == 0:
        return logits_V.argmax()[None]
    below_V = (logits_V - logits_V.max()).double()  # so no temperature, however small, makes infinity of it
    values, order = (below_V / temperature).softmax(-1).sort(descending=True)
    if top_k:
        values[top_k:] = 0
    before = values.cumsum(-1) - values
    values[before >= top_p] = 0
    return order[torch.multinomial(values, 1, generator=generator)]
