"""One drawing function for each type of picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from lightning_xai.render.colormap import Pixels
from lightning_xai.report import Picture

if TYPE_CHECKING:
    from torch import Tensor


@singledispatch
def _by_type(picture: Picture) -> Any:
    raise TypeError(
        f"Nothing draws a {type(picture).__name__}. Add a function that returns (H, W, 3) uint8: "
        f"@lightning_xai.render.draw.register({type(picture).__name__})."
    )


class _Draw:
    """Draws a described picture: (H, W, 3) uint8, drawn once for each picture object. Not to be written to.

    A tensor, or by ``draw.pixels`` an array, which does not need torch. ``draw.register(Type)`` adds a drawing function
    that returns either, as with `functools.singledispatch`.

    Raises:
        TypeError: nothing draws this type of picture.
    """

    def __init__(self) -> None:
        self._drawn: WeakKeyDictionary[Picture, Pixels] = WeakKeyDictionary()

    def __call__(self, picture: Picture) -> Tensor:
        import torch  # who shows a run needs none

        return torch.from_numpy(self.pixels(picture))

    def pixels(self, picture: Picture) -> Pixels:
        """The same as an array."""
        drawn = self._drawn.get(picture)
        if drawn is None:
            drawn = self._drawn[picture] = np.ascontiguousarray(_by_type(picture))
        return drawn

    def register(self, kind: type) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Decorator: the function that draws this type of picture."""
        return _by_type.register(kind)


draw = _Draw()
