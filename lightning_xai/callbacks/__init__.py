"""Callbacks for the Trainer: one file a method, on the one base class; `flow` is what happens around each reading."""

from lightning_xai.callbacks.attention_maps import AttentionMaps
from lightning_xai.callbacks.base import Explanation
from lightning_xai.callbacks.grad_cam import GradCAM
from lightning_xai.callbacks.maps import Maps
from lightning_xai.callbacks.saliency import Saliency
from lightning_xai.callbacks.tcav import TCAV

__all__ = ["TCAV", "AttentionMaps", "Explanation", "GradCAM", "Maps", "Saliency"]
