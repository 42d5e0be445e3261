"""A Chrome trace of some steps, by torch's profiler: chrome://tracing and https://ui.perfetto.dev open it."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from megatron.base.errors import UserError
from megatron.base.files import whole_file
from megatron.base.terminal import print_line
from megatron.config.config import Config
from megatron.parallel.mesh import Mesh


class Profile:
    """Records the steps behind --profile-step-start through --profile-step-end on this rank, if --profile
    names it."""

    def __init__(self, config: Config, mesh: Mesh):
        flags, self.rank, self.device = config.logging, mesh.world.rank, mesh.device
        self.first, self.last = flags.profile_step_start, flags.profile_step_end
        self.waiting = flags.profile and mesh.world.rank in flags.profile_ranks
        folder = Path(config.checkpoint.save or flags.tensorboard_dir or ".") / "profile"
        self.path = folder / f"rank{mesh.world.rank}.steps{self.first}-{self.last}.json"
        self.running: torch.profiler.profile | None = None

    def after(self, iteration: int) -> bool:
        """Begin or end after this step, if it is time; whether the steps that follow are recorded."""
        if self.waiting and self.first <= iteration < self.last:
            activities = [ProfilerActivity.CPU]
            if self.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self.waiting, self.running = False, torch.profiler.profile(activities=activities)
            self.running.start()
        elif self.running and iteration >= self.last:
            self._write(self.running)
        return self.running is not None

    def close(self) -> None:
        """Write what is still being recorded, and say so where nothing was."""
        if self.running:
            self._write(self.running)
        elif self.waiting:
            print_line(f"note: --profile: no step from {self.first + 1} to {self.last} was done")

    def _write(self, running: torch.profiler.profile) -> None:
        running.stop()
        self.running = None
        try:
            with whole_file(self.path) as file:
                running.export_chrome_trace(file.name)
        except (OSError, RuntimeError, UserError) as error:  # training goes on without it
            print_line(f"warning: no profile of rank {self.rank} is written: {error}")
        else:
            print_line(f"profile of rank {self.rank}: {self.path}")
