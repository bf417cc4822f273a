"""Shadows as the flow makes them: watched, or taken away."""

import weakref
from typing import Any

import pytest
from torch import Tensor

from lightning_xai.flow import shadows


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the guard alone, on the model itself."""
    monkeypatch.setattr(shadows.Shadows, "_current_snapshot", lambda *_: None)


def watch(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """All that the shadows made from now on own."""
    own: list[weakref.ref[Tensor]] = []
    make = shadows.Snapshot.shadow

    def watched(self: Any) -> Any:
        made = make(self)
        own.extend(map(weakref.ref, (*made[0].parameters(), *made[0].buffers())))
        return made

    monkeypatch.setattr(shadows.Snapshot, "shadow", watched)
    return own
