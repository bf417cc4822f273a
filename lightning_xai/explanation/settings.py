"""The settings that every explanation has: plain, typed values, checked when they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_xai.flow.import_paths import imported, plain
from lightning_xai.normalisation import per_channel
from lightning_xai.probe import Probe


@dataclass(eq=False, kw_only=True)
class Settings:
    """What a user says of an explanation.

    Args:
        probe: the samples to explain, or the path of a saved `Probe`. None takes samples of the first validation
            epoch, else of the first training epoch, balanced over the classes.
        probe_loader: index of the validation DataLoader that it is taken from.
        class_names: the name of each class index; by default the dataset's ``classes``, where it has them.
        mean: per channel, undoes the normalisation of images for display, with ``std``.
        std: per channel.
        probe_size: samples of the automatic probe.
        labels: extracts the class indices (N,) of a batch; by default its second item, or its key ``labels``,
            ``label``, ``targets``, ``target`` or ``y``.
        target: what to explain: the sample's ``"label"``, the class ``"predicted"``, one class index, or a
            function of the model's output that returns a score a sample (N,).
        forward: how the probe's inputs become an output: a method's name or a function of (model, inputs). By
            default the module is called with a tensor, the items of a tuple, or the entries of a mapping.
        every_n_epochs: read in the first epoch, then whenever (epoch + 1) is divisible by it, and in the last.
        every_n_validations: read at every n-th validation instead; for runs whose epoch never ends.
        batch_size: the most samples in one forward.
        shown: samples that are drawn, the first of the probe; numbers are of all.
        on_error: ``"warn"`` says once what failed and lets training go on, ``"raise"`` stops it.
        background: draw and log pictures in a thread behind training; scalars are always logged at once.
        name: starts every tag, after ``xai/``; by default the method's.
    """

    probe: Probe | str | None = None
    probe_size: int = 8
    probe_loader: int = 0
    class_names: list[str] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    labels: str | Callable[[Any], Tensor] | None = None
    target: str | int | Callable[[Any], Tensor] = "label"
    forward: str | Callable[[Any, Any], Any] | None = None
    every_n_epochs: int = 1
    every_n_validations: int | None = None
    batch_size: int = 32
    shown: int = 8
    on_error: Literal["warn", "raise"] = "warn"
    background: bool = True
    name: str | None = None

    identifying: ClassVar[tuple[str, ...]] = ()
    """The settings that tell this explanation from another of the same name; never the schedule."""

    importable: ClassVar[tuple[str, ...]] = ("target", "labels", "forward")
    """The settings that may be a function, or name one by its import path."""

    def __post_init__(self) -> None:
        self.at_least_one("probe_size", "batch_size", "shown", "every_n_epochs", "every_n_validations")
        if self.on_error not in ("warn", "raise"):
            raise ValueError(f"on_error={self.on_error!r} is unknown: give 'warn' or 'raise'")
        if isinstance(self.target, str) and self.target not in ("label", "predicted"):
            self.target = imported("target", self.target, "'label', 'predicted', a class index or a function")
        if isinstance(self.labels, str):
            self.labels = imported("labels", self.labels, "a function of the batch")
        _check_display(self)

    def at_least_one(self, *settings: str) -> None:
        """Raises ValueError for a setting below 1; None is no number."""
        for setting in settings:
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ValueError(f"{setting}={value} is out of range: give 1 or more")

    @property
    def display(self) -> dict[str, Any]:
        """The settings that say how samples are shown."""
        settings: dict[str, Any] = {"class_names": self.class_names, "mean": self.mean, "std": self.std}
        return {name: value for name, value in settings.items() if value is not None}

    def load_probe(self) -> Probe:
        """The Probe of the setting, which must not be None, with what the others say about its display.

        Raises:
            ValueError: where they do not fit it.
        """
        assert self.probe is not None
        return replace(Probe.load(self.probe) if isinstance(self.probe, str) else self.probe, **self.display)

    def settings(self) -> dict[str, Any]:
        """The plain settings as JSON values; a function as ``module:qualname``, a Probe as its fingerprint."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.init}


def _check_display(settings: Settings) -> None:
    """Make ``class_names``, ``mean`` and ``std`` lists, whatever form they were given in."""
    names = settings.class_names
    if names is not None:
        if isinstance(names, (str, Mapping)) or not isinstance(names, Iterable):
            raise ValueError(f"class_names={names!r} is no list: give one name for each class index")
        settings.class_names = [str(name) for name in names]
    mean, std = settings.mean, settings.std
    # a given probe may have the other one
    if settings.probe is None and (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both or none")
    mean, std = (None if v is None else per_channel(n, v) for n, v in (("mean", mean), ("std", std)))
    if mean and std and len({1, len(mean), len(std)}) > 2:
        raise ValueError(f"mean has {len(mean)} values and std {len(std)}: give one a channel, or one for all")
    settings.mean, settings.std = mean, std
