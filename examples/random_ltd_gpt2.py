"""Random-LTD on a GPT-2 of transformers: the same model trained on the same text with and without, until
both have computed as many effective tokens (tokens, averaged over the layers). A minute on one CPU core.

    python examples/random_ltd_gpt2.py [TEXT_FILE ...] [--tokens N]
"""

import argparse
import json
import sys
import sysconfig
from pathlib import Path

import torch
import transformers

from megatron.base.errors import UserError
from megatron.library.random_ltd import random_ltd_for

LENGTH, BATCH, HELD_OUT = 128, 8, 64


def read_bytes(files: list[str]) -> torch.Tensor:
    """The bytes of these files, or of Python's standard library, as token ids."""
    paths = files or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    return torch.frombuffer(
        bytearray(b"\n\n".join(Path(path).read_bytes() for path in paths)), dtype=torch.uint8
    ).long()


def train(rows: torch.Tensor, tokens: int, dropping: bool) -> dict[str, float]:
    """Train a GPT-2 on `rows` [N, LENGTH] until `tokens` effective tokens; what it computed, and its loss."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=256, n_positions=LENGTH, n_embd=64, n_layer=6, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    steps = tokens // (BATCH * LENGTH)
    # Without random-LTD: a schedule that begins at its maximum drops nothing and counts alike.
    minimum = LENGTH // 4 if dropping else LENGTH
    ltd = random_ltd_for(model, maximum=LENGTH, minimum=minimum, duration=steps, quantum=8)
    step = 0
    while ltd.effective_tokens < tokens:
        step += 1
        ltd.step = step
        for group in optimizer.param_groups:  # the rate follows effective tokens, as in the paper
            group["lr"] = 2e-3 * (1 - 0.9 * ltd.effective_tokens / tokens)
        chosen = torch.randint(len(rows) - HELD_OUT, (BATCH,), generator=torch.Generator().manual_seed(step))
        batch = rows[chosen]
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()  # in which nothing is dropped
    with torch.no_grad():
        loss = model(rows[-HELD_OUT:], labels=rows[-HELD_OUT:]).loss.item()
    return {"steps": step, "raw": ltd.tokens, "effective": ltd.effective_tokens, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", help="texts; Python's standard library unless given")
    parser.add_argument("--tokens", type=int, default=100_000, help="effective tokens of a run")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    flags = parser.parse_args()
    ids = read_bytes(flags.files)
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]
    if len(rows) < 2 * HELD_OUT or flags.tokens < BATCH * LENGTH:
        raise UserError(f"{len(rows)} rows of {LENGTH} bytes, {flags.tokens} tokens: too few; give more")
    runs = {name: train(rows, flags.tokens, name == "random-LTD") for name in ("baseline", "random-LTD")}
    if flags.json:
        print(json.dumps(runs))
        return
    print(f"{'':12}{'steps':>8}{'tokens read':>14}{'effective':>12}{'held-out loss':>16}")
    for name, run in runs.items():
        print(f"{name:12}{run['steps']:8,}{run['raw']:14,}{run['effective']:12,}{run['loss']:16.4f}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        sys.exit(2)
