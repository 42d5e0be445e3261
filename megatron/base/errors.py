"""Mistakes of the user: one clear message each, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """One or more problems that the user can mend; every problem says what is wrong, where, and how to
    mend it."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class RanksLost(UserError):
    """Other ranks are gone. Whoever is left says so at once, as it may be stopped next."""


@contextmanager
def collect_problems(problems: list[str]) -> Iterator[None]:
    """Add the problems of a UserError to a list, so that several checks are told together."""
    try:
        yield
    except UserError as error:
        problems += error.problems
