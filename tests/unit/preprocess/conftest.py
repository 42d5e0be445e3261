"""An engine that is wrong, for tests of what verification notices."""

import numpy as np
import pytest

from megatron.data import huggingface

MISREAD = ("ḧ", "zebra")


@pytest.fixture
def wrong_gigatoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigatoken that drops the last id of every text with one of MISREAD."""
    real = huggingface.gigatoken_engine

    def wrong(**about):
        encode = real(**about)

        def encode_wrongly(texts):
            parts = [encode([text])[0] for text in texts]
            parts = [part[:-1] if any(map(text.count, MISREAD)) else part for part, text in zip(parts, texts)]
            return np.concatenate(parts), np.array(list(map(len, parts)))

        return encode_wrongly

    monkeypatch.setattr(huggingface, "gigatoken_engine", wrong)
