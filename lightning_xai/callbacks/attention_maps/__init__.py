"""AttentionMaps, where the weights of an attention lie, and the passes that measure them."""

from lightning_xai.callbacks.attention_maps.attention_maps import AttentionMaps

__all__ = ["AttentionMaps"]
