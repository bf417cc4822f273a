"""The methods as functions of a torch module: torch alone, no Lightning.

>>> import torch
>>> from torch import nn
>>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
>>> grad_cam(net, torch.zeros(5, 3, 8, 8)).shape
torch.Size([5, 6, 6])
"""

from lightning_xai.functional.activations import activations, layer_gradients
from lightning_xai.functional.attention_maps import attention_maps, unused_softmaxes
from lightning_xai.functional.attention_relevance import attention_relevance
from lightning_xai.functional.attention_rollout import attention_rollout, attention_rollout_rows
from lightning_xai.functional.concepts.directions import CAVs
from lightning_xai.functional.fit_cavs import fit_cavs
from lightning_xai.functional.grad_cam import VARIANTS, grad_cam
from lightning_xai.functional.last_spatial_layer import last_spatial_layer
from lightning_xai.functional.layers import find_layers, named_layers
from lightning_xai.functional.metrics.attention import attention_distance, attention_entropy, attention_share
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.functional.passes.outputs import call, logits, predict, scores
from lightning_xai.functional.saliency import saliency
from lightning_xai.functional.tcav import TCAVScores, score_concepts, tcav

__all__ = [
    "CAVs",
    "TCAVScores",
    "VARIANTS",
    "activations",
    "attention_distance",
    "attention_entropy",
    "attention_maps",
    "attention_relevance",
    "attention_rollout",
    "attention_rollout_rows",
    "attention_share",
    "call",
    "find_layers",
    "fit_cavs",
    "grad_cam",
    "inspecting",
    "last_spatial_layer",
    "layer_gradients",
    "logits",
    "named_layers",
    "predict",
    "saliency",
    "score_concepts",
    "scores",
    "tcav",
    "unused_softmaxes",
]
