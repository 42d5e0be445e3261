"""Megatron's text of what lies on every stage of a pipeline: E the embedding, t a layer, L the head with its
loss, | between stages, `t*3` and `(tt|)*3` for repetition. Commas and spaces mean nothing."""

import re

EMBEDDING, LAYER, HEAD = "E", "t", "L"
LONGEST = 10_000
"""Letters; what is longer is no layout, and is not written out."""
REPEATED = re.compile(r"(?:\(([^()]*)\)|([^()*]))\*(\d{1,4})(?!\d)")


def read_layout(text: str) -> list[str]:
    """The stages in the pipeline's order, repetitions written out as far as they are understood."""
    text, found = re.sub(r"[,\s]", "", text), 1
    while found and len(text) < LONGEST:
        text, found = REPEATED.subn(lambda one: (one[1] or one[2] or "") * int(one[3]), text)
    return text.split("|")


def text_problems(text: str, num_layers: int) -> list[str]:
    """Why a text is no layout of a model of so many layers."""
    words, stages = f"--pipeline-model-parallel-layout {text}:", read_layout(text)
    letters = "".join(stages)
    if strange := sorted(set(letters) - {EMBEDDING, LAYER, HEAD}):
        return [
            f"{words} {' '.join(strange)} has no meaning there; write E, t, L, | and repetitions such as t*3 "
            "or (tt|)*3"
        ]
    found, layers = [], letters.count(LAYER)
    if layers != num_layers:
        found.append(
            f"{words} it has {layers} layers (t), not --num-layers {num_layers}; write so many, or give "
            f"--num-layers {layers}"
        )
    if not letters.startswith(EMBEDDING) or letters.count(EMBEDDING) > 1:
        found.append(f"{words} the embedding E must stand first, and once")
    if not letters.endswith(HEAD) or letters.count(HEAD) > 1:
        found.append(f"{words} the head L must stand last, and once")
    if "" in stages:
        found.append(
            f"{words} stage {stages.index('') + 1} of {len(stages)} has nothing; give it a layer, or leave "
            "out a |"
        )
    return found
