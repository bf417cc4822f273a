"""What the flow knows of a callback: a protocol, so that nothing here imports one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

from lightning_xai.flow.model_run import ModelRun
from lightning_xai.flow.namespaces import LightningModule
from lightning_xai.flow.state import State
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report, Scalar
from lightning_xai.storage.run_store import RunStore


class Explainer(Protocol):
    """A callback as the flow sees it; `lightning_xai.explanation.Explanation` is one, and documents each part."""

    # settings
    probe_loader: int
    labels: str | Callable[[Any], Tensor] | None
    target: str | int | Callable[[Any], Tensor]
    forward: str | Callable[[Any, Any], Any] | None
    every_n_epochs: int
    every_n_validations: int | None
    batch_size: int
    shown: int
    on_error: Literal["warn", "raise"]
    background: bool

    checkpoint: dict[str, Any] | None
    """What a checkpoint holds of it, from the time it is loaded until training starts."""

    # what it knows of the run, and tells the user
    @property
    def state(self) -> State: ...
    def say(self, text: str) -> None: ...
    def warn(self, error: Exception, consequence: str) -> None: ...

    # in this order, when a run is opened: `lightning_xai.flow.opening`
    def restart(self) -> None: ...
    def resolve(self, model: LightningModule) -> None: ...
    def open(self, store: RunStore | None) -> None: ...

    # its samples: `lightning_xai.flow.sampling`
    def automatic_probe(self) -> tuple[int, Collection[int] | None]: ...
    @property
    def display(self) -> dict[str, Any]: ...
    def displayed(self, probe: Probe) -> Probe: ...

    # what it is going to log, and what is written of it
    @property
    def tag(self) -> str: ...
    def declared(self, probe: Probe | None) -> list[Scalar]: ...
    def tags(self, probe: Probe | None) -> list[str]: ...
    def settings(self) -> dict[str, Any]: ...

    # a reading, in this order: `lightning_xai.flow.reader`
    def prepare(self, run: ModelRun, probe: Probe) -> dict[str, Tensor]: ...
    def measure(self, run: ModelRun, probe: Probe) -> Measured: ...
    def report(self, probe: Probe, history: Sequence[Reading]) -> Report: ...
