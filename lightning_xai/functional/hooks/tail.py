"""Running again what is behind a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_xai.functional.layers import takes_hooks
from lightning_xai.tensors import map_tensors, replace_first


class Tail(NamedTuple):
    """One sample's last call of a layer, and the outputs of what had finished before it."""

    layer: nn.Module
    calls: int
    output: Any
    before: list[tuple[nn.Module, Any]]


def record_tail(model: nn.Module, layer: nn.Module, forward: Callable[[], object]) -> Tail:
    """Run `forward()` on one sample without grad and keep what `replaying` needs, the whole calls only."""
    running: list[int] = []
    finished: list[tuple[int, nn.Module, Any]] = []
    before: list[tuple[nn.Module, Any]] = []
    outputs: list[Any] = []
    clock = count()

    def started(module: nn.Module, args: Any) -> None:
        running.append(next(clock))
        if module is layer:
            before[:] = [(done, output) for _, done, output in finished]

    def returned(module: nn.Module, args: Any, output: Any) -> None:
        start = running.pop()
        while finished and finished[-1][0] > start:
            finished.pop()  # inside of this one, which is skipped as a whole
        output = map_tensors(output, torch.clone)  # the original may be written to
        finished.append((start, module, output))
        if module is layer:
            outputs.append(output)

    with ExitStack() as stack, torch.no_grad():
        for module in model.modules():
            if module is not model and takes_hooks(module):  # TorchScript runs again
                stack.callback(module.register_forward_pre_hook(started).remove)
                stack.callback(module.register_forward_hook(returned).remove)
        forward()
    return Tail(layer, len(outputs), outputs[-1], before)


@contextmanager
def replaying(tail: Tail, activation: Tensor, *, skip: bool) -> Iterator[None]:
    """Inside, a forward of `len(activation)` copies of the sample has `activation` as the layer's output.

    With `skip`, modules that had finished before the layer return what they returned then, without running.
    """
    original = None  # stands for a call that runs
    answers: dict[nn.Module, list[Any]] = {}
    if skip:
        for module, output in tail.before:
            answers.setdefault(module, []).append(output)
    else:
        answers[tail.layer] = [original] * (tail.calls - 1)
    answers.setdefault(tail.layer, []).append(replace_first(tail.output, activation))

    def expand(tensor: Tensor) -> Tensor:
        return tensor.expand(len(activation), *tensor.shape[1:]) if tensor.shape[:1] == (1,) else tensor

    with ExitStack() as stack:
        for module, outputs in answers.items():
            waiting = iter([map_tensors(output, expand) for output in outputs])
            stack.enter_context(_forward_replaced(module, waiting))
        yield


@contextmanager
def _forward_replaced(module: nn.Module, waiting: Iterator[Any]) -> Iterator[None]:
    forward, own = module.forward, vars(module).get("forward")

    def answer(*args: Any, **kwargs: Any) -> Any:
        output = next(waiting, None)
        return forward(*args, **kwargs) if output is None else output

    vars(module)["forward"] = answer
    try:
        yield
    finally:
        if own is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = own
