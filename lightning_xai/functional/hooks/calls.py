"""The calls of a forward: which layers ran, and which is running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_xai.functional.layers import named_layers, takes_hooks
from lightning_xai.tensors import first_tensor


class Call(NamedTuple):
    """One call of a layer that returned a floating-point tensor (or a collection that starts with one)."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    taken: tuple[int, ...] = ()
    """The shape of the first tensor that it was given."""


def trace(model: nn.Module, forward: Callable[[], object]) -> list[Call]:
    """The calls of all layers of `model` in one `forward()` without grad, in the order they returned.

    Modules of TorchScript take no hooks, and are passed over.
    """
    calls: list[Call] = []

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.is_floating_point():
            first = first_tensor(args)
            calls.append(Call(name, module, tuple(tensor.shape), () if first is None else tuple(first.shape)))

    with ExitStack() as stack, torch.no_grad():
        for name, module in named_layers(model).items():
            if takes_hooks(module):
                stack.callback(module.register_forward_hook(partial(hook, name)).remove)
        forward()
    return calls


@contextmanager
def running_modules(model: nn.Module, returned: Callable[..., None] | None = None) -> Iterator[list[str]]:
    """The names of the modules that are running, the innermost last; the model itself goes by its class.

    `returned(name, module, args, kwargs, output)` is called for each layer when it returns. Modules of
    TorchScript take no hooks: what they do counts as done by the module around them.
    """
    running = [type(model).__name__]

    def start(name: str, module: nn.Module, args: Any) -> None:
        running.append(name)

    def end(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if returned is not None:
            returned(name, module, args, kwargs, output)
        while running.pop() != name:
            pass  # a call inside that raised, and whose error was caught

    with ExitStack() as stack:
        for name, module in named_layers(model).items():
            if takes_hooks(module):
                stack.callback(module.register_forward_pre_hook(partial(start, name)).remove)
                stack.callback(module.register_forward_hook(partial(end, name), with_kwargs=True).remove)
        yield running
