"""The curriculum in a plain loop over a torch DataLoader: rare words later, short rows first, against the
same model on uniform draws of whole rows, at equal tokens. A minute on one CPU core.

    python examples/curriculum_dataloader.py [TEXT_FILE ...] [--tokens N] [--workers N]
"""

import argparse
import json
import sys
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from megatron.base.errors import UserError
from megatron.library.batch_sampler import CurriculumBatchSampler, cut
from megatron.library.difficulties import measure

LENGTH, BATCH, HELD_OUT, WIDTH = 128, 8, 64, 64


class Rows(Dataset):
    """Any map-style dataset will do: this one has rows of bytes."""

    def __init__(self, rows: torch.Tensor):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[number]}


class Model(nn.Module):
    """A small causal transformer of torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, WIDTH), nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers, self.head = (
            nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
            nn.Linear(WIDTH, 256),
        )

    def loss(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1] - 1
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.tokens(ids[:, :-1]) + self.places.weight[:length]
        logits = self.head(self.layers(x, mask, is_causal=True))
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train(rows: torch.Tensor, tokens: int, curriculum: list[str], workers: int) -> dict[str, float]:
    """Train on `rows` [N, LENGTH] until `tokens` tokens are read; what was read, and the held-out loss."""
    torch.manual_seed(0)
    model, dataset = Model(), Rows(rows[:-HELD_OUT])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    steps = 4 * tokens // (BATCH * LENGTH)  # more than enough: the loop ends by tokens
    difficulties = measure(dataset, 256, ("vocab_rarity",), quiet=True) if curriculum else {}
    sampler = CurriculumBatchSampler(len(dataset), BATCH, steps, curriculum, difficulties)
    read = 0
    for step, batch in enumerate(
        DataLoader(dataset, batch_sampler=sampler, num_workers=workers), sampler.first_step
    ):
        ids = cut(batch, sampler.length_at(step))["input_ids"]
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - 0.9 * read / tokens)
        model.loss(ids).backward()
        optimizer.step()
        optimizer.zero_grad()
        read += ids.numel()
        if read >= tokens:
            break
    with torch.no_grad():
        return {"steps": step, "tokens": read, "loss": model.eval().loss(rows[-HELD_OUT:]).item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", help="texts; Python's standard library unless given")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of a run")
    parser.add_argument("--workers", type=int, default=0, help="worker processes of the DataLoader")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    flags = parser.parse_args()
    paths = flags.files or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    text = bytearray(b"\n\n".join(Path(path).read_bytes() for path in paths))
    ids = torch.frombuffer(text, dtype=torch.uint8).long()
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]
    if len(rows) < 2 * HELD_OUT or flags.tokens < BATCH * LENGTH:
        raise UserError(f"{len(rows)} rows of {LENGTH} bytes, {flags.tokens} tokens: too few; give more")
    half = max(flags.tokens // (BATCH * LENGTH) // 2, 1)
    curricula = {
        "baseline": [],
        "curriculum": [
            f"vocab_rarity:difficulty=percentile,min=20,max=100,pacing=fixed_root,root=2,duration={half}",
            f"seqlen_truncate:min=32,max={LENGTH},duration={half},quantum=8",
        ],
    }
    runs = {name: train(rows, flags.tokens, one, flags.workers) for name, one in curricula.items()}
    if flags.json:
        print(json.dumps(runs))
        return
    print(f"{'':12}{'steps':>8}{'tokens':>12}{'held-out loss':>16}")
    for name, run in runs.items():
        print(f"{name:12}{run['steps']:8,}{run['tokens']:12,}{run['loss']:16.4f}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        sys.exit(2)
