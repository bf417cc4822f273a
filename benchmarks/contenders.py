"""Grad-CAM of one batch by everyone who can make it: by hand, ours, captum, torchcam, pytorch-grad-cam.

Each is a function of (model, net, images, labels); each returns its maps, or None where it has no layout for tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from nets import Net
from torch import Tensor, nn

from lightning_xai.functional import grad_cam

Contender = Callable[[nn.Module, Net, Tensor, Tensor], Any]


def plain(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> None:
    """One forward without grad: what the maps cost at least."""
    with torch.no_grad():
        model(images)


def floor(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> Tensor:
    """Grad-CAM with nothing around it: no grad up to the layer, then a backward to its output."""
    leaves = []

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        leaves.append(output.detach().requires_grad_())
        return leaves[0].clone()

    handle = model.get_submodule(net.layer).register_forward_hook(cut)
    with torch.no_grad():
        score = model(images).gather(1, labels[:, None]).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, leaves)
    activation = leaves[0].detach()
    if net.reshape is not None:
        activation, gradient = net.reshape(activation), net.reshape(gradient)
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu()


def ours(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> Any:
    return grad_cam(model, images, labels, layer=net.layer)


def ours_default_layer(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> Any:
    return grad_cam(model, images, labels)


def captum(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> Tensor | None:
    attribute = import_module("captum.attr").LayerGradCam(model, model.get_submodule(net.layer)).attribute
    maps = attribute(images, labels, relu_attributions=True)
    return maps[:, 0].detach() if net.convolutional else None


def torchcam(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> Tensor:
    method = import_module("torchcam.methods").GradCAM
    with method(model, net.layer, reshape_transform=net.reshape) as extract:
        (maps,) = extract(labels.tolist(), model(images), normalized=False)
    return maps


def pytorch_grad_cam(model: nn.Module, net: Net, images: Tensor, labels: Tensor) -> Any:
    """Returns numpy maps as large as the images, each scaled to [0, 1]."""
    package = import_module("pytorch_grad_cam")
    targets = [package.utils.model_targets.ClassifierOutputTarget(label) for label in labels.tolist()]
    with package.GradCAM(model, [model.get_submodule(net.layer)], net.reshape) as method:
        maps = method(images, targets)
    model.zero_grad()  # it leaves gradients of all parameters behind
    return maps


OWN: dict[str, Contender] = {
    "no_grad forward": plain,
    "floor": floor,
    "floor again (A/A)": floor,
    "ours": ours,
    "ours, layer not named": ours_default_layer,
}
PEERS: dict[str, Contender] = {
    "captum.attr": captum,
    "torchcam.methods": torchcam,
    "pytorch_grad_cam": pytorch_grad_cam,
}
STUBS = {
    "torchvision": (),
    "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
    "torchvision.transforms.functional": ("resize",),
}


def importable_peers() -> tuple[dict[str, Contender], dict[str, str]]:
    """The peers that import here, and for the others why not."""
    found, absent = {}, {}
    for module, contender in PEERS.items():
        name = module.partition(".")[0]
        try:
            with torchvision_stubbed():
                import_module(module)
        except ImportError as error:
            absent[name] = str(error)
        else:
            found[name] = contender
    return found, absent


@contextmanager
def torchvision_stubbed() -> Iterator[None]:
    """Where torchvision does not import, a stand-in for those who import it but do not call it for Grad-CAM."""
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError):
        for name, imported in STUBS.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(dict.fromkeys(imported))
        try:
            yield
        finally:
            for name in STUBS:
                del sys.modules[name]
    else:
        yield


def difference(name: str, maps: Any, reference: Tensor) -> float | None:
    """max|maps - reference| / max|reference|; None where there are no maps to compare."""
    if maps is None:
        return None
    if name == "pytorch_grad_cam":
        scale = import_module("pytorch_grad_cam.utils.image").scale_cam_image
        enlarged = scale(reference.cpu().numpy(), maps.shape[:0:-1])  # width, height
        reference, maps = torch.from_numpy(scale(enlarged.clip(0))), torch.from_numpy(maps)
    return float((maps - reference).abs().max() / reference.abs().max())
