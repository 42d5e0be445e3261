"""Functions that numba compiles, kept on disk between runs wherever a folder for that can be written.

numba itself keeps them beside the source or in the user's home, and fails to start where it can write to
neither: a read-only container, another user's checkout.
"""

from collections.abc import Callable
from typing import Any

import numba

from megatron.base.files import temporary_cache

NO_PLACE = (RuntimeError, OSError)
"""numba knows no folder to write to, or cannot write to the one that it knows."""


def compiled(signature: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function by numba, without the GIL. Where no folder can be written, temporary ones
    included, every process compiles it anew."""

    def decorate(function: Callable[..., Any]) -> Any:
        def compile_it(cache: bool) -> Any:
            return numba.njit(signature, nogil=True, cache=cache, **options)(function)

        try:
            return compile_it(cache=True)
        except NO_PLACE:
            pass
        try:
            numba.config.CACHE_DIR = str(temporary_cache("numba"))  # type: ignore[attr-defined]
            return compile_it(cache=True)
        except NO_PLACE:
            return compile_it(cache=False)

    return decorate
