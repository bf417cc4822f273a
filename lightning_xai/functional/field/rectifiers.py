"""ReLUs as nodes of the graph, on which rules hang that change what passes backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from lightning_xai.functional.hooks import graph_nodes, operation

_LOWEST = {  # what is zero below zero, by the attribute that says below what it is cut
    "Relu": None,
    "Threshold": "_saved_threshold",
    "Hardtanh": "_saved_min_val",
    "Clamp": "_saved_min",
    "ClampMin": "_saved_min",
}
_OTHERS = {"Elu", "Gelu", "Hardsigmoid", "Hardswish", "LeakyRelu", "Mish", "Sigmoid", "Silu", "Softplus", "Tanh"} | {
    *_LOWEST
}


def guided(scores: Tensor) -> None:
    """Makes each ReLU behind the scores pass on, of what it passes on, the positive part. Raises as `rectifiers`."""
    _change(scores, lambda passed, arriving: passed[0].clamp_min(0))


def deconvolved(scores: Tensor) -> None:
    """Makes each ReLU behind the scores pass on the positive part of what arrives. Raises as `rectifiers`."""
    _change(scores, lambda passed, arriving: arriving[0].clamp_min(0))


def rectifiers(scores: Tensor) -> list[Node]:
    """The nodes of ReLUs that the scores were computed by, however they are spelled.

    Raises:
        ValueError: there is none, and a rule for them would give the plain gradient another name.
    """
    nodes = graph_nodes(scores)
    found = [node for node in nodes if _rectifies(node)]
    if not found:
        others = sorted({operation(node) for node in nodes} & _OTHERS)
        has = f"it has {', '.join(others)}" if others else "it has no activation function"
        raise ValueError(
            f"there is no ReLU between the input and the scores ({has}), so this would be the plain gradient under "
            "another name. Take saliency, input_x_gradient or integrated_gradients."
        )
    return found


def _rectifies(node: Node) -> bool:
    kind = operation(node)
    if kind not in _LOWEST:
        return False
    lowest = _LOWEST[kind]
    return lowest is None or getattr(node, lowest, None) == 0


def _change(scores: Tensor, rule: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]) -> None:
    def hook(passed: Any, arriving: Any) -> Any:
        return (rule(passed, arriving), *passed[1:])

    for node in rectifiers(scores):
        node.register_hook(hook)
