"""The calls of a forward, each with the rule of its kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from lightning_xai.foreign.torch import version
from lightning_xai.functional.attention.watching import within_mode
from lightning_xai.functional.hooks import graph_nodes, operation
from lightning_xai.functional.layers import torchscript_note
from lightning_xai.functional.propagation.calls import LayerCall, layer_call
from lightning_xai.functional.propagation.composites import Composite
from lightning_xai.functional.propagation.first import nodes_before, pass_as_it_is
from lightning_xai.functional.propagation.nodes import damped, weighted
from lightning_xai.functional.propagation.norms import NORMS, arguments
from lightning_xai.functional.propagation.operations import RULES
from lightning_xai.functional.propagation.rules import Layer, Rule

_INSIDE = (F.multi_head_attention_forward, torch.autograd.grad)  # the second runs checkpointed blocks again


class _Call(NamedTuple):
    """A layer that returned a tensor, and which BatchNorm may follow.

    Args:
        layer: the layer.
        a: its input.
        z: its output, before the epsilon rule damped it; None under other rules.
    """

    layer: Layer
    a: Tensor
    z: Tensor | None = None


class Propagating(TorchFunctionMode):
    """Inside, what is computed has the rules of a composite as its gradient; forward and backward are both inside.

    Args:
        composite: the rules of layers with weights.
        epsilon: what keeps denominators from zero.
    """

    def __init__(self, composite: Composite, epsilon: float) -> None:
        super().__init__()
        self.composite, self.epsilon = composite, epsilon
        self._calls: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _INSIDE:
            with self:
                return within_mode(func)(*args, **kwargs)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        if (call := layer_call(func, name, args, kwargs)) is not None:
            return self._layer(call)
        if func is F.batch_norm:
            return self._normalised(args, kwargs)
        rule = NORMS.get(func) or RULES.get(name)
        return func(*args, **kwargs) if rule is None else rule(func, args, kwargs)

    def _layer(self, call: LayerCall) -> Tensor:
        a, layer, run = call
        rule, first = self._rule(a, layer)
        if rule is not None:
            return self._noted(_Call(layer, a), weighted(a, lambda: run(a.detach()), layer, rule, self.epsilon, first))
        z = run(a)
        return self._noted(_Call(layer, a, z), damped(z, self.epsilon)) if self.composite.damped else z

    def _normalised(self, args: Any, kwargs: Any) -> Tensor:
        """BatchNorm on a layer's own output is one layer with it; elsewhere it is affine."""
        given = arguments(F.batch_norm, args, kwargs)
        x, weight, bias, eps = (given[name] for name in ("input", "weight", "bias", "eps"))
        call = self._before(x)
        if call is None or given["training"] or not _same_channels(call.layer, x):
            normalised: Tensor = F.batch_norm(*args, **kwargs)
            return normalised

        def run(z: Tensor) -> Tensor:
            return F.batch_norm(**{**given, "input": z})

        if call.z is not None:
            return damped(run(call.z), self.epsilon)
        scale = (given["running_var"] + eps).rsqrt() * (1 if weight is None else weight)
        layer = call.layer.scaled(scale, (0 if bias is None else bias) - given["running_mean"] * scale)
        rule, first = self._rule(call.a, layer)
        assert rule is not None  # the layer's own has been one
        return weighted(call.a, lambda: run(x.detach()), layer, rule, self.epsilon, first)

    def _noted(self, call: _Call, output: Tensor) -> Tensor:
        self._calls[output] = call, version(output)
        return output

    def _before(self, x: Tensor) -> _Call | None:
        """The layer that returned x, where nothing has been written to it since."""
        if x not in self._calls:
            return None
        call, written = self._calls[x]
        return call if written == version(x) else None

    def _rule(self, a: Tensor, layer: Layer) -> tuple[Rule | None, bool]:
        """The rule of a layer, and whether it is that of first layers."""
        if self.composite.first is not None and (nodes := nodes_before(a)) is not None:
            pass_as_it_is(nodes)
            return self.composite.first, True
        return (self.composite.dense if layer.dense else self.composite.convolution), False


def _same_channels(layer: Layer, x: Tensor) -> bool:
    """Whether the channels that BatchNorm sees, the second dimension, are the outputs of the weight."""
    return layer.outputs_first and x.ndim == layer.weight.ndim


def all_seen(model: nn.Module, composite: Composite, scores: Tensor) -> None:
    """Checks that no convolution was hidden from the rule of convolutions.

    Raises:
        ValueError: one was, as inside TorchScript.
    """
    hidden = [node for node in graph_nodes(scores) if operation(node) == "Convolution"]
    if composite.convolution is not None and hidden:
        raise ValueError(
            f"{len(hidden)} convolutions are not called by torch's functions, so that the rule cannot be theirs."
            f"{torchscript_note(model)} Or take rule='epsilon'."
        )
