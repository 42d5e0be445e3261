"""Layouts of two ranks with one thread each against one rank with one thread: tokens per second of the same
model and global batch. Every layout runs next to one rank, in rounds.

python benchmarks/scaling.py --times runs/scaling.jsonl
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import mock_run, print_table, spread, tell
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.parallel.layout import Layout
from megatron.parallel.mesh import Mesh, wait_for_all
from tests.support.parity import LAYOUTS, place_of, train_steps
from tests.support.ranks import run_layout

ROWS, LENGTH = 8, 256
FLAGS = (
    f"--num-layers 4 --hidden-size 256 --num-attention-heads 4 --seq-length {LENGTH} --vocab-size 4096 "
    f"--micro-batch-size 1 --global-batch-size {ROWS} --train-iters 1000 --lr 1e-4 "
    "--hidden-dropout 0 --attention-dropout 0 "
)
APART = "two models apart"
SCALED = (
    *("dp2", "zero dp2", "zero-3 dp2", "tp2", "tp2+sp", "pp2", "pp2 interleaved", "pp2 zero-bubble"),
    *("cp2 allgather", "cp2 a2a", "cp2 p2p"),
)


@dataclass(frozen=True)
class Options:
    rounds: int = flag(5, "rounds of all layouts, each beside one rank", at_least=1)
    steps: int = flag(2, "timed steps of each in a round", at_least=1)
    times: str | None = flag(None, "keep the times here, and go on from those that are there", metavar="FILE")


def main() -> None:
    """Print tokens per second of every layout, and its speed as that of the one rank measured beside it."""
    options = parse(Options, sys.argv[1:], description=__doc__)
    found: dict[str, list[tuple[float, float]]] = {}
    for name, pair in _pairs(options):
        found.setdefault(name, []).append(pair)
    print_table(("layout", "tokens/s", "speed-up", "efficiency", "of the machine"), _rows(found))


def _rows(found: dict[str, list[tuple[float, float]]]) -> Iterator[tuple[str, ...]]:
    """The last column is against two models that are trained apart at the same time: what cores that share
    their memory have to give."""
    yield "one rank", _tokens([one for pairs in found.values() for one, _ in pairs]), "1", "", ""
    most = statistics.median(2 * one / apart for one, apart in found[APART])
    for name, pairs in found.items():
        batches = 2 if name == APART else 1
        ratios = [batches * one / layout for one, layout in pairs]
        middle = statistics.median(ratios)
        tokens = _tokens([layout / batches for _, layout in pairs])
        yield name, tokens, spread(ratios), f"{middle / 2:.0%}", f"{middle / most:.0%}"


def _tokens(step_seconds: list[float]) -> str:
    return spread((ROWS * LENGTH / one for one in step_seconds), ",.0f")


def _pairs(options: Options) -> Iterator[tuple[str, tuple[float, float]]]:
    """Seconds of a step of one rank and of a layout, one behind the other, in rounds; every other round goes
    backwards, so that a machine that slows down favours none."""
    kept = _kept(options.times)
    names, began, done = (APART, *SCALED), time.monotonic(), 0
    for turn in range(options.rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            if (turn, name) not in kept:
                sides = ("one", name) if turn % 2 == 0 else (name, "one")
                times = {side: _step_seconds(side, options.steps) for side in sides}
                pair = kept[turn, name] = times["one"], times[name]
                _keep(options.times, turn, name, pair)
                done += 1
                left = options.rounds * len(names) - len(kept)
                each = (time.monotonic() - began) / done
                tell(f"round {turn + 1}, {name}: {pair[0] / pair[1]:.2f}x; {left * each:,.0f} s left")
            yield name, kept[turn, name]


def _kept(path: str | None) -> dict[tuple[int, str], tuple[float, float]]:
    """Times of an earlier start of this measurement, with the same model."""
    if path is None or not Path(path).exists():
        return {}
    records = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
    return {(one["round"], one["layout"]): tuple(one["seconds"]) for one in records if one["flags"] == FLAGS}


def _keep(path: str | None, turn: int, name: str, pair: tuple[float, float]) -> None:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"round": turn, "layout": name, "seconds": pair, "flags": FLAGS}) + "\n")


def _step_seconds(name: str, steps: int) -> float:
    """Seconds of a step, by the slowest rank."""
    if name in ("one", APART):
        return max(run_layout(Layout(data=1 if name == "one" else 2), _timed_alone, steps))
    flags, layout, replicas = place_of(LAYOUTS[name])
    return max(run_layout(layout, _timed, FLAGS + flags, replicas, steps))


def _timed_alone(mesh: Mesh, steps: int) -> float:
    """Each rank trains a model of its own, and only begins and ends with the others."""
    return _timed(mesh, FLAGS, 1, steps, Mesh())


def _timed(mesh: Mesh, flags: str, replicas: int, steps: int, used: Mesh | None = None) -> float:
    run = mock_run(used or mesh, flags, replicas)
    train_steps(run, 1, 1)
    wait_for_all(mesh)
    began = time.perf_counter()
    train_steps(run, 2, 1 + steps)
    wait_for_all(mesh)
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    run_command(main)
