"""The callbacks for the Trainer, one file or package each; their base and its families are importable here too."""

from lightning_xai.callbacks.attention_maps import AttentionMaps
from lightning_xai.callbacks.grad_cam import GradCAM
from lightning_xai.callbacks.saliency import Saliency
from lightning_xai.callbacks.tcav import TCAV
from lightning_xai.explanation import Explanation, Features, Maps, Values

__all__ = ["TCAV", "AttentionMaps", "Explanation", "Features", "GradCAM", "Maps", "Saliency", "Values"]
