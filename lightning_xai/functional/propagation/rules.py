"""Rules of layers with weights: how the relevance of the outputs is shared among the inputs."""

from __future__ import annotations

from collections.abc import Callable
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
    """

    apply: Apply
    weight: Tensor
    bias: Tensor | None
    dense: bool
    outputs_first: bool

    def scaled(self, scale: Tensor, shift: Tensor) -> Layer:
        """The layer followed by z x scale + shift, (channels,) each."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)

    def wide(self) -> Layer:
        """In float32 at least, since rules divide."""
        bias = None if self.bias is None else wide(self.bias)
        return replace(self, weight=wide(self.weight), bias=bias)


Rule: TypeAlias = "Callable[[Layer, Tensor, Tensor, float], Tensor]"
"""(layer, a, relevance of z, epsilon) -> what the backward pass carries to a."""


def alpha_beta(alpha: float, beta: float) -> Rule:
    """alpha times the shares of positive contributions less beta times those of negative ones (Bach et al. 2015)."""

    def rule(layer: Layer, a: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
        positive, negative = layer.weight.clamp_min(0), layer.weight.clamp_max(0)
        bias = layer.bias
        for_it = replace(layer, weight=positive, bias=None if bias is None else bias.clamp_min(0))
        against = replace(layer, weight=negative, bias=None if bias is None else bias.clamp_max(0))
        carried = _one_sided(for_it, negative, a, relevance, epsilon)
        if beta == 0:
            return carried
        return alpha * carried - beta * _one_sided(against, positive, a, relevance, epsilon)

    return rule


def flat(layer: Layer, a: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """The relevance itself, evenly over all that each output sees (Lapuschkin et al. 2019)."""
    ones = replace(layer, weight=torch.ones_like(layer.weight), bias=None)
    start = torch.ones_like(a).requires_grad_()
    with torch.enable_grad():
        z = ones.apply(start, ones.weight, None)
    return torch.autograd.grad(z, start, relevance / stable(z.detach(), epsilon))[0]


def _one_sided(layer: Layer, other: Tensor, a: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """By contributions of one sign: the layer weighs what is positive of a, the weight `other` what is negative."""
    start = a.clamp_min(0).requires_grad_()
    starts = [start]
    with torch.enable_grad():
        z = layer.apply(start, layer.weight, layer.bias)
        if bool((a < 0).any()):
            starts.append(a.clamp_max(0).requires_grad_())
            z = z + layer.apply(starts[1], other, None)
    carried = torch.autograd.grad(z, starts, relevance / stable(z.detach(), epsilon))
    return carried[0] if len(carried) == 1 else torch.where(a >= 0, carried[0], carried[1])


def stable(z: Tensor, epsilon: float) -> Tensor:
    """Away from zero by epsilon, to its own side."""
    return torch.where(z >= 0, z + epsilon, z - epsilon)
