"""NVIDIA's apex, where it is installed: kernels for AdamW and LayerNorm on GPUs. Nothing needs them.

It is built from source. `apex` on PyPI is another project, so what counts is whether the classes are there.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Apex(NamedTuple):
    """Its AdamW, an optimizer class, and layer_norm(x, weight, bias, shape, epsilon)."""

    adam: Callable[..., Any]
    layer_norm: Callable[..., Any]


def find_apex() -> Apex:
    """NVIDIA's apex with its kernels; ImportError that says what is missing."""
    adam = _member("apex.optimizers", "FusedAdam")
    norm = _member("apex.normalization", "FusedLayerNorm")
    if not _member("apex.multi_tensor_apply", "multi_tensor_applier").available:
        raise ImportError("it was built without its CUDA kernels")
    return Apex(adam, _member(norm.__module__, "fused_layer_norm_affine"))


def uses_apex() -> bool:
    """Whether a run takes it without being asked: where it is found beside a GPU."""
    if "apex" not in sys.modules and importlib.util.find_spec("apex") is None:
        return False
    try:
        find_apex()
        torch = importlib.import_module("torch")  # here, as most commands do without it
        return bool(torch.cuda.is_available())
    except ImportError:
        return False


def _member(module: str, name: str) -> Any:
    try:
        return getattr(sys.modules.get(module) or importlib.import_module(module), name)
    except AttributeError:
        raise ImportError(f"{module} has no {name}") from None
    except ImportError:
        raise
    except Exception as error:  # whatever a package of the same name does when it is imported
        raise ImportError(f"{module}: {error}") from None
