"""The configuration in a checkpoint: as it was, however much older or newer than some flags it is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.checkpoint.saved_config import saved_config, with_new_flags
from tests.support.configurations import STOP, make_config

CONFIG = make_config(
    STOP + "--swiglu --data-path a b --rampup-batch-size 2 2 40 --bf16 --seed 7 --global-batch-size 8"
)
FOLDER = Path("run/iter_0000003")


def saved() -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(dataclasses.asdict(CONFIG)))


def test_a_configuration_comes_back_as_it_was() -> None:
    assert saved_config(saved(), FOLDER) == CONFIG


def test_what_an_older_checkpoint_does_not_say_has_its_default() -> None:
    older = saved()
    del older["training"]["bf16"], older["model"]["kv_channels"]
    found = saved_config(older, FOLDER)
    assert found.training == dataclasses.replace(CONFIG.training, bf16=False)
    assert found.model == CONFIG.model and found.logging == CONFIG.logging
    wanted = saved()
    wanted["training"]["bf16"] = False
    assert with_new_flags(older, FOLDER) == wanted


def test_flags_that_there_are_no_more_stay_in_what_is_compared_alone() -> None:
    newer = saved()
    newer["model"]["former"] = 3
    newer["gone"] = {"flag": 1}
    assert saved_config(newer, FOLDER) == CONFIG
    whole = with_new_flags(newer, FOLDER)
    assert whole["model"]["former"] == 3 and whole["gone"] == {"flag": 1}


@pytest.mark.parametrize("group", [None, 3, {"num_layers": "many", "hidden_size": []}])
def test_what_is_no_configuration_is_refused(group: Any) -> None:
    with pytest.raises(UserError, match=r"run/iter_0000003/index\.json: its configuration is not understood"):
        saved_config(saved() | {"model": group}, FOLDER)
