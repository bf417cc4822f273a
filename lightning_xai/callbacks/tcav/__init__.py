"""TCAV, and the examples that it compares."""

from lightning_xai.callbacks.tcav.tcav import TCAV

__all__ = ["TCAV"]
