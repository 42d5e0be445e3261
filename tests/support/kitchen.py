"""A small command whose flags are of every kind, for tests of how flags are read."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse
from megatron.config.flags import flag
from megatron.config.foreign import Foreign


@dataclass(frozen=True)
class Kitchen:
    oven_size: int = flag(help="litres of the oven")
    heat: float = flag(180.0, "degrees")
    fan: bool = flag(False, "100% air")
    cook: str | None = flag(None, "name of the cook", aliases=("--chef",), metavar="NAME")
    larder: str | None = flag(None, "where food is kept", metavar="FOLDER")
    style: str = flag("baked", "way to cook", choices=("baked", "boiled"))
    pans: tuple[int, ...] = flag((20, 24), "diameters of the pans", at_least=10)
    salt: float = flag(0.5, "share of the salt", at_least=0, below=1)
    hours: float = flag(1.0, "time in the oven", above=0)
    plates: int = flag(2, "clean plates", at_least=0)


@dataclass(frozen=True)
class Options:
    kitchen: Kitchen
    guests: int = flag(4, "people to feed")
    wish: tuple[str, ...] = flag((), "DISH:key=value,...", repeat=True, metavar="SPEC")
    config: str | None = flag(None, "YAML file", metavar="FILE", of_several="include one in the other")


FOREIGN = {
    "tables": Foreign(("1",), "there is one table"),
    "napkins": Foreign(None, "nobody uses them"),
    "fork-free": Foreign((), "forks are needed"),
}


def read(*argv: str) -> Options:
    return parse(
        Options,
        ["--oven-size", "60", *argv],
        description="Cook.",
        examples="  cook --oven-size 60",
        foreign=FOREIGN,
    )


def problems(*argv: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        read(*argv)
    return caught.value.problems


def yaml_file(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)
