"""A sentence about words of other programs."""

from typing import NamedTuple


class Answer(NamedTuple):
    """A sentence for some words. It counts where a command has all flags that the sentence names, and the
    one that it `needs`."""

    sentence: str
    words: str
    needs: str = ""
