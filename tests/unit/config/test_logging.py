from importlib.machinery import ModuleSpec

import pytest

from tests.support.configurations import STOP, problems_of


@pytest.mark.parametrize("spec", [None, ModuleSpec("wandb", None)])  # the latter: a folder of that name
def test_wandb_is_asked_for_only_where_it_is_installed(
    spec: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.config.logging.find_spec", lambda _: spec)
    assert problems_of(STOP + "--wandb-project mine") == [
        "--wandb-project mine needs the package wandb; install it by pip install wandb, or leave the flag out"
    ]
    assert problems_of(STOP + "--wandb-project mine --dry-run") == []
