"""Two runs to compare."""

from pathlib import Path

import pytest

from tests.support.made_up_runs import write_run


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A baseline, and a run that drops tokens and is 0.1 nats lower at the same step."""
    config = {
        "model": {"num_layers": 4},
        "checkpoint": {"save": "a"},
        "data_efficiency": {"random_ltd": False, "curriculum": []},
    }
    other = {
        "model": {"num_layers": 4},
        "checkpoint": {"save": "b"},
        "data_efficiency": {"random_ltd": True, "curriculum": ["a:b=1", "c:d=2"]},
    }
    about = {
        "parameters": 1234,
        "data": [{"name": "corpus <one>", "samples": 50, "weight": None}],
        "started": "today",
        "steps": 40,
        "world_size": 1,
    }
    return (
        write_run(tmp_path / "plain", about={"config": config, **about}),
        write_run(tmp_path / "dropped", drop=40, loss=4.9, about={"config": other, **about}),
    )
