"""Explanation: the one base class of the callbacks.

A method is two functions on top of it: `measure` runs the model, `report` says what was measured. When, where and how
it is logged is decided in `lightning_xai.flow`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from inspect import isabstract
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_xai.attempt import attempt
from lightning_xai.explanation.settings import Settings
from lightning_xai.flow import opening, reader, sampling, schedule
from lightning_xai.flow.capture import of_classes
from lightning_xai.flow.due import due_after_epoch, due_after_validation
from lightning_xai.flow.history import History
from lightning_xai.flow.import_paths import plain
from lightning_xai.flow.messages import Messages
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.flow.namespaces import Callback, LightningModule, Trainer, callbacks_of
from lightning_xai.flow.session import session_of
from lightning_xai.flow.state import State
from lightning_xai.foreign.lightning import logged_step
from lightning_xai.functional.layers import find_layers
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report, Scalar
from lightning_xai.storage.run_store import RunStore
from lightning_xai.tensors import tensors


@dataclass(eq=False, kw_only=True)
class Explanation(Settings, Callback, ABC):
    """Explains the same samples again and again while a model trains, and logs what it finds.

    Its settings are those of `Settings`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if "/" in self.tag.removeprefix("xai/"):
            raise ValueError(f"name={self.name!r} holds a slash, which would split the tags: leave it out")
        self.checkpoint: dict[str, Any] | None = None
        self.restart()

    # -- what a method adds -------------------------------------------------------------------------------------

    scalars: ClassVar[tuple[Scalar, ...]] = ()
    """What it logs, by name below its tag; a word in braces stands for each of `things`."""

    @abstractmethod
    def measure(self, run: ModelRun, probe: Probe) -> Measured:
        """Run the model, through ``run`` alone, on some samples of the prepared probe. Called inside the guarded pass.

        Every draw is seeded by ``probe.positions``, so that a probe in parts gives what it gives whole.
        """

    @abstractmethod
    def report(self, probe: Probe, history: Sequence[Reading]) -> Report:
        """Say what was measured, from the arguments and the settings alone.

        ``history`` holds the readings so far, the last of them is this one. All have ``kept``, at most 16 have
        ``rows``: the latest and the one before of all samples, the others of the shown ones.
        """

    def prepare(self, run: ModelRun, probe: Probe) -> dict[str, Tensor]:
        """What is computed once a reading, on the whole probe: it becomes ``run.shared`` and ``Measured.shared``."""
        return {}

    @property
    def method(self) -> str:
        """The default of ``name``: the class in words, for a class that is derived from it as well."""
        kinds = (kind for kind in reversed(type(self).__mro__) if issubclass(kind, Explanation))
        name = next(kind.__name__ for kind in kinds if not isabstract(kind))
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

    def automatic_probe(self) -> tuple[int, Collection[int] | None]:
        """How many samples the automatic probe has, and of which classes; None for all."""
        return self.probe_size, None

    def resolve(self, model: LightningModule) -> None:
        """Check what the settings name against the model, before training starts; raises ValueError."""
        layers = getattr(self, "layers", None)
        self.state.layer_names = {} if layers is None else {name: name for name in find_layers(model, layers)}

    def things(self, probe: Probe | None) -> dict[str, Sequence[str]]:
        """What the words in braces stand for in the names of scalars, as far as it is known."""
        return {"layer": list(self.layer_names), "mask": list((probe.masks if probe is not None else None) or {})}

    def new_state(self) -> State:
        """What it knows at the start of a run; a method with more to remember derives its own from `State`."""
        return State(History(self.tag.removeprefix("xai/"), None, self.shown), Messages(type(self).__name__))

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

    def say(self, text: str) -> None:
        """Inform once, on the main process."""
        self.state.messages.say(text)

    def warn(self, error: Exception, consequence: str) -> None:
        """Warn once of each cause; its traceback goes to the debug log."""
        self.state.messages.warn(error, consequence)

    # -- identity and state -------------------------------------------------------------------------------------

    @property
    def tag(self) -> str:
        """What every tag of this callback starts with."""
        return f"xai/{self.name or self.method}"

    @property
    def state_key(self) -> str:
        identity = {name: plain(getattr(self, name)) for name in self.identifying}
        return self._generate_state_key(name=self.name or self.method, target=plain(self.target), **identity)

    @property
    def explained(self) -> Probe | None:
        """The samples that are explained; None until they are captured."""
        return self.state.probe

    @property
    def layer_names(self) -> dict[str, str]:
        """Layer as tagged -> its real name in the model, once known."""
        return self.state.layer_names

    @layer_names.setter
    def layer_names(self, names: dict[str, str]) -> None:
        self.state.layer_names = names

    def displayed(self, probe: Probe) -> Probe:
        """The probe with what the settings say about its display."""
        return sampling.displayed(self, probe)

    def restart(self) -> None:
        """Forget the run before."""
        self.state = self.new_state()

    def open(self, store: RunStore | None) -> None:
        """Keep the readings there from now on, and take up the Probe of the setting."""
        history = self.state.history
        if store is not history.store:
            self.state.history = History(history.name, store, self.shown)
        if self.probe is not None:
            _, classes = self.automatic_probe()
            self.state.probe = self.displayed(of_classes(self.load_probe(), classes))

    # -- Lightning's hooks --------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.checkpoint is not None:
            state, self.checkpoint = self.checkpoint, None
            opening.resume(self, trainer, state)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._open(trainer, pl_module)

    on_test_start = on_validation_start

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.look_at(trainer, batch, keep=not schedule.validates(trainer))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.look_at(trainer, batch, keep=not trainer.sanity_checking and dataloader_idx == self.probe_loader)

    on_test_batch_start = on_validation_batch_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.settle(trainer)
        is_fit = trainer.state.fn == "fit"
        self.state.validations += is_fit
        if not is_fit or due_after_validation(self, trainer):
            reader.read(self, trainer, pl_module, logged_step(trainer))
        self._end_moment(trainer)

    on_test_epoch_end = on_validation_epoch_end

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not schedule.validates(trainer):
            self.settle(trainer)
        if self.is_ready and due_after_epoch(self, trainer):
            # Lightning logs the scalars of this hook one step earlier than it counts here
            reader.read(self, trainer, pl_module, logged_step(trainer) - 1)
        self._end_moment(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._finish(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        # a checkpoint is written whatever has become of our files
        saved, error = attempt(self.state.saved)
        if error is not None:
            self.warn(error, "the checkpoint holds nothing of it")
        opening.warn_of_lost(self)
        return saved or {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # sharded strategies load after on_fit_start, all others before it: taken up in on_train_start
        self.checkpoint = state_dict

    def look_at(self, trainer: Trainer, batch: Any, *, keep: bool) -> None:
        """Learn from a batch that passes by; samples are taken of those to ``keep``."""
        sampling.look_at(self, trainer, batch, keep=keep)

    def settle(self, trainer: Trainer) -> None:
        """End what `look_at` takes. Collective."""
        sampling.settle(self, trainer)

    @property
    def is_ready(self) -> bool:
        """Whether an epoch without a validation may be read: False waits for what only a validation gives."""
        return True

    def _open(self, trainer: Trainer, pl_module: LightningModule) -> None:
        explanations = explanations_of(trainer)
        if explanations[0] is self:
            opening.open_all(explanations, trainer, pl_module)

    def _end_moment(self, trainer: Trainer) -> None:
        """Let the snapshot of the model go that the explanations of this Trainer share, once the last has read."""
        if explanations_of(trainer)[-1] is self:
            session_of(trainer).shadows.drop()

    def _finish(self, trainer: Trainer) -> None:
        session_of(trainer).finish()
        reader.warn_of_logger_errors(self)


def explanations_of(trainer: Trainer) -> list[Explanation]:
    """The callbacks of the Trainer that explain."""
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, Explanation)]
