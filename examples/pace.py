"""Keeps the run time of the examples bounded on a busy machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch


def use_fastest_threads(work: Callable[[], object]) -> None:
    """Sets torch to all of its threads or to one, whichever does the work faster now.

    Threads wait for each other at the end of every kernel. When another program occupies a core, the small kernels
    here take ten times as long or more; a single thread does not wait.
    """
    every = torch.get_num_threads()
    torch.set_num_threads(1)
    work()  # warm-up: the first run also allocates
    seconds = {}
    for threads in dict.fromkeys((1, every)):
        torch.set_num_threads(threads)
        started = time.perf_counter()
        work()
        seconds[threads] = time.perf_counter() - started
    fastest = min(seconds, key=seconds.__getitem__)
    torch.set_num_threads(fastest)
    if fastest < every:
        print(f"1 thread is faster than {every} here, as happens when other programs keep the cores busy.", flush=True)


class Pace:
    """The progress of a training run, by steps made or by time spent, whichever is further.

    Once ten steps take 2.5 times as long as the fastest ten, torch is set to one thread, so that a program that starts
    in the middle does not stall the rest.
    """

    def __init__(self, steps: int, seconds: float) -> None:
        self.steps, self.seconds, self.made, self.over = steps, seconds, 0, 0
        self.fastest, self.started = math.inf, time.perf_counter()
        self.tenth = self.started

    def advance(self) -> int:
        """Call after each step: how many steps it counts for, 1 or, when time runs short, more."""
        now = time.perf_counter()
        self.made += 1
        if self.made % 10 == 0:
            self.fastest = min(self.fastest, now - self.tenth)
            if now - self.tenth > 2.5 * self.fastest:
                torch.set_num_threads(1)
            self.tenth = now
        due = int(self.steps * min(1.0, (now - self.started) / self.seconds))
        before, self.over = self.over, max(self.over + 1, due)
        return self.over - before

    @property
    def is_over(self) -> bool:
        """Whether no steps are left."""
        return self.over >= self.steps
