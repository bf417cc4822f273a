"""What functions without weights are to relevance: activations, products, scales, attention, recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_xai.functional.field import wide
from lightning_xai.functional.propagation.calls import has_graph
from lightning_xai.functional.propagation.nodes import instead, shared
from lightning_xai.tensors import map_tensors

Operation: TypeAlias = Callable[[Any, Any, Any], Any]
"""(function, args, kwargs) -> its output, with the gradient that its rule says."""

_TINY = 1e-6


def _identity(func: Any, args: Any, kwargs: Any) -> Any:
    """An activation that is zero at zero passes on relevance as it is (Achtibat et al. 2024)."""
    x, *rest = args or [kwargs.pop("input")]
    if not has_graph(x):
        return func(x, *rest, **kwargs)
    with torch.no_grad():
        near = wide(x)
        near = torch.where(near.abs() < _TINY, near + _TINY, near)
        ratio = func(near.clone(), *rest, **kwargs) / near
    return instead(x * ratio, lambda: func(x.detach(), *rest, **kwargs))


def _product(func: Any, args: Any, kwargs: Any) -> Any:
    """Of a product each factor has an equal share (Achtibat et al. 2024)."""
    values = [value for arg in args for value in (arg if isinstance(arg, (tuple, list)) else [arg])]
    factors = sum(map(has_graph, values))
    output = func(*args, **kwargs)
    if factors > 1:
        # on the output, which may be a factor that was written to
        output.register_hook(lambda carried: carried / factors)
    return output


def _added_product(func: Any, args: Any, kwargs: Any) -> Any:
    """`baddbmm` and its like: of the sum the first is no factor."""
    added, *factors = args
    number = sum(map(has_graph, factors))
    if number < 2:
        return func(*args, **kwargs)
    return func(added, *[shared(factor, 1 / number) for factor in factors], **kwargs)


def _quotient(func: Any, args: Any, kwargs: Any) -> Any:
    """What divides is a scale: it takes no relevance."""
    if len(args) < 2 or not has_graph(args[0]) or not has_graph(args[1]):
        return func(*args, **kwargs)
    return func(args[0], args[1].detach(), *args[2:], **kwargs)


def _scale(func: Any, args: Any, kwargs: Any) -> Any:
    """1 / sqrt(x): a scale, which takes no relevance."""
    return map_tensors(func(*args, **kwargs), Tensor.detach)


def _attention(func: Any, args: Any, kwargs: Any) -> Any:
    """Two products: of the values with the weights, and of the queries with the keys; softmax has its gradient."""
    given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    weighs = [key for key in ("query", "key") if has_graph(given[key])]
    sides = bool(weighs) + has_graph(given["value"])
    for key in weighs:
        given[key] = shared(given[key], 1 / (sides * len(weighs)))
    if has_graph(given["value"]):
        given["value"] = shared(given["value"], 1 / sides)
    return func(given.pop("query"), given.pop("key"), given.pop("value"), *args[3:], **given)


def _recurrent(func: Any, args: Any, kwargs: Any) -> Any:
    if any(map(has_graph, args)):
        raise ValueError(
            f"the input passes a recurrent layer ({func.__name__}), whose gates have no rule here: relevance would be "
            "wrong. Take integrated_gradients or input_x_gradient, or give what the layer returns as the input, with "
            "forward= for what follows."
        )
    return func(*args, **kwargs)


_KINDS: dict[Operation, set[str]] = {
    _identity: {
        *("celu", "elu", "gelu", "hardswish", "hardtanh", "mish", "relu6", "selu", "silu", "softsign", "tanh"),
        "tanhshrink",
    },
    _product: {*("mul", "rmul", "imul", "multiply", "matmul", "rmatmul", "mm", "bmm", "einsum", "bilinear")},
    _added_product: {"addmm", "baddbmm", "addcmul"},
    _quotient: {"div", "divide", "truediv", "true_divide", "itruediv"},
    _scale: {"rsqrt"},
    _attention: {"scaled_dot_product_attention"},
    _recurrent: {
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    },
}
RULES: dict[str, Operation] = {name: rule for rule, names in _KINDS.items() for name in names}
