"""Maps along one axis, with the signals over them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_xai.render import text
from lightning_xai.render.canvas import CAPTION, below, framed
from lightning_xai.render.colormap import Floats, Pixels, blend, flat
from lightning_xai.render.dispatch import draw
from lightning_xai.render.figures import colour, pixels
from lightning_xai.render.overlay import notes, strength
from lightning_xai.render.text import FAINT, PAPER
from lightning_xai.report import Traces

_WIDTH, _DPI, _BASE = 720, 100, 238.0
_LINES = ("#1a1a1a", "#0b5fa5", "#00776b", "#7a4fb0", "#5c5c5c")


@draw.register(Traces)
def draw_traces(picture: Traces) -> Pixels:
    """One panel a sample, its caption above it: (H, W, 3) uint8."""
    values = strength(picture.maps, picture.scale, picture.signed)
    panels = []
    for row, (caption, note) in enumerate(zip(picture.captions, notes(picture.maps, picture.signed), strict=True)):
        signal = None if picture.signals is None else np.asarray(picture.signals[row], np.float32)
        panel = _panel(signal, values[row], picture.signed)
        heading = "   ".join([*caption.split("\n"), *([f"({note})"] if note else [])])
        panels += [text.block(heading, _WIDTH, CAPTION), panel]
    return framed(picture.title, picture.scale, below(panels, 4), base=_BASE, signed=picture.signed)


def _panel(signal: Floats | None, values: Floats, signed: bool) -> Pixels:
    length = len(values) if signal is None else signal.shape[-1]
    # As many columns as the panel has pixels: the colours blend as they do over images.
    centres = (np.arange(_WIDTH) + 0.5) * len(values) / _WIDTH - 0.5
    shades = np.interp(centres, np.arange(len(values)), values).astype(np.float32)[None]
    colors = blend(flat(_BASE, 1, _WIDTH), shades, signed)

    inches, foot, body = (0.9, 0.3, 0.6) if signal is None else (1.5, 0.2, 0.75)
    figure = Figure(figsize=(_WIDTH / _DPI, inches), dpi=_DPI, facecolor=colour(PAPER))
    axes = figure.add_axes((0.07, foot, 0.92, body))
    axes.set_xlim(-0.5, length - 0.5)
    if signal is None:
        axes.set_yticks([])
    else:
        for channel, line in enumerate(signal):
            axes.plot(line, color=_LINES[channel % len(_LINES)], linewidth=1.1)
    bottom, top = axes.get_ylim()
    axes.imshow(colors, extent=(-0.5, length - 0.5, bottom, top), aspect="auto", zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8, colors=colour(FAINT), length=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return pixels(figure)
