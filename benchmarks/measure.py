"""Time and memory of functions, side by side in one process."""

from __future__ import annotations

import gc
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

Contenders = Mapping[str, Callable[[], Any]]


class Interval(NamedTuple):
    """A median and the interval that holds the true one with 95% (below 6 values: their range)."""

    median: float
    low: float
    high: float


def interleaved(contenders: Contenders, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """The seconds of each contender in each round; a round runs each once, in an order of its own.

    Drawn orders, since a rotation leaves each contender behind the same neighbour, whose memory it inherits.
    """
    draw = random.Random(0)
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        contenders[name]()  # the first call allocates and chooses algorithms
    for _ in range(rounds):
        gc.collect()
        gc.disable()
        try:
            for name in draw.sample(names, len(names)):
                seconds[name].append(timed(contenders[name], device))
        finally:
            gc.enable()
    return seconds


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call. On a CPU, those of this process, which has one thread: others' work does not count."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronise(device)
    start = clock()
    run()
    synchronise(device)
    return clock() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Interval:
    """The median of the ratios within a round, so that what slows a whole round down cancels."""
    return interval([a / b for a, b in zip(seconds, reference, strict=True)])


def interval(values: Sequence[float]) -> Interval:
    """The median with its order statistics: no assumption about the noise."""
    ordered, n = sorted(values), len(values)
    cut = 0  # values left out at each end; the true median is among them as often as so few of n coins show heads
    while 2 * sum(math.comb(n, heads) for heads in range(cut + 2)) <= 0.05 * 2**n:
        cut += 1
    return Interval(median(ordered), ordered[cut], ordered[n - 1 - cut])


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """MiB that one call holds at its peak beyond what was there before it, counted by torch's allocators."""
    run()
    gc.collect()
    if device.type == "cuda":
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronise(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with stderr_closed(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    recorded = profiler.profiler.kineto_results.events()  # the public tables sum over operations, without the order
    changes = [event for event in recorded if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


@contextmanager
def stderr_closed() -> Iterator[None]:
    """Some builds of torch's profiler write to the process's stderr whatever their log level is."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
