"""Lightning under its two names, `pytorch_lightning` and `lightning.pytorch`: different classes, one library."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

NAMESPACES: list[ModuleType] = [
    import_module(name)
    for name in ("lightning.pytorch", "pytorch_lightning")
    if find_spec(name.partition(".")[0]) is not None
]

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.utilities import rank_zero_info
else:
    # a class of both namespaces passes the type checks of both Trainers and both CLIs
    Callback = type("Callback", tuple(namespace.Callback for namespace in NAMESPACES), {})
    LightningModule, Trainer = NAMESPACES[0].LightningModule, NAMESPACES[0].Trainer
    rank_zero_info = import_module(f"{NAMESPACES[0].__name__}.utilities").rank_zero_info

__all__ = ["NAMESPACES", "Callback", "LightningModule", "Trainer", "callbacks_of", "rank_zero_info"]


def callbacks_of(trainer: Trainer) -> list[Any]:
    """The Trainer's callbacks, an attribute that Lightning declares nowhere."""
    return cast(Any, trainer).callbacks  # type: ignore[no-any-return]
