"""Made-up runs whose numbers are plain arithmetic."""

import json
from pathlib import Path

LAYERS, BATCH, FULL = 4, 2, 100


def write_run(
    folder: Path,
    steps: int = 40,
    drop: int = 0,
    loss: float = 5.0,
    about: dict | None = None,
    windows: int | None = None,
    batch: int = BATCH,
) -> Path:
    """A run of `steps` steps at full length, whose two middle layers (of four) drop `drop` tokens a row in
    its first half. Training loss falls by 0.01 a step from `loss`, validation every 10 steps is 0.5 above
    it, and the test after the last step 0.6. Both score `windows`, where that is known."""
    number = {} if windows is None else {"windows": windows}
    folder.mkdir(parents=True, exist_ok=True)
    layer_tokens = effective = 0
    lines = []
    for step in range(1, steps + 1):
        kept = FULL - drop if step <= steps // 2 else FULL
        layer_tokens += batch * 2 * (FULL + kept)
        effective += batch * ((FULL + kept) // 2)
        counters = {
            "iteration": step,
            "consumed_samples": step * batch,
            "consumed_tokens": effective,
            "raw_tokens": step * batch * FULL,
            "drawn_tokens": step * batch * FULL,
            "layer_tokens": layer_tokens,
        }
        lines.append(
            {
                "kind": "train",
                **counters,
                "lm_loss": loss - 0.01 * step,
                "learning_rate": 1e-3,
                "grad_norm": 1.0,
                "seq_length": FULL,
                "kept_length": kept,
                "batch_size": batch,
                "ms_per_iteration": 500.0,
                "tokens_per_second": 400.0,
                "caps": {"vocab_rarity": min(10 + step, 30)},
            }
        )
        if step % 10 == 0:
            lines.append({"kind": "valid", **counters, **number, "lm_loss": loss - 0.01 * step + 0.5})
    if windows is not None:
        lines.append({"kind": "test", **counters, **number, "lm_loss": loss - 0.01 * steps + 0.6})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if about is not None:
        (folder / "run.json").write_text(json.dumps(about))
    return folder
