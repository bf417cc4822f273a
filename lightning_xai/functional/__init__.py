"""The methods as functions of a torch module: torch alone, no Lightning.

>>> import torch
>>> from torch import nn
>>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
>>> grad_cam(net, torch.zeros(5, 3, 8, 8)).shape
torch.Size([5, 6, 6])
"""

from lightning_xai.functional.grad_cam import VARIANTS, grad_cam
from lightning_xai.functional.hooks import inspecting
from lightning_xai.functional.layers import find_layers, named_layers
from lightning_xai.functional.outputs import call, logits, predict, scores
from lightning_xai.functional.spatial import last_spatial_layer

__all__ = [
    "VARIANTS",
    "call",
    "find_layers",
    "grad_cam",
    "inspecting",
    "last_spatial_layer",
    "logits",
    "named_layers",
    "predict",
    "scores",
]
