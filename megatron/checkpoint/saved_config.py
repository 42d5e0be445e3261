"""The configuration in a checkpoint, which may be older than some flags."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

from megatron.base.errors import UserError
from megatron.config.config import Config, resolve
from megatron.config.model import ModelConfig, without_idle_angles


def saved_config(saved: dict[str, Any], folder: Path) -> Config:
    """The configuration that a checkpoint was trained with; what it does not say yet is filled in, and angles
    that turned nothing are left out."""
    try:
        groups: dict[str, Any] = {}
        for name, group in get_type_hints(Config).items():
            if name not in saved or not dataclasses.is_dataclass(group):
                continue
            known = {field.name for field in dataclasses.fields(group)}
            values = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in saved[name].items()
                if key in known
            }
            values = without_idle_angles(values) if group is ModelConfig else values
            groups[name] = group(**values)  # type: ignore[operator]
        return resolve(Config(**groups), 1)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}/index.json: its configuration is not understood ({error}); use the version that wrote "
            "it"
        ) from None


def with_new_flags(saved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its flags, by group; flags that are newer than it have their defaults,
    which stand for what the run did without them."""
    whole = json.loads(json.dumps(dataclasses.asdict(saved_config(saved, folder))))
    groups = {name: value | saved.get(name, {}) for name, value in whole.items() if isinstance(value, dict)}
    return whole | saved | groups
