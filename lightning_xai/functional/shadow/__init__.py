"""Shadows of a model: what runs on one cannot reach training."""

from lightning_xai.functional.shadow.snapshot import Snapshot, is_shadow, over, shadow
from lightning_xai.functional.shadow.walk import UnshadowableError

__all__ = ["Snapshot", "UnshadowableError", "is_shadow", "over", "shadow"]
