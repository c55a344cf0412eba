"""Keeps the examples bounded on a machine whose cores have other work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


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


def paced(steps: Iterable[T]) -> Iterator[T]:
    """The steps as they come; once ten take 2.5 times as long as the fastest ten did, the rest run with one thread.

    So a program that starts in the middle does not stall them either.
    """
    fastest, started = math.inf, time.perf_counter()
    for count, step in enumerate(steps, 1):
        yield step
        if count % 10 == 0:
            now = time.perf_counter()
            fastest = min(fastest, now - started)
            if now - started > 2.5 * fastest:
                torch.set_num_threads(1)
            started = now
