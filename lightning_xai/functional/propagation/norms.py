"""Normalisations: linear for a fixed deviation (Ali et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_xai.functional.field import wide
from lightning_xai.functional.propagation.calls import has_graph
from lightning_xai.functional.propagation.nodes import instead

_SIGNATURES = {f: signature(f) for f in (F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm)}


def arguments(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Those of a call by name, defaults included."""
    bound = _SIGNATURES[func].bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _over_last(func: Any, args: Any, kwargs: Any) -> Any:
    """LayerNorm and RMSNorm: over the last dimensions, the second without a mean."""
    given = arguments(func, args, kwargs)
    x, eps = given["input"], given["eps"]
    eps = torch.finfo(x.dtype).eps if eps is None else eps

    def linear(x: Tensor) -> Tensor:
        return _standardised(x, tuple(range(-len(given["normalized_shape"]), 0)), eps, func is F.layer_norm)

    return _linear(func, given, linear, given["weight"])


def _over_groups(func: Any, args: Any, kwargs: Any) -> Any:
    """GroupNorm, and InstanceNorm, whose groups are channels."""
    given = arguments(func, args, kwargs)
    if func is F.instance_norm and not given["use_input_stats"]:
        return func(*args, **kwargs)  # affine
    x, weight = given["input"], given["weight"]
    groups = x.shape[1] if func is F.instance_norm else given["num_groups"]

    def linear(x: Tensor) -> Tensor:
        parts = x.reshape(x.shape[0], groups, -1)
        return _standardised(parts, (2,), given["eps"], True).reshape(x.shape)

    return _linear(func, given, linear, None if weight is None else weight.view(-1, *[1] * (x.ndim - 2)))


def _linear(func: Any, given: dict[str, Any], linear: Callable[[Tensor], Tensor], weight: Tensor | None) -> Any:
    """What `func` computes, with the gradient of what is linear in its input."""
    x = given["input"]
    if not has_graph(x):
        return func(**given)
    scaled = linear(wide(x)) if weight is None else linear(wide(x)) * weight
    return instead(scaled, lambda: func(**{**given, "input": x.detach()}))


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float, centred: bool) -> Tensor:
    x = x - x.mean(axes, keepdim=True) if centred else x
    return x * (x.detach().square().mean(axes, keepdim=True) + eps).rsqrt()


NORMS: dict[Any, Callable[[Any, Any, Any], Any]] = {
    F.layer_norm: _over_last,
    F.rms_norm: _over_last,
    F.group_norm: _over_groups,
    F.instance_norm: _over_groups,
}
