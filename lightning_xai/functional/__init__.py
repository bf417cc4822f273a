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
from lightning_xai.functional.bias_share import bias_share
from lightning_xai.functional.completeness_gap import completeness_gap
from lightning_xai.functional.concepts.directions import CAVs
from lightning_xai.functional.deconvolution import deconvolution
from lightning_xai.functional.expected_gradients import expected_gradients
from lightning_xai.functional.feature_importance import feature_importance
from lightning_xai.functional.fit_cavs import fit_cavs
from lightning_xai.functional.grad_cam import VARIANTS, grad_cam
from lightning_xai.functional.guided_backprop import guided_backprop
from lightning_xai.functional.input_x_gradient import input_x_gradient
from lightning_xai.functional.integrated_gradients import integrated_gradients
from lightning_xai.functional.kernel_shap import kernel_shap
from lightning_xai.functional.last_spatial_layer import last_spatial_layer
from lightning_xai.functional.layers import find_layers, named_layers
from lightning_xai.functional.lime import lime
from lightning_xai.functional.lrp import lrp
from lightning_xai.functional.metrics.attention import attention_distance, attention_entropy, attention_share
from lightning_xai.functional.occlusion import occlusion
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.functional.passes.outputs import call, logits, predict, scores
from lightning_xai.functional.saliency import saliency
from lightning_xai.functional.smooth_grad import smooth_grad
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
    "bias_share",
    "call",
    "feature_importance",
    "completeness_gap",
    "deconvolution",
    "expected_gradients",
    "find_layers",
    "fit_cavs",
    "grad_cam",
    "guided_backprop",
    "input_x_gradient",
    "inspecting",
    "kernel_shap",
    "integrated_gradients",
    "last_spatial_layer",
    "layer_gradients",
    "lime",
    "logits",
    "lrp",
    "named_layers",
    "occlusion",
    "predict",
    "saliency",
    "score_concepts",
    "scores",
    "smooth_grad",
    "tcav",
    "unused_softmaxes",
]
