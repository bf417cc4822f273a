"""The taps on layers: activations, and what they do to the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_xai.foreign.torch import version
from lightning_xai.functional.hooks.calls import trace
from lightning_xai.tensors import first_tensor, replace_first


class DisconnectedError(ValueError):
    """The scores do not depend on a tapped layer."""


@contextmanager
def tapping(
    model: nn.Module, layers: Mapping[str, nn.Module], forward: Callable[[], Tensor]
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """The outputs of `layers` during `forward()`, and the scores it returns, connected by a graph.

    Used inside `inspecting`. Below the first tapped layer there is no graph. Of a layer that is called
    several times the last call is taken, of an output with several tensors the first. Differentiate
    with `torch.autograd.grad`, inside the context: a checkpointed block runs again in the backward.

    Raises:
        ValueError: a layer did not run.
        DisconnectedError: the scores do not depend on a layer.
        TypeError: a layer's output has no floating-point tensor.
    """
    for careful in (False, True):
        with ExitStack() as stack:
            taps = _Taps(careful)
            for name, layer in layers.items():
                stack.callback(layer.register_forward_hook(partial(taps.hook, name)).remove)
            # carefully: with grad from the start, since a no_grad block ends in the mode it began with, and with
            # copies of the outputs, since one may be written to under another name
            with torch.set_grad_enabled(careful):
                scores = forward()
            taps.recording = False
            if never := [name for name in layers if name not in taps.tensors]:
                raise ValueError(_never_ran(never, [call.name for call in trace(model, forward)]))
            cut = taps.unconnected(scores)
            if not cut and (careful or not taps.overwritten()):
                with torch.enable_grad():
                    yield taps.tensors, scores
                return
    raise DisconnectedError(
        f"the scores do not depend on {' and '.join(map(repr, cut))}: its output does not reach them, or passes "
        "through detach(), numpy or reentrant checkpointing on the way. Take a layer that the scores depend on."
    )


class _Taps:
    def __init__(self, careful: bool) -> None:
        self.careful = careful
        self.recording = True
        self.tensors: dict[str, Tensor] = {}
        self.versions: dict[str, int] = {}

    def hook(self, name: str, module: nn.Module, args: Any, output: Any) -> Any:
        tensor = _floating(name, module, output)
        torch.set_grad_enabled(True)
        if self.careful:
            tensor = tensor.clone()
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        if self.recording:
            self.tensors[name], self.versions[name] = tensor, version(tensor)
        # a clone, since an in-place operation may follow
        return replace_first(output, tensor.clone())

    def unconnected(self, scores: Tensor) -> list[str]:
        nodes = graph_nodes(scores)
        return [name for name, tensor in self.tensors.items() if get_gradient_edge(tensor).node not in nodes]

    def overwritten(self) -> bool:
        """Whether something wrote into a tapped tensor through another reference to it."""
        return any(version(tensor) != self.versions[name] for name, tensor in self.tensors.items())


def record(model: nn.Module, layers: Mapping[str, nn.Module], forward: Callable[[], object]) -> dict[str, Tensor]:
    """The outputs of `layers` in one `forward()` without grad: which ones is as in `tapping`. Used inside `inspecting`.

    Raises:
        ValueError: a layer did not run.
        TypeError: a layer's output has no floating-point tensor.
    """
    found: dict[str, Tensor] = {}

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> None:
        # a clone, since an in-place operation may follow
        found[name] = _floating(name, module, output).detach().clone()

    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(hook, name)).remove)
        forward()
    if never := [name for name in layers if name not in found]:
        raise ValueError(_never_ran(never, [call.name for call in trace(model, forward)]))
    return found


def _floating(name: str, module: nn.Module, output: Any) -> Tensor:
    tensor = first_tensor(output)
    if tensor is None or not tensor.is_floating_point():
        given = type(output).__name__ if tensor is None else str(tensor.dtype)
        raise TypeError(
            f"layer {name!r} ({type(module).__name__}) returns {given}; only a floating-point tensor, "
            "or a collection that starts with one, can be explained"
        )
    return tensor


def graph_nodes(tensor: Tensor) -> set[Node]:
    """The autograd nodes that `tensor` was computed by."""
    waiting = [tensor.grad_fn] if tensor.grad_fn is not None else []
    seen: set[Node] = set(waiting)
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return seen


def operation(node: Node) -> str:
    """What an autograd node is the backward of: "Relu" of ReluBackward0."""
    return node.name().rpartition("::")[2].partition("Backward")[0]


def _never_ran(never: list[str], ran: list[str]) -> str:
    names = list(dict.fromkeys(ran))
    shown = ", ".join(names[-12:])
    return (
        f"layer {' and '.join(map(repr, never))} did not run in this forward. "
        f"Layers that did{', the last 12' if len(names) > 12 else ''}: {shown or 'none'}."
    )
