"""State: what one callback knows of the run that goes on, and what a checkpoint holds of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_xai.flow.capture import Capture
from lightning_xai.flow.history import CHECKPOINT_BYTES, History
from lightning_xai.flow.messages import Messages
from lightning_xai.probe import Probe
from lightning_xai.tensors import tensors


@dataclass
class State:
    """What one callback knows of the run that goes on.

    Args:
        history: its readings.
        messages: what it tells the user.
        layer_names: layer as tagged -> its real name in the model, once known.
        probe: what is explained, as it is displayed; None until it is captured.
        prepared: the same as the model takes it.
        expected: the fingerprint of what an earlier part of this run explained.
        capture: the probe to be, while batches pass by.
        batch_structure: a batch of this run, with empty tensors.
        validations: how many there have been.
        logged: the scalars of the latest reading.
        logger_errors: why loggers failed in the background, and what the user goes without; emptied by the warning.
    """

    history: History
    messages: Messages
    layer_names: dict[str, str] = field(default_factory=dict)
    probe: Probe | None = None
    prepared: Probe | None = None
    expected: str | None = None
    capture: Capture | None = None
    batch_structure: Any = None
    validations: int = 0
    logged: dict[str, float] = field(default_factory=dict)
    logger_errors: deque[tuple[Exception, str]] = field(default_factory=deque)

    def saved(self) -> dict[str, Any]:
        """For a checkpoint: tensors and primitives; nothing before there is a probe."""
        if self.probe is None and self.expected is None:
            return {}
        size = 0 if self.probe is None else sum(t.numel() * t.element_size() for t in tensors(self.probe.inputs))
        return {
            "fingerprint": self.expected if self.probe is None else self.probe.fingerprint,
            "probe": None if self.probe is None or size >= CHECKPOINT_BYTES else self.probe.state(),
            "history": self.history.state(),
            "validations": self.validations,
            "logged": dict(self.logged),
        }


@dataclass(frozen=True)
class Saved:
    """What `State.saved` has put into a checkpoint, looked through.

    Args:
        fingerprint: of the samples.
        probe: the samples themselves, where they were small enough.
        history: `History.state`: ``store``, ``run`` (None in checkpoints of earlier versions), ``moments`` and
            ``readings``.
        validations: how many there were.
        logged: the scalars of the latest reading.
    """

    fingerprint: str | None
    probe: Mapping[str, Any] | None
    history: Mapping[str, Any]
    validations: int
    logged: dict[str, float]

    @classmethod
    def of(cls, state: Any) -> Saved:
        """The parts of a state; raises anything where it is of another shape."""
        history = state["history"]
        return cls(
            fingerprint=_text(state["fingerprint"]),
            probe=None if state["probe"] is None else dict(state["probe"]),
            history={
                "store": _text(history["store"]),
                "run": _text(history.get("run")),
                "moments": [(int(epoch), int(step)) for epoch, step in history["moments"]],
                "readings": list(history["readings"]),
            },
            validations=int(state["validations"]),
            logged={str(tag): float(value) for tag, value in state["logged"].items()},
        )


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
