"""LRP as its papers write it: the matrix of every layer, and the share of every input in every output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Chosen = tuple[str, str, str]
"""The rules of convolutions, of dense layers, and of the first layer."""

RULES: dict[str, Chosen] = {
    "epsilon_plus": ("alpha1_beta0", "epsilon", ""),
    "epsilon": ("epsilon", "epsilon", ""),
    "zero": ("zero", "zero", ""),
    "alpha1_beta0": ("alpha1_beta0", "alpha1_beta0", ""),
    "alpha2_beta1": ("alpha2_beta1", "alpha2_beta1", ""),
    "epsilon_plus_flat": ("alpha1_beta0", "epsilon", "flat"),
}


def relevance(net: nn.Module, x: Tensor, targets: Tensor, rule: str, epsilon: float) -> Tensor:
    """Of one class of each sample. `net.parts()` are layers, and lists of such that a shortcut goes around."""
    return torch.stack(
        [_Passage(RULES[rule], epsilon).run(net, sample.double(), int(t)) for sample, t in zip(x, targets, strict=True)]
    ).float()


class _Passage:
    def __init__(self, rules: Chosen, epsilon: float) -> None:
        self.rules, self.epsilon, self.layers = rules, epsilon, 0

    def run(self, net: nn.Module, x: Tensor, target: int) -> Tensor:
        output, back = self.forward(net.parts(), x)
        start = torch.zeros_like(output)
        start[target] = output[target]
        return back(start)

    def forward(self, parts, x):
        """The output, and a function from its relevance to that of x."""
        steps = []
        for part in _merged(parts):
            x, step_back = self.part(part, x)
            steps.append(step_back)

        def back(r: Tensor) -> Tensor:
            for step in reversed(steps):
                r = step(r)
            return r

        return x, back

    def part(self, part, x):
        if isinstance(part, list):
            return self.residual(part, x)
        if isinstance(part, (nn.ReLU, nn.Tanh)):
            return part(x), lambda r: r
        if isinstance(part, nn.MaxPool2d):
            output, index = nn.functional.max_pool2d(x[None], part.kernel_size, part.stride, return_indices=True)
            return output[
                0
            ], lambda r: torch.zeros_like(x).flatten(1).scatter_add(1, index[0].flatten(1), r.flatten(1)).view_as(x)
        if isinstance(part, nn.Flatten):
            return x.flatten(), lambda r: r.view_as(x)
        pooled = isinstance(part, nn.AdaptiveAvgPool2d)
        rule = "zero" if pooled else self.rules[isinstance(part, nn.Linear)]
        if not pooled and self.layers == 0 and self.rules[2]:
            rule = self.rules[2]
        self.layers += not pooled
        return self.linear(part, x, rule)

    def residual(self, part, x):
        """(branch, shortcut): what each adds to a sum is its share."""
        (a, back_a), (b, back_b) = (self.forward(branch, x) for branch in part)
        total = a + b
        # where nothing arrives nothing is shared
        share = torch.where(total == 0, 0.5, a / torch.where(total == 0, 1, total))
        return total, lambda r: back_a(r * share) + back_b(r * (1 - share))

    def linear(self, layer, x, rule):
        matrix, bias = _matrix(layer, x)
        flat = x.flatten()
        z = matrix @ flat + bias
        shape = layer(x[None])[0].shape

        def back(r: Tensor) -> Tensor:
            return _shares(matrix, bias, flat, rule, self.epsilon).T.mv(r.flatten()).view_as(x)

        return z.view(shape), back


def _shares(matrix: Tensor, bias: Tensor, a: Tensor, rule: str, epsilon: float) -> Tensor:
    """(outputs, inputs): which share of the relevance of each output goes to each input."""
    z = matrix * a
    away = lambda t: t + torch.where(t >= 0, epsilon, -epsilon).double()  # noqa: E731
    if rule == "flat":
        seen = (matrix != 0).double()
        return seen / away(seen.sum(1))[:, None]
    if rule == "zero":
        total = z.sum(1) + bias
        return z / torch.where(total == 0, 1, total)[:, None]
    if rule == "epsilon":
        return z / away(z.sum(1) + bias)[:, None]
    positive = z.clamp(min=0) / away(z.clamp(min=0).sum(1) + bias.clamp(min=0))[:, None]
    negative = z.clamp(max=0) / away(z.clamp(max=0).sum(1) + bias.clamp(max=0))[:, None]
    return positive if rule == "alpha1_beta0" else 2 * positive - negative


def _matrix(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(outputs, inputs) and (outputs,): what the layer does to each basis vector."""
    with torch.no_grad():
        bias = layer(torch.zeros_like(x)[None]).flatten()
        basis = torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape)
        return (layer(basis).flatten(1) - bias).T, bias


def _merged(parts):
    """Layers with the BatchNorm behind them as one, weight for weight."""
    merged = []
    for part in parts:
        if isinstance(part, nn.BatchNorm2d) and isinstance(merged[-1], nn.Conv2d):
            conv, scale = merged[-1], part.weight / (part.running_var + part.eps).sqrt()
            bias = 0 if conv.bias is None else conv.bias
            one = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding).double()
            one.weight.data = conv.weight.data.double() * scale.data.view(-1, 1, 1, 1)
            one.bias.data = (bias - part.running_mean) * scale.data + part.bias.data
            merged[-1] = one
        else:
            merged.append(part)
    return merged
