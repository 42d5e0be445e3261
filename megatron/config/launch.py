"""Launch commands, read as the flags in them."""

import re


def unwrap(words: list[str]) -> list[str]:
    """The flags of a launch command such as `torchrun --nproc-per-node 8 pretrain_gpt.py ...`, with the
    number of its ranks."""
    scripts = [place for place, word in enumerate(words) if word.endswith(".py")]
    if not scripts or words[0].startswith("--"):
        return words
    launcher, flags = " ".join(words[: scripts[0]]), words[scripts[0] + 1 :]
    ranks = 1
    for pattern in (
        r"--nproc[-_]per[-_]node[= ](\d+)",
        r"--nnodes[= ](\d+)",
        r"--num_gpus[= ](\d+)",
        r"--num_nodes[= ](\d+)",
    ):
        found = re.search(pattern, launcher)
        ranks *= int(found.group(1)) if found else 1
    given = any(word.split("=")[0] == "--data-parallel-size" for word in flags)
    return flags if given else [*flags, "--data-parallel-size", str(ranks)]
