"""Mistakes of the user: one clear message each, no traceback."""


class UserError(Exception):
    """One or more problems that the user can mend; every problem says what is wrong, where, and how to
    mend it."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems
