"""The first layers, to whose inputs relevance is given itself, since an input of zero would take none."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from lightning_xai.functional.hooks import operation
from lightning_xai.functional.propagation.nodes import has_rule, is_instead

_SCALES = {"Add", "Div", "Mul", "Neg", "Rsub", "Sub"}
_MOVES = {
    *("AccumulateGrad", "AsStrided", "Cat", "Clone", "ConstantPadNd", "Expand", "Index", "Permute", "ReshapeAlias"),
    *("Select", "Slice", "Split", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind", "UnsafeView", "Unsqueeze"),
    *("View", "Unfold", "ReflectionPad1D", "ReflectionPad2D", "ReplicationPad2D"),
}


def nodes_before(a: Tensor) -> set[Node] | None:
    """All nodes before `a` where no layer with weights is among them; None where one is."""
    waiting = [get_gradient_edge(a).node]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if has_rule(node):
            return None
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)
    return seen


def pass_as_it_is(nodes: set[Node]) -> None:
    """Makes what goes before a first layer pass on relevance as it is: it belongs to a place, whatever its scale.

    Raises:
        ValueError: where places are mixed before it.
    """
    for node in nodes:
        kind = operation(node)
        if kind in _SCALES and sum(before is not None for before, _ in node.next_functions) == 1:
            node.register_hook(_unscaled)
        elif kind not in _MOVES:
            what = "an activation or a normalisation" if is_instead(node) else kind
            raise ValueError(
                f"relevance is spread evenly below the first layer, and the input passes {what} before it: give the "
                "inputs as the first layer takes them, with forward= for what follows, or take another rule, such as "
                "'epsilon_plus'"
            )


def evenly_spread(explained: Tensor, scores: Tensor) -> None:
    """Checks that all ways from the scores to what is explained end in first layers.

    Raises:
        ValueError: one does not, as where a residual connection starts at it.
    """
    leaf = get_gradient_edge(explained).node
    waiting = [get_gradient_edge(scores).node]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is leaf:
            raise ValueError(
                "relevance is spread evenly below the first layer, and the input goes past it to later ones, as by a "
                "residual connection: take another rule, such as 'epsilon_plus'"
            )
        for before, _ in () if getattr(node, "first", False) else node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                waiting.append(before)


def _unscaled(passed: Any, arriving: Any) -> Any:
    (carried,) = arriving
    return tuple(None if old is None else carried.sum_to_size(old.shape) for old in passed)
