import pytest

from megatron.base.errors import UserError
from megatron.config.config import configure


def test_made_up_tokens_need_a_vocabulary() -> None:
    flags = {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 128}
    with pytest.raises(UserError, match="--mock-data needs --vocab-size"):
        configure(**flags, micro_batch_size=2, lr=1e-3, train_iters=1, mock_data=True)
