"""Grad-CAM, attention maps and concept scores of a fixed probe batch, logged epoch after epoch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_xai.callbacks import TCAV as TCAV
    from lightning_xai.callbacks import AttentionMaps as AttentionMaps
    from lightning_xai.callbacks import GradCAM as GradCAM
    from lightning_xai.callbacks import Saliency as Saliency
    from lightning_xai.concept import Concept as Concept
    from lightning_xai.notebook import load_run as load_run
    from lightning_xai.probe import Probe as Probe

__version__ = "0.1.0"

_HOMES = {
    "AttentionMaps": "lightning_xai.callbacks",
    "Concept": "lightning_xai.concept",
    "GradCAM": "lightning_xai.callbacks",
    "Probe": "lightning_xai.probe",
    "Saliency": "lightning_xai.callbacks",
    "TCAV": "lightning_xai.callbacks",
    "load_run": "lightning_xai.notebook",
}

__all__ = ["TCAV", "AttentionMaps", "Concept", "GradCAM", "Probe", "Saliency", "load_run"]


def __getattr__(name: str) -> Any:
    # on demand: `import lightning_xai.functional` must not import Lightning
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
