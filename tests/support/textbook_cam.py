"""The methods as the papers write them, slowly: whole graphs on a copy of the model, loops over everything."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Score = Callable[[Any], Tensor]  # output -> (N,)
Move = Callable[[Tensor], Tensor]


def class_score(targets: Tensor) -> Score:
    return lambda output: torch.stack([row[target] for row, target in zip(output, targets, strict=True)])


def activations_and_gradients(model: nn.Module, layer: str, inputs: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    """Of the last call of the layer, with the whole model differentiated."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> Tensor | None:
        tensor = output[0] if isinstance(output, tuple) else output
        tensor.retain_grad()
        kept.append(tensor)
        return tensor * 1 if tensor is output else None

    model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        score(model(inputs)).sum().backward()
    gradient = kept[-1].grad
    return kept[-1].detach(), torch.zeros_like(kept[-1]) if gradient is None else gradient


def gradient_map(variant: str, a: Tensor, g: Tensor) -> Tensor:
    """(N, C, *cells) -> (N, *cells)."""
    return torch.stack([GRADIENT[variant](a[n].double(), g[n].double()) for n in range(len(a))]).relu()


def _weighted(a: Tensor, weights: list[Tensor]) -> Tensor:
    total = torch.zeros_like(a[0])
    for channel, weight in zip(a, weights, strict=True):
        total = total + weight * channel
    return total


def _grad_cam(a: Tensor, g: Tensor) -> Tensor:
    return _weighted(a, [g[c].sum() / g[c].numel() for c in range(len(a))])


def _grad_cam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    weights = []
    for c in range(len(a)):
        weight = torch.zeros(())
        for gradient in g[c].flatten():
            below = 2 * gradient**2 + a[c].sum() * gradient**3
            weight = weight + (gradient**2 / below if below != 0 else 0) * max(gradient, torch.zeros(()))
        weights.append(weight)
    return _weighted(a, weights)


def _xgrad_cam(a: Tensor, g: Tensor) -> Tensor:
    return _weighted(a, [(g[c] * a[c]).sum() / a[c].sum() if a[c].sum() else a.new_zeros(()) for c in range(len(a))])


def _eigen(a: Tensor) -> Tensor:
    matrix = a.flatten(1).T  # (cells, channels), as in the paper
    _, _, right = torch.linalg.svd(matrix, full_matrices=False)
    projection = matrix @ right[0]
    return (projection if projection.sum() >= 0 else -projection).view(a.shape[1:])


GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "xgrad_cam": _xgrad_cam,
    "hires_cam": lambda a, g: _weighted(a * g, [torch.ones(())] * len(a)),
    "layer_cam": lambda a, g: _weighted(a * g.clamp(min=0), [torch.ones(())] * len(a)),
    "eigen_cam": lambda a, g: _eigen(a),
    "eigen_grad_cam": lambda a, g: _eigen(a * g),
}


@torch.no_grad()
def score_cam(model: nn.Module, inputs: Tensor, targets: Tensor, a: Tensor) -> Tensor:
    """`a` is the layer's activation, (N, C, *cells)."""
    model = copy.deepcopy(model).eval()
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[a.ndim - 2]
    maps = []
    for n in range(len(a)):
        found = []
        for channel in a[n]:
            mask = F.interpolate(channel[None, None], inputs.shape[2:], mode=mode, align_corners=False)
            spread = mask.max() - mask.min()
            mask = (mask - mask.min()) / spread if spread else torch.zeros_like(mask)
            found.append(model(inputs[n : n + 1] * mask)[0, targets[n]])
        maps.append(_weighted(a[n], list(torch.stack(found).softmax(0))))
    return torch.stack(maps).relu()


@torch.no_grad()
def ablation_cam(
    model: nn.Module, layer: str, inputs: Tensor, targets: Tensor, a: Tensor, ablate: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """The whole model once for each sample and channel; `ablate(output, c)` is the last call's output without c."""
    model = copy.deepcopy(model).eval()
    counted: list[int] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *_: counted.append(0))
    model(inputs[:1])
    handle.remove()
    maps = []
    for n in range(len(a)):
        plain = model(inputs[n : n + 1])[0, targets[n]]
        weights = []
        for c in range(a.shape[1]):
            calls: list[int] = []

            def hook(module: nn.Module, args: Any, output: Any, c: int = c, calls: list[int] = calls) -> Any:
                calls.append(0)
                if len(calls) < len(counted):
                    return None
                if isinstance(output, tuple):
                    return (ablate(output[0].clone(), c), *output[1:])
                return ablate(output.clone(), c)

            handle = model.get_submodule(layer).register_forward_hook(hook)
            weights.append((plain - model(inputs[n : n + 1])[0, targets[n]]) / plain.abs())
            handle.remove()
        maps.append(_weighted(a[n], weights))
    return torch.stack(maps).relu()
