"""Values: the family of callbacks that measure numbers of each sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_xai.explanation.base import Explanation
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report
from lightning_xai.reporting.charts import spread_charts


@dataclass(eq=False, kw_only=True)
class Values(Explanation):
    """Numbers of each sample: their means as scalars, their spread over the run as curves. A method adds `values` and
    a title, and declares one scalar a name.
    """

    @property
    @abstractmethod
    def title(self) -> str:
        """What the pictures are called: the method's name."""

    @abstractmethod
    def values(self, run: ModelRun, probe: Probe) -> Mapping[str, Tensor]:
        """Name of a scalar -> (N,), NaN where it is not defined. Called inside the guarded pass."""

    def measure(self, run: ModelRun, probe: Probe) -> Measured:
        """The values, which every reading of the run keeps."""
        values = {name: value.float() for name, value in self.values(run, probe).items()}
        return Measured({}, {}, values)

    def report(self, probe: Probe, history: Sequence[Reading]) -> Report:
        """The mean of each over the samples, and the history of its quartiles."""
        latest = history[-1]
        names = [scalar.name for scalar in self.scalars if scalar.name in latest.measured.kept]
        numbers = {f"{self.tag}/{name}": float(latest.measured.kept[name].nanmean()) for name in names}
        alike = [reading for reading in history if set(names) <= reading.measured.kept.keys()]
        return Report(latest.epoch, numbers, {f"{self.tag}/values": spread_charts(names, alike, self.title)})
