"""One drawing function for each type of picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from lightning_xai.report import Picture


@singledispatch
def _by_type(picture: Picture) -> Tensor:
    raise TypeError(
        f"Nothing draws a {type(picture).__name__}. Add a function that returns (H, W, 3) uint8: "
        f"@lightning_xai.render.draw.register({type(picture).__name__})."
    )


class _Draw:
    """Draws a described picture: (H, W, 3) uint8, drawn once for each picture object. Not to be written to.

    ``draw.register(Type)`` adds a drawing function, as with `functools.singledispatch`.

    Raises:
        TypeError: nothing draws this type of picture.
    """

    def __init__(self) -> None:
        self._drawn: WeakKeyDictionary[Picture, Tensor] = WeakKeyDictionary()

    def __call__(self, picture: Picture) -> Tensor:
        drawn = self._drawn.get(picture)
        if drawn is None:
            drawn = self._drawn[picture] = _by_type(picture)
        return drawn

    def register(self, kind: type) -> Callable[[Callable[[Any], Tensor]], Callable[[Any], Tensor]]:
        """Decorator: the function that draws this type of picture."""
        return _by_type.register(kind)


draw = _Draw()
