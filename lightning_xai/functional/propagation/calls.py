"""Calls of layers with weights, however they are spelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lightning_xai.functional.propagation.rules import Layer

_TRANSPOSED = {f"conv_transpose{n}d" for n in (1, 2, 3)}
_CONVOLUTIONS = {f"conv{n}d" for n in (1, 2, 3)} | _TRANSPOSED


class LayerCall(NamedTuple):
    """A layer that is called.

    Args:
        a: its input.
        layer: the layer.
        run: a -> its output, as the model has it.
    """

    a: Tensor
    layer: Layer
    run: Callable[[Tensor], Tensor]


def layer_call(func: Any, name: str, args: Any, kwargs: Any) -> LayerCall | None:
    """What is called where constants weigh a tensor that has a graph; None for other calls."""
    if name == "linear" or name in _CONVOLUTIONS:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        a, weight, bias = (given.pop(key, None) for key in ("input", "weight", "bias"))

        def apply(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            output: Tensor = func(a, weight, bias, *args[3:], **given)
            return output

        call = LayerCall(
            a, Layer(apply, weight, bias, name == "linear", name not in _TRANSPOSED), lambda a: apply(a, weight, bias)
        )
    elif name in ("matmul", "mm", "addmm") and len(args) == 2 + (name == "addmm") and not kwargs:
        *before, a, weight = args
        bias = before[0] if before else None
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            return None
        call = LayerCall(a, Layer(F.linear, weight.mT, bias, True, True), lambda a: func(*before, a, weight))
    else:
        return None
    return call if has_graph(a) and not has_graph(weight) and not has_graph(bias) else None


def has_graph(value: Any) -> bool:
    """Whether it is a tensor that depends on what is explained."""
    return isinstance(value, Tensor) and value.requires_grad
