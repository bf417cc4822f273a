"""What the explanations of one Trainer share: its store, its loggers, its worker, and the shadows of its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from lightning_xai.flow.background import Worker
from lightning_xai.flow.namespaces import Trainer
from lightning_xai.flow.shadows import Shadows
from lightning_xai.storage.run_store import RunStore


@dataclass
class Session:
    """Of one Trainer; not an attribute of a callback, which must stay picklable for strategies that spawn.

    Args:
        shadows: makes what readings run on.
        store: where readings are kept; None keeps them in memory alone.
        owned: whether the store is this Trainer's own, not one that another run wrote and this one stands beside;
            None until there was a look for it.
        sinks: where reports go, on the main process: loggers, and `Files` in the stead of those that take none.
    """

    shadows: Shadows = field(default_factory=Shadows)
    store: RunStore | None = None
    owned: bool | None = None
    sinks: list[Any] = field(default_factory=list)
    _worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The one thread that draws and logs, started when it is first asked for."""
        if self._worker is None:
            self._worker = Worker()
        return self._worker

    def finish(self) -> None:
        """Wait for what the worker has left to do, and end it; let the model's snapshot go."""
        self.shadows.drop()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()


_SESSIONS: WeakKeyDictionary[Trainer, Session] = WeakKeyDictionary()


def session_of(trainer: Trainer) -> Session:
    """The one session of this Trainer."""
    return _SESSIONS.setdefault(trainer, Session())
