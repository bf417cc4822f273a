"""Pictures as PNG."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_xai.render.colormap import Pixels


def png(picture: Pixels) -> bytes:
    """(H, W, 3) uint8 -> the bytes of a file."""
    held = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(held, "PNG", optimize=True)
    return held.getvalue()


def data_url(picture: Pixels) -> str:
    """What a page takes as the source of an image."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def save(picture: Pixels, path: Path) -> None:
    """Write one file."""
    path.write_bytes(png(picture))
