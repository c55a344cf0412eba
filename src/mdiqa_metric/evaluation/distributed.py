"""Work shared among the processes that torchrun or `accelerate launch` started."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import Any

import torch

from ..optional import import_optional


class Processes:
    """The processes that share the work: this one alone, or all that torchrun or `accelerate launch` started."""

    def __init__(self, device: str) -> None:
        self.index, self.count, self.device = 0, 1, device
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        started = torch.distributed.get_world_size() if grouped else int(os.environ.get("WORLD_SIZE", 1))
        if started == 1:
            return
        # Only Python objects are exchanged, so gloo does on any device; a process may wait long for the slowest one.
        state = import_optional("accelerate").PartialState(cpu=True, backend="gloo", timeout=timedelta(days=7))
        if not grouped:
            atexit.register(state.destroy_process_group)  # or gloo's threads may abort a process that ends
        if state.num_processes != started:
            raise ValueError(
                f"{started} processes are grouped, but nothing says so in their environment: start them with torchrun "
                "or accelerate launch."
            )
        self.index, self.count = state.process_index, state.num_processes
        self.device = f"{device}:{state.local_process_index}" if device == "cuda" else device

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in order, once all are here."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])
