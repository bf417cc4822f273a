"""The one place that touches module hooks: the taps on layers, the trace of a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from lightning_xai.functional.layers import named_layers, takes_hooks
from lightning_xai.functional.nested import first_tensor, map_tensors, replace_first

# ------------------------------------------------------------ taps: activations and what they do to the scores


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
            self.tensors[name], self.versions[name] = tensor, tensor._version
        # a clone, since an in-place operation may follow
        return replace_first(output, tensor.clone())

    def unconnected(self, scores: Tensor) -> list[str]:
        nodes = graph_nodes(scores)
        return [name for name, tensor in self.tensors.items() if get_gradient_edge(tensor).node not in nodes]

    def overwritten(self) -> bool:
        """Whether something wrote into a tapped tensor through another reference to it."""
        return any(tensor._version != self.versions[name] for name, tensor in self.tensors.items())


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


def _never_ran(never: list[str], ran: list[str]) -> str:
    names = list(dict.fromkeys(ran))
    shown = ", ".join(names[-12:])
    return (
        f"layer {' and '.join(map(repr, never))} did not run in this forward. "
        f"Layers that did{', the last 12' if len(names) > 12 else ''}: {shown or 'none'}."
    )


# ------------------------------------------------------------ the trace of a forward


class Call(NamedTuple):
    """One call of a layer that returned a floating-point tensor (or a collection that starts with one)."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def trace(model: nn.Module, forward: Callable[[], object]) -> list[Call]:
    """The calls of all layers of `model` in one `forward()` without grad, in the order they returned.

    Modules of TorchScript take no hooks, and are passed over.
    """
    calls: list[Call] = []

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.is_floating_point():
            calls.append(Call(name, module, tuple(tensor.shape)))

    with ExitStack() as stack, torch.no_grad():
        for name, module in named_layers(model).items():
            if takes_hooks(module):
                stack.callback(module.register_forward_hook(partial(hook, name)).remove)
        forward()
    return calls


# ------------------------------------------------------------ running again what is behind a layer


class Tail(NamedTuple):
    """One sample's last call of a layer, and the outputs of what had finished before it."""

    layer: nn.Module
    calls: int
    output: Any
    before: list[tuple[nn.Module, Any]]


def record_tail(model: nn.Module, layer: nn.Module, forward: Callable[[], object]) -> Tail:
    """Run `forward()` on one sample without grad and keep what `continuing` needs, the whole calls only."""
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
        output = map_tensors(torch.clone, output)  # the original may be written to
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
def continuing(tail: Tail, activation: Tensor, *, skip: bool) -> Iterator[None]:
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
            waiting = iter([map_tensors(expand, output) for output in outputs])
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


# ------------------------------------------------------------ which module is running


@contextmanager
def following(model: nn.Module, returned: Callable[..., None] | None = None) -> Iterator[list[str]]:
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
