"""Keeps the examples bounded on a machine whose cores have other work."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def use_fastest_threads(work: Callable[[], object]) -> float:
    """Sets torch to all of its threads or to one, whichever does the work faster now; returns the seconds it took.

    Threads wait for each other at the end of every kernel. Where another program keeps one off its core, the small
    kernels here take ten times as long and more; one thread waits for nobody.
    """
    every = torch.get_num_threads()
    torch.set_num_threads(1)
    work()  # the first run also allocates, which says nothing about the rest
    seconds = {}
    for threads in dict.fromkeys((1, every)):
        torch.set_num_threads(threads)
        started = time.perf_counter()
        work()
        seconds[threads] = time.perf_counter() - started
    fastest = min(seconds, key=seconds.__getitem__)
    torch.set_num_threads(fastest)
    if fastest < every:
        print(f"1 thread is faster than {every} here, as where other programs keep the cores busy.", flush=True)
    return seconds[fastest]
