"""Random-LTD in a Trainer of transformers: `Trainer(..., callbacks=[RandomLTDCallback(dropping)])`."""

from typing import Any

from transformers import TrainerCallback

from megatron.base.errors import UserError
from megatron.library.random_ltd import Dropping


class RandomLTDCallback(TrainerCallback):
    """Tells random-LTD the step, a resumed run's too, and the rank. Tells the log the kept length, and the
    effective tokens of this rank since this process began."""

    def __init__(self, dropping: Dropping):
        self.dropping = dropping

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.n_gpu > 1:
            raise UserError(
                "random-LTD: the Trainer copies the model to several GPUs of a process; start it by torchrun"
            )
        self.dropping.rank, self.dropping.ranks = args.process_index, args.world_size

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.dropping.step = state.global_step + 1

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs:
            dropping = self.dropping
            told = {"kept_length": dropping.kept_length, "effective_tokens": dropping.effective_tokens}
            logs.update(told)
            state.log_history[-1].update(told)
