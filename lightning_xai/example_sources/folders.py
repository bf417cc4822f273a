"""Folders of images as examples."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_xai.probe import Probe

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_in(path: str | PathLike[str]) -> list[Path]:
    """The image files that lie in a folder itself, in order of their names."""
    files = Path(path).glob("*")
    return sorted(file for file in files if file.suffix.lower() in IMAGES and not file.name.startswith("."))


def load_image(file: Path, transform: Callable[[Any], Tensor]) -> Tensor:
    """The tensor that ``transform`` makes of an image file; raises ValueError where it is none."""
    # Pillow only where images are read: tensors and text need none
    from PIL import Image

    try:
        with Image.open(file) as image:
            return transform(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{file} is no image that Pillow can read: {error}") from error


def transform_of(probe: Probe) -> Callable[[Any], Tensor]:
    """Pillow image -> tensor (C, H, W), cut, scaled and normalised as the images of the probe are."""
    image = probe.image
    if image is None or probe.mean is None or probe.std is None:
        raise ValueError("like= needs a Probe of images with mean and std; give transform= instead")
    height, width, channels = *image.shape[-2:], image.shape[1]
    mean, std = (
        torch.tensor(list(values), dtype=torch.float32, device="cpu").view(-1, 1, 1)
        for values in (probe.mean, probe.std)
    )

    def transform(picture: Any) -> Tensor:
        from PIL import ImageOps

        resized = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height))
        pixels = torch.from_numpy(np.array(resized)).view(height, width, channels).permute(2, 0, 1).float() / 255
        return (pixels - mean) / std

    return transform
