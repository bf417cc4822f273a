"""Texts whose tokens are coloured by their weight, over the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from lightning_xai.render import text
from lightning_xai.render.canvas import CAPTION, SMALL, below, beside, blank, framed, left
from lightning_xai.render.colormap import Floats, Pixels, flat, on_paper
from lightning_xai.render.dispatch import draw
from lightning_xai.render.overlay import strength
from lightning_xai.render.text import FAINT, INK, PAPER
from lightning_xai.report import Tokens

_WIDTH, _CAPTION, _SIZE, _PAD, _GAP = 1080, 400, 13, 4, 2
_BASE = float(PAPER[0])
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@draw.register(Tokens)
def draw_tokens(picture: Tokens) -> Pixels:
    """Each sample's caption, and below it a line of its tokens for each reading: (H, W, 3) uint8."""
    margin = max((text.measure(line, SMALL) for line in picture.lines), default=0) + 12
    width = min(_WIDTH - margin, max(_natural(tokens) for tokens in picture.tokens))
    parts = []
    for tokens, weights, caption in zip(picture.tokens, picture.weights, picture.captions, strict=True):
        heading = "   ".join(caption.split("\n"))
        lines = [text.block(heading, max(margin + width, _CAPTION), CAPTION, ink=INK, bold=True)] if heading else []
        boxes = [shown(token) for token in tokens]
        rows = strength(np.asarray(weights)[:, None], picture.scale, picture.signed)[:, 0]
        for line, row in zip(picture.lines, rows, strict=True):
            label = text.block(line, margin - 8, SMALL, rows=1, ink=FAINT)
            label = left(below([blank(4, 1), label], 0), margin)
            lines.append(beside([label, coloured(boxes, row, width, picture.signed)], 0))
        parts.append(below(lines, 6))
    body = below(parts, 22)
    return framed(picture.title, picture.scale, body, base=_BASE, paint=on_paper, signed=picture.signed)


def shown(token: str) -> str:
    """A token as it reads: without the marks for spaces of byte-level and sentence-piece vocabularies."""
    return token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "⏎").replace("\n", "⏎").strip() or "␣"


def _natural(tokens: Sequence[str]) -> int:
    """The width of all tokens in one line."""
    return sum(text.measure(shown(token), _SIZE) + 2 * _PAD + _GAP for token in tokens)


def coloured(tokens: Sequence[str], weights: Floats, width: int, signed: bool = False) -> Pixels:
    """Tokens on plates of their colours, wrapped to a width: (H, width, 3) uint8."""
    colors = on_paper(flat(_BASE, len(tokens)), weights, signed)
    dark = colors.astype(np.float32) @ _LUMA < 140
    height = text.line_height(_SIZE) + 4
    places = []
    x = y = 0
    for token in tokens:
        short = text.shorten(token, width - 2 * _PAD, _SIZE)
        wide = text.measure(short, _SIZE) + 2 * _PAD
        if x and x + wide > width:
            x, y = 0, y + height + _GAP
        places.append((short, x, y, wide))
        x += wide + _GAP
    image = Image.new("RGB", (width, y + height), PAPER)
    pen = ImageDraw.Draw(image)
    for (token, x, y, wide), color, white in zip(places, colors.tolist(), dark.tolist(), strict=True):
        pen.rounded_rectangle((x, y, x + wide - 1, y + height - 1), 3, fill=tuple(color))
        ink = (255, 255, 255) if white else INK
        pen.text((x + _PAD, y + 2), token, fill=ink, font=text.font(_SIZE))
    return text.from_pillow(image)
