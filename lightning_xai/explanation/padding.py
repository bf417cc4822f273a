"""Which positions of a sequence are padding: one notion for every callback."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_xai.probe import Probe


def real_positions(probe: Probe, model: nn.Module, ids: Tensor | None, length: int) -> Tensor | None:
    """Where sequences are no padding: by ``attention_mask``, the embedding's ``padding_idx``, or the tokens' number.

    Args:
        probe: prepared.
        model: the plain module.
        ids: (N, L) token ids of the probe, None where it has none.
        length: L, where only the number of tokens is known.

    Returns:
        (N, L) bool on the CPU; None where nothing tells.
    """
    mask = probe.inputs.get("attention_mask") if isinstance(probe.inputs, Mapping) else None
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask.detach().cpu() > 0
    if ids is not None:
        embeddings = (module for module in model.modules() if isinstance(module, nn.Embedding))
        padding = next((e.padding_idx for e in embeddings if e.padding_idx is not None), None)
        ids = ids.detach().cpu()
        return torch.ones_like(ids, dtype=torch.bool) if padding is None else ids != padding
    if probe.tokens is None:
        return None
    numbers = torch.tensor([len(tokens) for tokens in probe.tokens], dtype=torch.long, device="cpu")
    return torch.arange(length, device="cpu") < numbers[:, None]
