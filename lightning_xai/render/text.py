"""Text as pixels: measured, wrapped and shortened so that it always fits its width."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightning_xai.render.colormap import Pixels

PAPER = (247, 247, 248)
INK = (32, 33, 36)
FAINT = (110, 113, 118)

_BREAKS = re.compile(r"(?<=[\s_/])|(?<=-)(?=[^\W\d])")


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    # The basic layout does not depend on how Pillow was built.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def line_height(size: int, bold: bool = False) -> int:
    """Pixels from one line to the next."""
    ascent, descent = font(size, bold).getmetrics()
    return ascent + descent + 1


def measure(line: str, size: int, bold: bool = False) -> int:
    """Width of one line in pixels, rounded up."""
    left, _, right, _ = font(size, bold).getbbox(line)
    return int(max(right, font(size, bold).getlength(line)) - min(left, 0)) + 1


def shorten(line: str, width: int, size: int, bold: bool = False) -> str:
    """The line, with its middle left out where it is wider than ``width``.

    The end stays: in ``"pred: <name> 0.87"`` the number matters as much as the name.
    """
    if measure(line, size, bold) <= width:
        return line
    for kept in range(len(line) - 1, 0, -1):
        tail = kept // 3
        short = line[: kept - tail].rstrip() + "…" + line[len(line) - tail :].lstrip()
        if measure(short, size, bold) <= width:
            return short
    return "…"


def wrap(line: str, width: int, size: int, *, rows: int = 2, bold: bool = False) -> list[str]:
    """One line as at most ``rows`` lines no wider than ``width``; what does not fit is shortened."""
    wrapped: list[str] = []
    rest = line.strip()
    while rest and len(wrapped) < rows - 1 and measure(rest, size, bold) > width:
        head = ""
        for piece in _BREAKS.split(rest):
            if measure((head + piece).rstrip(), size, bold) > width:
                break
            head += piece
        if not head:
            break
        wrapped.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    return [*wrapped, shorten(rest, width, size, bold)]


def lines(text: str, width: int, size: int, *, rows: int = 2, bold: bool = False) -> list[str]:
    """Each line of a text wrapped to at most ``rows`` lines."""
    return [part for line in text.split("\n") for part in wrap(line, width, size, rows=rows, bold=bold)]


def block(
    text: str,
    width: int,
    size: int,
    *,
    rows: int = 2,
    bold: bool = False,
    center: bool = False,
    ink: tuple[int, int, int] = INK,
    paper: tuple[int, int, int] = PAPER,
) -> Pixels:
    """A text in a box as high as it needs: (h, width, 3) uint8."""
    parts = lines(text, width, size, rows=rows, bold=bold)
    step = line_height(size, bold)
    image = Image.new("RGB", (width, step * len(parts)), paper)
    pen = ImageDraw.Draw(image)
    for row, part in enumerate(parts):
        x = (width - measure(part, size, bold)) // 2 if center else 0
        pen.text((x, row * step), part, fill=ink, font=font(size, bold))
    return from_pillow(image)


def stamp(picture: Pixels, text: str) -> Pixels:
    """A short label on a plate at the picture's lower edge: (H, W, 3) uint8, a copy."""
    height, width = picture.shape[:2]
    size = next((size for size in (12, 11, 10, 9, 8) if measure(text, size) + 8 <= width), 8)
    plate_width = min(width, measure(shorten(text, max(width - 4, 1), size), size) + 8)
    plate = block(text, plate_width, size, rows=1, center=True, ink=(255, 255, 255), paper=(60, 62, 66))
    plate = plate[:height]
    top = max(0, height - plate.shape[0] - 4)
    left = (width - plate_width) // 2
    stamped = picture.copy()
    stamped[top : top + plate.shape[0], left : left + plate_width] = plate
    return stamped


def from_pillow(image: Image.Image) -> Pixels:
    """An RGB image -> (H, W, 3) uint8."""
    return np.array(image)
