"""Rules of layers with weights: how the relevance of the outputs is shared among the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_xai.functional.field import wide

Apply: TypeAlias = "Callable[[Tensor, Tensor, Tensor | None], Tensor]"


@dataclass(frozen=True, eq=False)
class Layer:
    """z = apply(a, weight, bias), linear in a and in the weight.

    Args:
        apply: the function, its stride and the like included.
        weight: in the order of the function.
        bias: None where there is none.
        dense: whether it is a matrix product, not a convolution.
        outputs_first: whether the first dimension of the weight is that of the outputs.
        scale: (outputs,) of a normalisation that is one with it, where there is one; the bias has it already.
    """

    apply: Apply
    weight: Tensor
    bias: Tensor | None
    dense: bool
    outputs_first: bool
    scale: Tensor | None = None

    def scaled(self, scale: Tensor, shift: Tensor) -> Layer:
        """The layer followed by z x scale + shift, (outputs,) each."""
        return replace(self, bias=shift if self.bias is None else self.bias * scale + shift, scale=scale)

    def one_sided(self, sign: int) -> Tensor:
        """What of the weight is of this sign, in float32 at least, since rules divide."""
        side = torch.clamp_min if sign > 0 else torch.clamp_max
        if self.scale is None:
            return side(wide(self.weight), 0)
        scaled = wide(self.weight) * wide(self.scale).view(-1, *[1] * (self.weight.ndim - 1))
        return side(scaled, 0, out=scaled)

    def applied(self, parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
        """The sum of the outputs of several inputs, each with a weight of its own."""
        channels = -1 if self.dense else 1
        if len(parts) > 1 and self.outputs_first and self.weight.shape[1] == parts[0].shape[channels]:
            return self.apply(torch.cat(list(parts), channels), torch.cat(list(weights), 1), bias)  # faster as one
        z = self.apply(parts[0], weights[0], bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            z = z + self.apply(part, weight, None)
        return z


Rule: TypeAlias = "Callable[[Layer, Tensor, Tensor, float], Tensor]"
"""(layer, a, relevance of z, epsilon) -> what the backward pass carries to a."""


def alpha_beta(alpha: float, beta: float) -> Rule:
    """alpha times the shares of positive contributions less beta times those of negative ones (Bach et al. 2015)."""

    def rule(layer: Layer, a: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
        mixed = bool(a.amin() < 0)
        positive = _one_sided(layer, 1, mixed, a, relevance, epsilon)
        return alpha * positive - beta * _one_sided(layer, -1, mixed, a, relevance, epsilon) if beta else positive

    return rule


def flat(layer: Layer, a: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """The relevance itself, evenly over all that each output sees (Lapuschkin et al. 2019)."""
    start = torch.ones_like(a).requires_grad_()
    with torch.enable_grad():
        z = layer.apply(start, torch.ones_like(layer.weight, dtype=a.dtype), None)
    return torch.autograd.grad(z, start, relevance / stable(z.detach(), epsilon))[0]


def _one_sided(layer: Layer, sign: int, mixed: bool, a: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """By the contributions of one sign alone: weights of it times what is positive of a, and others times the rest."""
    weights = [layer.one_sided(side) for side in ((sign, -sign) if mixed else (sign,))]
    bias = None if layer.bias is None else wide(layer.bias).clamp(**{"min" if sign > 0 else "max": 0})
    start = (torch.stack([a.clamp_min(0), a.clamp_max(0)]) if mixed else a[None].detach()).requires_grad_()
    with torch.enable_grad():
        z = layer.applied(start.unbind(), weights, bias)
    with torch.no_grad():  # in the memory of z, which is large and new
        share = z.detach().add_(sign * epsilon)
        torch.div(relevance, share, out=share)
    (carried,) = torch.autograd.grad(z, start, share)
    return torch.where(a >= 0, carried[0], carried[1]) if mixed else carried[0]


def stable(z: Tensor, epsilon: float) -> Tensor:
    """Away from zero by epsilon, to its own side."""
    return torch.where(z >= 0, z + epsilon, z - epsilon)
