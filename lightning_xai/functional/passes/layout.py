"""Where a layer's channels and cells are: from any activation to (N, C, *cells).

The module's type says it where it can; otherwise the geometry of the input does; otherwise the layer that
ran before with the same shape. What stays open is an error that asks for `reshape=`, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Size, Tensor, nn

from lightning_xai.foreign.torch import CHANNELS_FIRST
from lightning_xai.functional.hooks import Call

Shape = Size | tuple[int, ...]

_CHANNELS_FIRST = (*CHANNELS_FIRST, nn.GroupNorm, nn.Upsample, nn.PixelShuffle)
_CHANNELS_LAST = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.TransformerEncoderLayer)
_PREFIXES = (0, 1, 2, 4, 5)  # class, distillation and register tokens


@dataclass(frozen=True)
class Layout:
    """How to move an activation to (N, C, *cells).

    Args:
        channels_last: (N, *cells, C) instead of (N, C, *cells).
        prefix: tokens before the first cell.
        grid: rows and columns of the tokens, where they form an image.
    """

    channels_last: bool
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def __call__(self, activation: Tensor) -> Tensor:
        if self.channels_last:
            activation = activation.movedim(-1, 1)
        if self.grid is None:
            return activation
        return activation[:, :, self.prefix :].reshape(*activation.shape[:2], *self.grid)

    def cells(self, shape: Shape) -> tuple[int, ...]:
        """The cells of an activation of this shape."""
        return self.grid or tuple(shape[1:-1] if self.channels_last else shape[2:])


def recognise(
    name: str, module: nn.Module, shape: Shape, input_shape: Shape, calls: Callable[[], Sequence[Call]]
) -> Layout:
    """The layout of one layer's activation.

    Args:
        name: the layer's name, for the errors.
        module: the layer.
        shape: its output's.
        input_shape: the model's first input's.
        calls: the trace of the forward up to this layer; asked for only where nothing else decides.

    Raises:
        ValueError: there are no cells, or the layout stays open.
    """
    what = f"layer {name!r} ({type(module).__name__}) returns {tuple(shape)} for an input of {tuple(input_shape)}"
    if len(shape) < 3:
        raise ValueError(f"{what}: there are no cells to map. Take an earlier layer, or pass reshape=.")
    if shape[0] != input_shape[0] or _sequence_first(module, shape):
        raise ValueError(
            f"{what}: its first dimension is not the batch (windows, or sequence first). Take a layer outside the "
            f"windows, or pass reshape=, a function from this output to ({input_shape[0]}, channels, *cells)."
        )
    last = _by_type(module)
    layouts = _fitting((False, True) if last is None else (last,), module, shape, input_shape)
    if len(layouts) != 1 and last is None and (last := _by_trace(shape, calls())) is not None:
        layouts = _fitting((last,), module, shape, input_shape)
    if len(layouts) != 1:
        example = "t[:, 1:].mT.unflatten(2, (14, 14))" if len(shape) == 3 else "t.movedim(-1, 1)"
        raise ValueError(
            f"{what}: {'several layouts fit' if layouts else 'no layout fits'}. Pass reshape=, a function from this "
            f"output to ({shape[0]}, channels, *cells), such as reshape=lambda t: {example}."
        )
    return layouts[0]


def _by_type(module: nn.Module) -> bool | None:
    """Whether this kind of module has its channels last; None where its type does not say."""
    if isinstance(module, _CHANNELS_FIRST):
        return False
    # the exact type: subclasses of LayerNorm and Linear exist that move the channels
    if type(module) in _CHANNELS_LAST or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1):
        return True
    return None


def _by_trace(shape: Shape, calls: Sequence[Call]) -> bool | None:
    for call in reversed(calls):
        if call.shape[1:] == tuple(shape[1:]) and (last := _by_type(call.module)) is not None:
            return last
    return None


def _sequence_first(module: nn.Module, shape: Shape) -> bool:
    if getattr(getattr(module, "self_attn", module), "batch_first", True) is False:
        return True
    inside = any(getattr(m, "batch_first", True) is False for m in module.modules())
    return inside and shape[0] == shape[1]  # as long as the batch is large: nothing else tells them apart


def _fitting(candidates: Sequence[bool], module: nn.Module, shape: Shape, input_shape: Shape) -> list[Layout]:
    """The layouts that fit the input among `candidates` (channels last?); several only where they tie."""
    if tuple(candidates) == (False,) or isinstance(module, nn.RNNBase):
        return [Layout(channels_last=isinstance(module, nn.RNNBase))]
    if len(shape) == 3 and len(input_shape) == 4:
        grids = {last: token_grid(shape[1 if last else 2], image_size(input_shape)) for last in candidates}
        return [Layout(last, *found) for last, found in grids.items() if found]
    if len(shape) == 3 and len(input_shape) > 4:
        return []  # tokens of a volume or video: several grids fit
    if len(candidates) == 1:
        return [Layout(candidates[0])]
    if len(input_shape) >= 4 and len(shape) in (4, 5):
        return _closest_aspect(shape, image_size(input_shape))
    if len(shape) == 3 and len(input_shape) == 2:  # (N, L)
        return [Layout(last) for last in candidates if shape[1 if last else 2] == input_shape[1]]
    if len(shape) == 3 and len(input_shape) == 3:  # (N, C, L) or (N, L, C): a length never grows
        return [Layout(last) for last in candidates if shape[1 if last else 2] <= input_shape[1 if last else 2]]
    return []


def image_size(input_shape: Shape) -> tuple[int, int]:
    colours = (1, 3, 4)
    last = input_shape[-1] in colours and not any(size in colours for size in input_shape[1:-3] + input_shape[1:2])
    height, width = input_shape[-3:-1] if last else input_shape[-2:]
    return height, width


def _closest_aspect(shape: Shape, image: tuple[int, int]) -> list[Layout]:
    """Of (h, w) before and after the channels, the one whose strides agree best with the image's aspect."""
    deviations: dict[bool, float] = {}
    for last in (False, True):
        h, w = shape[-3:-1] if last else shape[-2:]
        if _one_stride(h, w, *image):
            deviations[last] = abs(math.log(h / w * image[1] / image[0]))
    best = min(deviations.values(), default=0.0)
    return [Layout(last) for last, deviation in deviations.items() if deviation - best < 1e-9]


def _one_stride(h: int, w: int, height: int, width: int) -> bool:
    """Whether one stride explains both sizes, up to one cell of rounding in each."""
    if not (1 <= h <= height and 1 <= w <= width):
        return False
    return height / (h + 1) < _ratio(width, w - 1) and width / (w + 1) < _ratio(height, h - 1)


def token_grid(tokens: int, image: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    """How many leading tokens to drop, and the grid of the rest: the fewest that leave square patches."""
    for prefix in _PREFIXES:
        cells = tokens - prefix
        for rows in range(1, cells + 1):
            if cells >= 4 and cells % rows == 0 and _square_patches(rows, cells // rows, *image):
                return prefix, (rows, cells // rows)
    return None


def _square_patches(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether a square patch exists that cuts the image so, rounded down or (padded) up."""
    if rows > height or columns > width:
        return False
    down = max(height / (rows + 1), width / (columns + 1)) < min(height / rows, width / columns)
    up = max(height / rows, width / columns) < min(_ratio(height, rows - 1), _ratio(width, columns - 1))
    return down or up


def _ratio(size: int, cells: int) -> float:
    return size / cells if cells else math.inf
