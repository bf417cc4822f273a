"""What a shadow takes in time and memory where a module holds an epoch's outputs, in whatever they are kept."""

import gc
import time
import tracemalloc
from array import array
from collections import deque
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from lightning_xai.functional.shadow import Snapshot

MIB = 2**20
STATUS = Path("/proc/self/status")


def tensors(mib: int, each: int = MIB) -> list[torch.Tensor]:
    return [torch.ones(each // 4) for _ in range(mib * MIB // each)]


def arrays(mib: int) -> list[Any]:
    return [numpy.ones(MIB // 4, dtype=numpy.float32) for _ in range(mib)]


TENSORS = {
    "a list": tensors,
    "a list of many": lambda mib: tensors(mib, MIB // 64),
    "pairs": lambda mib: [(t, u) for t, u in zip(tensors(mib // 2), tensors(mib // 2), strict=True)],
    "a dict": lambda mib: dict(enumerate(tensors(mib))),
    "dicts": lambda mib: [{"loss": 0.5, "logits": t} for t in tensors(mib)],
    "lists in a dict": lambda mib: {"logits": tensors(mib // 2), "labels": tensors(mib // 2)},
    "one tensor": lambda mib: tensors(mib, mib * MIB)[0],
    "views of one tensor": lambda mib: list(torch.ones(mib, MIB // 4)),
}
OTHERS = {
    "arrays": arrays,
    "arrays in a dict": lambda mib: dict(enumerate(arrays(mib))),
    "arrays of Python's": lambda mib: [array("d", bytes(MIB)) for _ in range(mib)],
    "bytes that change": lambda mib: [bytearray(MIB) for _ in range(mib)],
    "texts": lambda mib: ["a" * MIB for _ in range(mib)],
}
MANY = {
    "pairs": lambda: [(i, str(i)) for i in range(10**6)],
    "pairs by number": lambda: {i: str(i) for i in range(10**6)},
    "pairs in lists": lambda: [[(i, j) for i in range(1000)] for j in range(1000)],
    "pairs in a deque": lambda: deque((i, str(i)) for i in range(10**6)),
    "a set": lambda: set(map(str, range(10**6))),
}


def holding(content: Any) -> nn.Module:
    model = nn.Linear(4, 3)
    model.content = content
    return model


def own(content: Any, other: Any) -> int:
    """Bytes of the tensors in one that are not the other's."""
    if isinstance(content, torch.Tensor):
        return 0 if content.data_ptr() == other.data_ptr() else content.nbytes
    if isinstance(content, dict):
        return sum(own(content[key], other[key]) for key in content)
    return sum(map(own, content, other)) if isinstance(content, (list, tuple)) else 0


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS.keys())
def test_most_of_an_epoch_s_tensors_are_shared(make: Any) -> None:
    content = make(96)
    model = holding(content)
    assert own(Snapshot(model).shadow().content, content) <= 32 * MIB


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
def test_most_of_an_epoch_s_arrays_are_shared(make: Any) -> None:
    assert traced(holding(make(96))) <= 64 * MIB


@pytest.mark.parametrize("make", MANY.values(), ids=MANY.keys())
def test_a_million_things_are_not_copied_one_by_one(make: Any) -> None:
    model = holding(make())
    assert traced(model) <= 64 * MIB
    found = Snapshot(model).shadow()
    assert found.content == model.content and found.content is not model.content


def traced(model: nn.Module) -> int:
    """The most that Python and numpy hold while a shadow is made."""
    tracemalloc.start()
    shadow = Snapshot(model).shadow()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shadow is not model
    return peak


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the peak is the kernel's")
def test_a_gibibyte_of_outputs_and_a_million_pairs() -> None:
    model = holding([TENSORS[kind](256) for kind in ("a list", "pairs", "a dict")] + [arrays(256)])
    alone = process_time(model)
    model.pairs = MANY["pairs"]()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before = resident("VmRSS")
    spent = process_time(model)
    assert resident("VmHWM") <= 1.05 * before
    assert alone <= 0.05 and spent <= 0.05 + process_time(nn.Linear(4, 3))


def process_time(model: nn.Module) -> float:
    """Of the fastest of three."""
    times = []
    for _ in range(3):
        started = time.process_time()
        Snapshot(model).shadow()
        times.append(time.process_time() - started)
    return min(times)


def resident(kind: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(kind))
