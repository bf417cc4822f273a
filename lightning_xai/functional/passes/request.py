"""What a map is asked of: a model, how it is run, on what, and for which targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Size, Tensor, nn

from lightning_xai.functional.hooks import Call, trace
from lightning_xai.functional.passes import outputs
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.functional.passes.layout import recognise
from lightning_xai.tensors import Rearrange, detached, first_tensor, select


@dataclass(frozen=True)
class Request:
    """A forward and what is explained of it; used inside `inspecting`."""

    model: nn.Module
    run: Callable[[Any], Any]
    inputs: Any
    targets: outputs.Targets
    reshape: Rearrange | None = None

    @property
    def shape(self) -> Size:
        """The shape of the first input, which says how many samples and cells there are."""
        return input_tensor(self.inputs).shape

    def scores(self) -> Tensor:
        """(N,) or (N, T), as the targets ask.

        Raises:
            ValueError: a callable target returned another number of scores.
        """
        found = outputs.asked_scores(self.run(self.inputs), self.targets)
        if found.shape[0] != self.shape[0]:
            raise ValueError(
                f"the callable target returned {found.shape[0]} scores for {self.shape[0]} samples; expected one "
                "a sample"
            )
        return found

    def some(self, rows: Tensor | slice) -> Request:
        """The same request for these samples; a callable target stays as it is."""
        size = self.shape[0]
        targets = self.targets if callable(self.targets) else select(self.targets, rows, size)
        return Request(self.model, self.run, select(self.inputs, rows, size), targets, self.reshape)

    def resolved(self) -> Request:
        """The same request with the classes that the targets mean now: what is changed later keeps them."""
        if callable(self.targets):
            return self
        with torch.no_grad():
            classes = outputs.classes_of(self.run(self.inputs), self.targets)
        return Request(self.model, self.run, self.inputs, classes, self.reshape)

    def move(self, name: str, layer: nn.Module, shape: Size) -> Rearrange:
        """What moves this layer's output to (N, C, *cells). Raises as `recognise` and `reshape` do."""
        if self.reshape is None:
            return recognise(name, layer, shape, self.shape, lambda: self._calls_before(name))
        reshape = self.reshape

        def move(tensor: Tensor) -> Tensor:
            moved = reshape(tensor)
            if moved.ndim < 3 or moved.shape[0] != self.shape[0]:
                raise ValueError(
                    f"reshape turned {tuple(tensor.shape)}, the output of layer {name!r}, into {tuple(moved.shape)}; "
                    f"expected ({self.shape[0]}, channels, *cells)"
                )
            return moved

        return move

    def _calls_before(self, name: str) -> list[Call]:
        few = self.some(slice(2))
        calls = trace(self.model, lambda: few.run(few.inputs))
        return calls[: max(index for index, call in enumerate(calls) if call.name == name)]


@contextmanager
def explaining(
    model: nn.Module,
    inputs: Any,
    targets: outputs.Targets = "predicted",
    forward: Callable[[Any], Any] | None = None,
    reshape: Rearrange | None = None,
) -> Iterator[Request]:
    """The guarded pass of a functional, and what it is asked of, in tensors that a graph may hold."""
    with inspecting(model):
        run = partial(outputs.call, model) if forward is None else forward
        yield Request(model, run, detached(inputs), detached(targets), reshape)


def each_gradient(scores: Tensor, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The gradients of each column of (N,) or (N, T) scores at the tensors, from one graph."""
    columns = scores[:, None] if scores.ndim == 1 else scores
    for index, column in enumerate(columns.unbind(1)):
        keep = index + 1 < columns.shape[1]
        yield torch.autograd.grad(column.sum(), tensors, retain_graph=keep, materialize_grads=True)


def input_tensor(inputs: Any) -> Tensor:
    """The first tensor of the inputs.

    Raises:
        TypeError: there is none with a dimension for the samples.
    """
    tensor = first_tensor(inputs)
    if tensor is None or tensor.ndim == 0:
        raise TypeError(f"inputs is a {type(inputs).__name__} without a tensor (N, ...)")
    return tensor
