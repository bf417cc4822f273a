"""Nodes of the graph that carry backwards what a rule says, and forwards what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_xai.foreign.torch import without_function_modes
from lightning_xai.functional.field import wide
from lightning_xai.functional.propagation.rules import Layer, Rule, stable


class _Weighted(torch.autograd.Function):
    """A layer with a rule of its own."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, compute: Callable[[], Tensor], layer: Layer, rule: Rule, epsilon: float, first: bool
    ) -> Tensor:
        z = compute()
        ctx.save_for_backward(a, z)
        ctx.layer, ctx.rule, ctx.epsilon, ctx.first = layer, rule, epsilon, first
        return z.clone()  # may be written to, and z is needed as it was

    @staticmethod
    def backward(ctx: Any, carried: Tensor) -> Any:
        a, z = ctx.saved_tensors
        with without_function_modes(), torch.autocast(a.device.type, enabled=False):
            relevance = wide(z) * wide(carried)
            return ctx.rule(ctx.layer, wide(a), relevance, ctx.epsilon).to(a.dtype), *[None] * 5


class _Damped(torch.autograd.Function):
    """The epsilon rule on top of a layer's own gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.epsilon = epsilon
        return z.clone()  # may be written to, and z is needed as it was

    @staticmethod
    def backward(ctx: Any, carried: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        with without_function_modes():
            z = wide(z)
            return (wide(carried) * (z / stable(z, ctx.epsilon))).to(carried.dtype), None


class _Instead(torch.autograd.Function):
    """What the model computes, with the gradient of something linear."""

    @staticmethod
    def forward(ctx: Any, linear: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        ctx.dtype = linear.dtype
        return compute()

    @staticmethod
    def backward(ctx: Any, carried: Tensor) -> Any:
        return carried.to(ctx.dtype), None


def weighted(
    a: Tensor, compute: Callable[[], Tensor], layer: Layer, rule: Rule, epsilon: float, first: bool = False
) -> Tensor:
    """`compute()`; what comes back is shared among the values of `a` by the rule. `first`: of a first layer."""
    output: Tensor = _Weighted.apply(a, compute, layer, rule, epsilon, first)  # type: ignore[no-untyped-call]
    return output


def damped(z: Tensor, epsilon: float) -> Tensor:
    """`z`; what comes back passes on in the ratio of z to z moved away from zero."""
    output: Tensor = _Damped.apply(z, epsilon)  # type: ignore[no-untyped-call]
    return output


def instead(linear: Tensor, compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, whose gradient is that of `linear`."""
    output: Tensor = _Instead.apply(linear, compute)  # type: ignore[no-untyped-call]
    return output


def shared(operand: Tensor, share: float) -> Tensor:
    """The operand, to which only this share of what comes back is passed on."""
    alias = operand.view_as(operand)
    alias.register_hook(lambda carried: carried * share)  # type: ignore[no-untyped-call]
    return alias


def has_rule(node: Node) -> bool:
    """Whether a node is a layer's with weights."""
    return getattr(node, "_forward_cls", None) in (_Weighted, _Damped)


def is_instead(node: Node) -> bool:
    """Whether a node is that of `instead`."""
    return getattr(node, "_forward_cls", None) is _Instead
