"""What layers return for examples, and how the scores of classes change with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.hooks import DisconnectedError, record, tapping, trace
from lightning_xai.functional.layers import find_layers
from lightning_xai.functional.passes.request import explaining, input_tensor
from lightning_xai.tensors import detached, select

Layers = str | nn.Module | Sequence[str | nn.Module]


def activations(
    model: nn.Module,
    inputs: Any,
    layers: Layers,
    *,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """The outputs (N, *shape) of layers by name, on their device and of their type; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor, tuple or mapping, as the model takes it; or an iterator of such, batch by batch.
        layers: names, patterns or modules.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Raises:
        ValueError: a layer that does not run, or does not return one row a sample; no inputs.
    """
    found = find_layers(model, layers)
    parts: dict[str, list[Tensor]] = {name: [] for name in found}
    with explaining(model, inputs, forward=forward) as request:
        for batch, size in _batches(request.inputs, batch_size):
            for name, output in record(model, found, partial(request.run, batch)).items():
                _check_rows(name, output, size)
                parts[name].append(output)
        if not all(parts.values()):
            raise ValueError("there are no inputs: expected at least one sample")
        return {name: torch.cat(parts.pop(name)) for name in found}


def layer_gradients(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    layers: Layers,
    *,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """Gradients (N, *shape) of each sample's own class score at layers, by name: one backward a batch.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: (N,) classes.
        layers: names, patterns or modules.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Raises:
        ValueError: a layer that does not run, that the scores do not depend on, or that does not return one row a
            sample; targets that do not fit.
        IndexError: a class that the model does not have.
    """
    found = find_layers(model, layers)
    with explaining(model, inputs, targets, forward) as request:
        samples = request.shape[0]
        if not isinstance(targets, Tensor) or targets.shape != (samples,):
            given = tuple(targets.shape) if isinstance(targets, Tensor) else repr(targets)
            raise ValueError(f"targets is {given} for {samples} samples; expected a tensor ({samples},) of classes")
        parts: dict[str, list[Tensor]] = {name: [] for name in found}
        for start in range(0, samples, batch_size):
            some = request.some(slice(start, start + batch_size))
            with tapping(model, found, some.scores) as (taps, scores):
                gradients = torch.autograd.grad(scores.sum(), list(taps.values()), materialize_grads=True)
            for name, gradient in zip(taps, gradients, strict=True):
                _check_rows(name, gradient, some.shape[0])
                parts[name].append(gradient)
        return {name: torch.cat(parts.pop(name)) for name in found}


def earlier_layer(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    layer: nn.Module,
    *,
    forward: Callable[[Any], Any] | None = None,
) -> str | None:
    """The last layer to run before `layer` whose gradient differs between probes of a class, not deeper if possible."""
    (name,) = find_layers(model, layer)
    same = (targets == targets.mode().values).nonzero()[:8, 0]
    few, classes = select(inputs, same, len(targets)), targets[same]
    with explaining(model, few, forward=forward) as request:
        calls = [call.name for call in trace(model, lambda: request.run(request.inputs))]
    if name not in calls:
        return None
    before = list(dict.fromkeys(reversed(calls[: len(calls) - 1 - calls[::-1].index(name)])))
    for candidate in sorted(before, key=lambda other: other.count(".") > name.count("."))[:32]:
        try:
            gradient = layer_gradients(model, few, classes, candidate, forward=forward)[candidate].flatten(1)
        except (DisconnectedError, ValueError):
            continue
        if (gradient - gradient[:1]).abs().max() > 1e-3 * gradient.abs().max():
            return candidate
    return None


def _batches(inputs: Any, batch_size: int) -> Iterator[tuple[Any, int]]:
    whole = isinstance(inputs, (Tensor, tuple, list, Mapping)) or not isinstance(inputs, Iterable)
    for given in [inputs] if whole else inputs:
        batch = detached(given)
        size = input_tensor(batch).shape[0]
        for start in range(0, size, batch_size):
            yield select(batch, slice(start, start + batch_size), size), min(batch_size, size - start)


def _check_rows(name: str, output: Tensor, samples: int) -> None:
    if output.ndim < 2 or output.shape[0] != samples:
        raise ValueError(
            f"layer {name!r} returns {tuple(output.shape)} for {samples} samples; "
            "expected (N, *shape), one row a sample"
        )
