"""What is compared: attributions on the field, the least they cost, and the same by captum and zennit."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import nets
import torch
from torch import Tensor, nn

from lightning_xai import functional
from lightning_xai.functional.field import gauss_legendre, generator

Attribute = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """What is explained, and how.

    Args:
        model: in eval mode.
        images: (N, 3, size, size).
        labels: (N,).
        steps: gradients a sample of the methods that take several.
        batch: the most copies in one forward.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    steps: int
    batch: int


@dataclass(frozen=True)
class Row:
    """One method on one net.

    Args:
        ours: the library's.
        floor: the least there is to do.
        peer: somebody else's, at equal batch size; None where there is none.
        exact: whether the floor makes the same numbers.
        equal: whether the peer does.
        goal: of our time over the floor's.
        faster: of the peer's time over ours; None for none.
        peer_default: the peer as it comes, for its memory.
    """

    ours: Attribute
    floor: Attribute
    peer: Attribute | None = None
    exact: bool = True
    equal: bool = True
    goal: float = 1.05
    faster: float | None = None
    peer_default: Attribute | None = None


# ------------------------------------------------------------ the least there is to do


def gradient(s: Setting) -> Tensor:
    x = s.images.detach().requires_grad_()
    return torch.autograd.grad(s.model(x).gather(1, s.labels[:, None]).sum(), x)[0]


def gradients_of_copies(s: Setting, place: Callable[[Tensor, Tensor], Tensor], weights: Tensor) -> Tensor:
    """The classes by one forward, then a gradient for each copy of each sample."""
    with torch.no_grad():
        s.model(s.images)
    total, samples = torch.zeros_like(s.images), len(s.images)
    for copies in torch.arange(len(weights) * samples, device=s.images.device).split(s.batch):
        numbers, rows = copies // samples, copies % samples
        x = place(numbers, rows).requires_grad_()
        (found,) = torch.autograd.grad(s.model(x).gather(1, s.labels[rows, None]).sum(), x)
        total.index_add_(0, rows, found * weights[numbers].view(-1, 1, 1, 1))
    return total


def integrated(s: Setting) -> Tensor:
    places, weights = (values.to(s.images) for values in gauss_legendre(s.steps))
    return s.images * gradients_of_copies(s, lambda n, rows: places[n].view(-1, 1, 1, 1) * s.images[rows], weights)


def smoothed(s: Setting) -> Tensor:
    flat = s.images.flatten(1)
    spread = 0.15 * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)

    def place(numbers: Tensor, rows: Tensor) -> Tensor:
        pairs = zip(numbers.tolist(), rows.tolist(), strict=True)
        draws = [torch.randn(s.images.shape[1:], generator=generator(0, row, number)) for number, row in pairs]
        return s.images[rows] + spread[rows] * torch.stack(draws).to(s.images)

    return gradients_of_copies(s, place, torch.full((s.steps,), 1 / s.steps, device=s.images.device))


# ------------------------------------------------------------ the rows


def field_rows(s: Setting, vgg: Setting) -> dict[str, Row]:
    """Those of one forward and backward, those of many, and LRP, which others have for a VGG alone."""
    arguments: tuple[Any, ...] = (s.model, s.images, s.labels)
    many: dict[str, Any] = {"batch_size": s.batch}
    background = torch.zeros_like(s.images[:1])
    ig: dict[str, Any] = {"n_steps": s.steps, "method": "gausslegendre"}
    noise: dict[str, Any] = {"nt_samples": s.steps, "stdevs": float(0.15 * (s.images.max() - s.images.min()))}
    once, by_zennit = partial(gradient, s), zennit_s(s)
    return {
        "saliency": Row(partial(functional.saliency, *arguments), lambda: once().abs(), by_captum("Saliency", s)),
        "input_x_gradient": Row(
            partial(functional.input_x_gradient, *arguments), lambda: s.images * once(), by_captum("InputXGradient", s)
        ),
        # captum's see each module once, and here a ReLU is called twice
        "guided_backprop": Row(
            partial(functional.guided_backprop, vgg.model, vgg.images, vgg.labels),
            partial(gradient, vgg),
            by_captum("GuidedBackprop", vgg),
            exact=False,
        ),
        "deconvolution": Row(
            partial(functional.deconvolution, vgg.model, vgg.images, vgg.labels),
            partial(gradient, vgg),
            by_captum("Deconvolution", vgg),
            exact=False,
        ),
        "integrated_gradients": Row(
            partial(functional.integrated_gradients, *arguments, steps=s.steps, **many),
            partial(integrated, s),
            by_captum("IntegratedGradients", s, internal_batch_size=s.batch, **ig),
            peer_default=by_captum("IntegratedGradients", s, **ig),
        ),
        "smooth_grad": Row(
            partial(functional.smooth_grad, *arguments, samples=s.steps, **many),
            partial(smoothed, s),
            partial(captum_s_noise, s, nt_samples_batch_size=max(1, s.batch // len(s.images)), **noise),
            equal=False,
            peer_default=partial(captum_s_noise, s, **noise),
        ),
        "expected_gradients": Row(
            partial(functional.expected_gradients, *arguments, background=background, samples=s.steps, **many),
            partial(integrated, s),
            by_captum("GradientShap", s, baselines=background, n_samples=s.steps),
            exact=False,
            equal=False,
            peer_default=by_captum("GradientShap", s, baselines=background, n_samples=s.steps),
        ),
        "lrp epsilon_plus": Row(
            partial(functional.lrp, *arguments), once, by_zennit, exact=False, goal=1.5, faster=1.5
        ),
        "lrp epsilon": Row(partial(functional.lrp, *arguments, rule="epsilon"), once, exact=False, goal=1.5),
        "lrp epsilon, VGG": Row(
            partial(functional.lrp, vgg.model, vgg.images, vgg.labels, rule="epsilon", epsilon=1e-9),
            partial(gradient, vgg),
            by_captum("LRP", vgg),
            exact=False,
            goal=1.5,
        ),
    }


def by_captum(name: str, s: Setting, **settings: Any) -> Attribute | None:
    """None where captum is not installed."""
    try:
        method = getattr(import_module("captum.attr"), name)
    except ImportError:
        return None
    return lambda: method(s.model).attribute(s.images.clone().requires_grad_(), target=s.labels, **settings).detach()


def captum_s_noise(s: Setting, **settings: Any) -> Tensor:
    captum = import_module("captum.attr")
    tunnel = captum.NoiseTunnel(captum.Saliency(s.model))
    found: Tensor = tunnel.attribute(s.images.clone().requires_grad_(), target=s.labels, abs=False, **settings)
    return found.detach()


def zennit_s(s: Setting) -> Attribute | None:
    """EpsilonPlus of a ResNet; None where zennit is not installed."""
    stand_in = {name: ModuleType(name) for name in ("torchvision", "torchvision.models")}
    stand_in["torchvision.models.resnet"], stand_in["torchvision.models.vgg"] = nets, ModuleType("vgg")
    vars(stand_in["torchvision.models.vgg"])["VGG"] = Never
    before = {name: sys.modules.get(name) for name in stand_in}
    sys.modules.update(stand_in)  # it knows torchvision's nets by their classes, and ours run as they do
    try:
        composites, canonizers = import_module("zennit.composites"), import_module("zennit.torchvision")
    except ImportError:
        return None
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    model = copy.deepcopy(s.model)
    for part in model.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False

    def attribute() -> Tensor:
        x = s.images.clone().requires_grad_()
        with composites.EpsilonPlus(canonizers=[canonizers.ResNetCanonizer()]).context(model) as modified:
            output = modified(x)
            start = torch.zeros_like(output).scatter(1, s.labels[:, None], output.detach().gather(1, s.labels[:, None]))
            return torch.autograd.grad(output, x, start)[0]

    return attribute


class Never(nn.Module):
    """A net that is not here."""
