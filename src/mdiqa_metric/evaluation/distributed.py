"""Work shared among the processes started by torchrun or `accelerate launch`."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import Any

import torch

from ..optional import import_optional


class Processes:
    """The processes that share the work: this one alone, or all started by torchrun or `accelerate launch`.

    Attributes:
        index: the number of this process, from 0.
        count: the number of processes.
        device: the device to use; "cuda" becomes the GPU of this process.

    Raises:
        ImportError: there are several processes and accelerate is not installed.
        ValueError: a process group exists, but the environment variables of torchrun are not set.

    Example:
        >>> processes = Processes("cpu")
        >>> processes.index, processes.count, processes.gather("mine")
        (0, 1, ['mine'])
    """

    def __init__(self, device: str) -> None:
        self.index, self.count, self.device = 0, 1, device
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        started = torch.distributed.get_world_size() if grouped else int(os.environ.get("WORLD_SIZE", 1))
        if started == 1:
            return
        # Only Python objects are exchanged, so gloo does for any device. The slowest process may take long.
        state = import_optional("accelerate").PartialState(cpu=True, backend="gloo", timeout=timedelta(days=7))
        if not grouped:
            atexit.register(state.destroy_process_group)  # otherwise gloo's threads may abort an exiting process
        if state.num_processes != started:
            raise ValueError(
                f"{started} processes are grouped, but their environment variables do not say so: start them with "
                "torchrun or accelerate launch."
            )
        self.index, self.count = state.process_index, state.num_processes
        self.device = f"{device}:{state.local_process_index}" if device == "cuda" else device

    def gather(self, value: Any) -> list[Any]:
        """The values that all processes pass, in order; waits for all of them."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])
