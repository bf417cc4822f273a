"""PNG files as pixels."""

import io

import torch
from PIL import Image
from torch import Tensor


def pixels(png: bytes) -> Tensor:
    """(H, W, 3) uint8."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
