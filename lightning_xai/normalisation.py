"""How images were normalised for the model, and back to pixels for display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def per_channel(name: str, values: Any) -> list[float]:
    """The numbers of ``mean`` or ``std``; one alone is for all channels.

    Raises:
        ValueError: for anything but finite numbers.
    """
    try:
        numbers: list[float] = torch.as_tensor(values, dtype=torch.float64, device="cpu").flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}={values!r} is unknown: give finite numbers, one a channel")
    return numbers


def check_channels(name: str, values: Sequence[float], image: Tensor | None) -> None:
    """Raises ValueError where the numbers of ``mean`` or ``std`` do not fit images (N, C, H, W)."""
    count = len(per_channel(name, values))
    # a grey image may be shown in the colours that it was normalised for
    if image is not None and count not in {1, image.shape[1]} and (count, image.shape[1]) != (3, 1):
        raise ValueError(
            f"{name} has {count} values for images of {image.shape[1]} channels: give one a channel, or one for all"
        )


def pixels(image: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """Images (N, 1 or 3, H, W) -> (N, H, W, 3) uint8.

    Without ``mean`` and ``std``, values outside [0, 1] are stretched by one range for all samples.
    """
    image = image.detach().cpu()
    if image.dtype != torch.uint8:
        image = image.float()
        if mean is not None and std is not None:
            offset, scale = (image.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
            image = image * scale + offset
        elif image.min() < 0 or image.max() > 1:
            image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-12)
        image = (image.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    return image.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
