"""Explanation: the one base class of the callbacks. It decides when, guards the pass, keeps and logs.

A method is two functions on top of it: `measure` runs the model, `report` says what was measured.
"""

from __future__ import annotations

import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from inspect import isabstract
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from lightning_xai.attempt import attempt
from lightning_xai.flow import opening, reader, schedule
from lightning_xai.flow.capture import Capture, Taking, of_classes
from lightning_xai.flow.display import describe, fitting
from lightning_xai.flow.history import History
from lightning_xai.flow.loaders import dataset_of
from lightning_xai.flow.model_run import Run
from lightning_xai.flow.namespaces import Callback, LightningModule, Trainer, callbacks_of, rank_zero_info
from lightning_xai.flow.session import session_of
from lightning_xai.flow.settings import imported, plain
from lightning_xai.flow.state import State
from lightning_xai.functional.layers.names import find_layers
from lightning_xai.probe import Probe, is_dense, per_channel
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report, Scalar
from lightning_xai.store import RunStore
from lightning_xai.tensors import map_tensors, tensors

log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class Explanation(Callback, ABC):
    """Explains the same samples again and again while a model trains, and logs what it finds.

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

    layer_names: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Layer as tagged -> its real name in the model, once known."""

    def __post_init__(self) -> None:
        self.at_least_one("probe_size", "batch_size", "shown", "every_n_epochs", "every_n_validations")
        if self.on_error not in ("warn", "raise"):
            raise ValueError(f"on_error={self.on_error!r} is unknown: give 'warn' or 'raise'")
        if isinstance(self.target, str) and self.target not in ("label", "predicted"):
            self.target = imported("target", self.target, "'label', 'predicted', a class index or a function")
        if isinstance(self.labels, str):
            self.labels = imported("labels", self.labels, "a function of the batch")
        self._check_display()
        if "/" in self.tag.removeprefix("xai/"):
            raise ValueError(f"name={self.name!r} holds a slash, which would split the tags: leave it out")
        self._loaded: dict[str, Any] | None = None
        self._said: set[str] = set()
        self.state = State(History(self.tag.removeprefix("xai/"), None, self.shown))

    def _check_display(self) -> None:
        if self.class_names is not None:
            if isinstance(self.class_names, (str, Mapping)) or not isinstance(self.class_names, Iterable):
                raise ValueError(f"class_names={self.class_names!r} is no list: give one name for each class index")
            self.class_names = [str(name) for name in self.class_names]
        self.mean, self.std = (
            None if values is None else per_channel(name, values)
            for name, values in (("mean", self.mean), ("std", self.std))
        )
        # a given probe may have the other one
        if self.probe is None and (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both or none")
        if self.mean and self.std and len({1, len(self.mean), len(self.std)}) > 2:
            raise ValueError(
                f"mean has {len(self.mean)} values and std {len(self.std)}: give one a channel, or one for all"
            )

    # -- what a method adds -------------------------------------------------------------------------------------

    identifying: ClassVar[tuple[str, ...]] = ()
    """The settings that tell this explanation from another of the same name; never the schedule."""

    importable: ClassVar[tuple[str, ...]] = ("target", "labels", "forward")
    """The settings that may be a function, or name one by its import path."""

    scalars: ClassVar[tuple[Scalar, ...]] = ()
    """What it logs, by name below its tag; a word in braces stands for each of `things`."""

    @abstractmethod
    def measure(self, run: Run, probe: Probe) -> Measured:
        """Run the model, through ``run`` alone, on some samples of the prepared probe. Called inside the guarded pass.

        Every draw is seeded by ``probe.positions``, so that a probe in parts gives what it gives whole.
        """

    @abstractmethod
    def report(self, probe: Probe, history: Sequence[Reading]) -> Report:
        """Say what was measured, from the arguments and the settings alone.

        ``history`` holds the readings so far, the last of them is this one. All have ``kept``, at most 16 have
        ``rows``: the latest and the one before of all samples, the others of the shown ones.
        """

    def prepare(self, run: Run, probe: Probe) -> dict[str, Tensor]:
        """What is computed once a reading, on the whole probe: it becomes ``run.shared`` and ``Measured.shared``."""
        return {}

    @property
    def method(self) -> str:
        """The default of ``name``: the class in words, for a class that is derived from it as well."""
        kinds = (kind for kind in reversed(type(self).__mro__) if issubclass(kind, Explanation))
        name = next(kind.__name__ for kind in kinds if not isabstract(kind))
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

    def wanted(self) -> tuple[int, Collection[int] | None]:
        """How many samples the automatic probe has, and of which classes; None for all."""
        return self.probe_size, None

    def resolve(self, model: LightningModule) -> None:
        """Check what the settings name against the model, before training starts; raises ValueError."""
        layers = getattr(self, "layers", None)
        self.layer_names = {} if layers is None else {name: name for name in find_layers(model, layers)}

    def things(self, probe: Probe | None) -> dict[str, Sequence[str]]:
        """What the words in braces stand for in the names of scalars, as far as it is known."""
        return {"layer": list(self.layer_names), "mask": list((probe.masks if probe is not None else None) or {})}

    # -- what follows from it -----------------------------------------------------------------------------------

    def declared(self, probe: Probe | None) -> list[Scalar]:
        """The scalars that this callback is going to log, by whole tags; of a captured probe nothing is known yet.

        None at all means that they are not known before the first reading.
        """
        things = self.things(probe)
        return [each.under(self.tag) for scalar in self.scalars for each in scalar.each(things)]

    def tags(self, probe: Probe | None) -> list[str]:
        """The tags of these scalars."""
        return [scalar.name for scalar in self.declared(probe)]

    def at_least_one(self, *settings: str) -> None:
        """Raises ValueError for a setting below 1; None is no number."""
        for setting in settings:
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ValueError(f"{setting}={value} is out of range: give 1 or more")

    # -- tags and state -----------------------------------------------------------------------------------------

    @property
    def tag(self) -> str:
        """What every tag of this callback starts with."""
        return f"xai/{self.name or self.method}"

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name or self.method, target=plain(self.target), **self._identity())

    def _identity(self) -> dict[str, Any]:
        return {name: plain(getattr(self, name)) for name in self.identifying}

    def settings(self) -> dict[str, Any]:
        """The plain settings as JSON values; a function as ``module:qualname``, a Probe as its fingerprint."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.init}

    def state_dict(self) -> dict[str, Any]:
        # a checkpoint is written whatever has become of our files
        saved, error = attempt(self.state.saved)
        if error is not None:
            self.warn(error, "the checkpoint holds nothing of it")
        opening.tell_lost(self)
        return saved or {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # sharded strategies load after on_fit_start, all others before it: taken up in on_train_start
        self._loaded = state_dict

    @property
    def explained(self) -> Probe | None:
        """The samples that are explained; None until they are captured."""
        return self.state.probe

    def given(self) -> Probe:
        """The Probe of the setting, which must not be None, with what the others say about its display.

        Raises:
            ValueError: where they do not fit it.
        """
        assert self.probe is not None
        return replace(Probe.load(self.probe) if isinstance(self.probe, str) else self.probe, **self._display)

    def open(self, store: RunStore | None, *, anew: bool = False) -> None:
        """Begin a run, or go on with it where it is the same store again, unless told to begin ``anew``."""
        if anew or store is not self.state.history.store:
            self.state = State(History(self.tag.removeprefix("xai/"), store, self.shown))
        if self.probe is not None:
            _, classes = self.wanted()
            self.state.probe = self.displayed(of_classes(self.given(), classes))

    def _open(self, trainer: Trainer, pl_module: LightningModule) -> None:
        everyone = [callback for callback in callbacks_of(trainer) if isinstance(callback, Explanation)]
        if everyone[0] is self:
            opening.open_all(everyone, trainer, pl_module)

    # -- Lightning's hooks --------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded is not None:
            state, self._loaded = self._loaded, None
            opening.resume(self, trainer, state)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._open(trainer, pl_module)

    on_test_start = on_validation_start

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._see(trainer, batch, keep=not schedule.validates(trainer))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._see(trainer, batch, keep=not trainer.sanity_checking and dataloader_idx == self.probe_loader)

    on_test_batch_start = on_validation_batch_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._settle(trainer)
        fitting = trainer.state.fn == "fit"
        self.state.validations += fitting
        if not fitting or self._due_after_validation(trainer):
            reader.read(self, trainer, pl_module, trainer.fit_loop.epoch_loop._batches_that_stepped)
        self._end_moment(trainer)

    on_test_epoch_end = on_validation_epoch_end

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not schedule.validates(trainer):
            self._settle(trainer)
        if self._due_after_epoch(trainer):
            # Lightning logs the scalars of this hook one step earlier than it counts here
            reader.read(self, trainer, pl_module, trainer.fit_loop.epoch_loop._batches_that_stepped - 1)
        self._end_moment(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._finish(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._finish(trainer)

    def _end_moment(self, trainer: Trainer) -> None:
        """Let the snapshot of the model go that the explanations of this Trainer share, once the last has read."""
        if [callback for callback in callbacks_of(trainer) if isinstance(callback, Explanation)][-1] is self:
            session_of(trainer).shadows.drop()

    def _finish(self, trainer: Trainer) -> None:
        session_of(trainer).finish()
        reader.tell_unlogged(self)

    # -- when ---------------------------------------------------------------------------------------------------

    def _due_after_validation(self, trainer: Trainer) -> bool:
        if self.monitors(trainer):
            return True
        ends = schedule.ends_epoch(trainer)
        if self.every_n_validations is not None:
            last = ends and schedule.is_last(trainer)
            return not self.state.history.moments or self.state.validations % self.every_n_validations == 0 or last
        return ends and self._epoch_due(trainer)

    def _due_after_epoch(self, trainer: Trainer) -> bool:
        monitors = self.monitors(trainer)
        if schedule.validates(trainer):
            unread = self.state.history.last_epoch != trainer.current_epoch
            return self.state.probe is not None and unread and any(monitor.every_epoch for monitor in monitors)
        return bool(monitors) or self._epoch_due(trainer)

    def _epoch_due(self, trainer: Trainer) -> bool:
        last_read, last = self.state.history.last_epoch, schedule.is_last(trainer)
        return schedule.epoch_due(trainer.current_epoch, last_read, self.every_n_epochs, last)

    def monitors(self, trainer: Trainer) -> list[schedule.Monitor]:
        """What acts on the scalars of this callback."""
        mine = set(self.tags(self.state.probe))
        # before the first reading a method may not know its scalars: then all that start with its tag are its own
        found = [
            monitor
            for monitor in schedule.monitors(trainer)
            if (monitor.metric in mine if mine else monitor.metric.startswith(f"{self.tag}/"))
        ]
        if found and (self.every_n_epochs > 1 or self.every_n_validations is not None):
            self.say(
                f"{found[0].by} monitors {found[0].metric!r}, so {type(self).__name__} reads whenever it looks, "
                "not on its own sparser schedule: a stale value would count against its patience"
            )
        return found

    # -- what is explained --------------------------------------------------------------------------------------

    def _see(self, trainer: Trainer, batch: Any, keep: bool) -> None:
        if self.state.like is None:
            self.state.like, _ = attempt(partial(map_tensors, batch, _emptied))
        if self.state.probe is None and keep:
            self.take(self._capture(trainer), batch, "no probe could be taken from the batches")

    def take(self, capture: Taking, batch: Any, failure: str) -> None:
        """Show it the batch; of what fails only the first is told, since each batch may fail in words of its own."""
        _, error = attempt(partial(capture.add, batch))
        if error is None or failure in self._said:
            return
        if self.on_error == "raise":
            raise error
        self._said.add(failure)
        self.warn(error, failure)

    def _capture(self, trainer: Trainer) -> Capture:
        if self.state.capture is None:
            labels = cast("Callable[[Any], Tensor] | None", self.labels)
            ranks = trainer.global_rank, trainer.world_size
            self.state.capture = Capture(*self.wanted(), labels, *ranks)
        return self.state.capture

    def _settle(self, trainer: Trainer) -> None:
        """End the capture: the same probe on every rank, also on one that saw no batch."""
        if self.state.probe is not None:
            return
        # what fails to join fails on every rank alike: each holds the same samples by then
        probe, error = attempt(partial(self._capture(trainer).merge, trainer))
        self.state.capture = None
        if error is not None:
            if self.on_error == "raise":
                raise error
            self.warn(error, "no probe could be made of the batches")
        if probe is None:
            return
        size, _ = self.wanted()
        if len(probe) < size:
            self.say(f"a probe of {size} samples was asked for, but the data has {len(probe)}: these are explained")
        self.state.probe = self.displayed(describe(probe, dataset_of(trainer, self.probe_loader)))
        if self.state.expected not in (None, self.state.probe.fingerprint):
            why = "the run is resumed without its probe, and the data gives another"
            self.say(opening.OTHER_SAMPLES.format(epoch=trainer.current_epoch, why=why))

    def displayed(self, probe: Probe) -> Probe:
        """The probe with what the settings say about its display."""
        probe, unfit = fitting(probe, self._display)
        for why in unfit:
            if why not in self._said:
                self._said.add(why)
                warnings.warn(f"{type(self).__name__}: {why}", RuntimeWarning, stacklevel=2)
        return probe

    @property
    def _display(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"class_names": self.class_names, "mean": self.mean, "std": self.std}
        return {name: value for name, value in settings.items() if value is not None}

    def targets(self, probe: Probe) -> Any:
        """What a functional takes as targets: (N,) class indices, ``"predicted"``, or a function of the output."""
        if self.target == "label":
            if probe.targets is None:
                self.say("the probe has no class labels, so the predicted class is explained")
                return "predicted"
            return probe.targets
        if isinstance(self.target, int):
            device = tensors(probe.inputs)[0].device
            return torch.full((len(probe),), self.target, dtype=torch.long, device=device)
        return self.target

    # -- what is said -------------------------------------------------------------------------------------------

    def warn(self, error: Exception, what: str) -> None:
        """Warn once of each cause; its traceback goes to the debug log."""
        cause = f"{type(error).__name__}: {error}"
        if cause in self._said:
            return
        self._said.add(cause)
        warnings.warn(
            f"{type(self).__name__}: {what}. {cause}\nTraining goes on; said once. on_error='raise' stops here.",
            RuntimeWarning,
            stacklevel=2,
        )
        log.debug("the cause in full", exc_info=error)

    def say(self, text: str) -> None:
        """Inform once, on the main process."""
        if text not in self._said:
            self._said.add(text)
            rank_zero_info(f"{type(self).__name__}: {text}.")


def _emptied(tensor: Tensor) -> Tensor | None:
    """Its shape without a sample; nothing where samples cannot be cut, since no probe holds such a tensor."""
    return tensor.new_empty((0, *tensor.shape[1:])) if is_dense(tensor) else None
