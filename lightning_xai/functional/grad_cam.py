"""Grad-CAM and its variants: which cells of a layer speak for a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_xai.functional.cam import variants
from lightning_xai.functional.cam.perturbation import ablation_cam, score_cam
from lightning_xai.functional.hooks import tapping
from lightning_xai.functional.last_spatial_layer import last_spatial_layer
from lightning_xai.functional.layers import close_matches, find_layers
from lightning_xai.functional.passes.outputs import Targets
from lightning_xai.functional.passes.request import Request, each_gradient, explaining
from lightning_xai.tensors import Rearrange


class Variant(NamedTuple):
    """One of the CAM family.

    Args:
        title: its name in the literature.
        weigh: of activations and gradients (N, C, *cells) -> maps (N, *cells); None where there are no gradients.
        perturb: of a request, a layer's name, the layer and a batch size -> maps.
    """

    title: str
    weigh: Callable[[Tensor, Tensor], Tensor] | None = None
    perturb: Callable[[Request, str, nn.Module, int], Tensor] | None = None


VARIANTS: dict[str, Variant] = {
    "grad_cam": Variant("Grad-CAM", variants.grad_cam),
    "grad_cam_plus_plus": Variant("Grad-CAM++", variants.grad_cam_plus_plus),
    "xgrad_cam": Variant("XGrad-CAM", variants.xgrad_cam),
    "hires_cam": Variant("HiResCAM", variants.hires_cam),
    "layer_cam": Variant("LayerCAM", variants.layer_cam),
    "eigen_cam": Variant("Eigen-CAM", variants.eigen_cam),
    "eigen_grad_cam": Variant("Eigen-Grad-CAM", variants.eigen_grad_cam),
    "score_cam": Variant("Score-CAM", perturb=score_cam),
    "ablation_cam": Variant("Ablation-CAM", perturb=ablation_cam),
}
GRADIENT_VARIANTS = tuple(name for name, variant in VARIANTS.items() if variant.weigh is not None)


def grad_cam(
    model: nn.Module,
    inputs: Any,
    targets: Targets = "predicted",
    *,
    layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
    variant: str = "grad_cam",
    reshape: Rearrange | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor | dict[str, Tensor]:
    """Maps of the cells of a layer that speak for a class, after ReLU; the model is left as it was.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: a tensor (N, ...), a tuple for `model(*inputs)` or a mapping for `model(**inputs)`.
        targets: what is explained: `"predicted"`, a class, (N,) or (N, T) classes, or a callable that makes (N,)
            or (N, T) scores of the model's output. A callable sees fewer samples at a time in `score_cam` and
            `ablation_cam`.
        layer: a name, a module, or several (a list, or a pattern such as `"layer*"`); None takes
            `last_spatial_layer`.
        variant: one of `VARIANTS`.
        reshape: from the layer's output to (N, C, *cells), where its layout is not recognised.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward of `score_cam` and `ablation_cam`.

    Returns:
        float32 (N, *cells), or (N, T, *cells) for T targets: the layer's own resolution, not normalised. All zero
        where nothing speaks for the class, NaN where the model's numbers are. For several layers, by name.

    Raises:
        ValueError: an unknown variant or layer, a layer that does not run or that the scores do not depend on, a
            layout that is not recognised, targets that do not fit.
        IndexError: a class that the model does not have.
        TypeError: targets, or an output, of a kind that is not understood.

    The maps are in `variants`, each with its paper; the first is Selvaraju et al. 2017.
    """
    check_variant(variant)
    with explaining(model, inputs, targets, forward, reshape) as request:
        if layer is None:
            layer = last_spatial_layer(model, request.inputs, request.targets, forward=forward)
        layers = find_layers(model, layer)
        _, weigh, perturb = VARIANTS[variant]
        if weigh is not None:
            maps = _by_gradient(request, layers, weigh)
        else:
            assert perturb is not None
            maps = {name: perturb(request, name, module, batch_size) for name, module in layers.items()}
    one = isinstance(layer, nn.Module) or (isinstance(layer, str) and layer in layers)
    return next(iter(maps.values())) if one else maps


def check_variant(variant: str) -> None:
    """Raises ValueError for a variant that there is none of, with the close ones."""
    if variant not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ValueError(f"there is no variant {variant!r}.{close_matches(variant, VARIANTS)} Variants: {known}.")


def _by_gradient(
    request: Request, layers: dict[str, nn.Module], variant: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    with tapping(request.model, layers, request.scores) as (taps, scores):
        moves = {name: request.move(name, layers[name], tap.shape) for name, tap in taps.items()}
        maps: dict[str, list[Tensor]] = {name: [] for name in taps}
        for gradients in each_gradient(scores, list(taps.values())):
            for (name, tap), gradient in zip(taps.items(), gradients, strict=True):
                a, g = moves[name](tap.detach()), moves[name](gradient)
                if g.numel() < gradient.numel() and not g.any() and gradient.any():
                    raise ValueError(_only_prefix(request, name))
                # float32 also within an autocast region, whatever operation a variant uses
                with torch.no_grad(), torch.autocast(a.device.type, enabled=False):
                    maps[name].append(variant(a.float(), g.float()).relu())
    return {name: found[0] if scores.ndim == 1 else torch.stack(found, 1) for name, found in maps.items()}


def _only_prefix(request: Request, name: str) -> str:
    better = last_spatial_layer(request.model, request.inputs, request.targets, forward=request.run)
    return (
        f"behind layer {name!r} only the class token (or another that is no cell) is read: the gradient of all cells "
        f"is exactly zero, and the map would be blank. Take an earlier layer, such as {better!r}."
    )
