"""What a reading runs on: a shadow of the model where one can be made, else the model itself under the guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_xai.attempt import attempt
from lightning_xai.flow.namespaces import LightningModule, Trainer, callbacks_of
from lightning_xai.flow.stand_in import attach, dummy_logger, stand_in
from lightning_xai.functional.layers import unwrapped_names
from lightning_xai.functional.shadow import Snapshot, UnshadowableError, over
from lightning_xai.functional.shadow.memory import MIB, storage_of

SHARDED = ("FSDPStrategy", "DeepSpeedStrategy")
"""Strategies whose parameters are elsewhere, or in pieces, between two forwards."""
TRIAL_BYTES = 256 * MIB
"""Parameters of at most this size are copied in the first reading, which shows whether the model writes to them."""
TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")

Say = Callable[[str], None]


class Shadows:
    """Makes the shadows of one Trainer's readings: a snapshot a moment, a shadow a callback, none kept."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._impossible = False
        self._writes: bool | None = None  # to its parameters: unknown until a reading has shown it

    @contextmanager
    def shadow(
        self, trainer: Trainer, model: LightningModule, forward: Any, say: Say
    ) -> Iterator[tuple[Trainer, LightningModule, Any]]:
        """The Trainer, the model and the user's ``forward`` that a reading uses.

        Args:
            trainer: whose model is explained.
            model: the module that is trained.
            forward: of the callback's setting; rebuilt where it reaches modules of the model by itself.
            say: tells the user something once.
        """
        snapshot = self._current_snapshot(trainer, model, say)
        if snapshot is None:
            yield trainer, model, forward
            return
        shadow, datamodule = snapshot.shadow()
        twin, modules = shadow.trainer, list(shadow.modules())  # before a forward may add the user's own
        attach(twin, shadow, datamodule)
        try:
            yield twin, shadow, _over(forward, model, shadow)
        finally:
            # what they own is freed now: they hold each other, and a cache of the user's may hold them
            for owner in (twin, *modules):
                owner.__dict__.clear()
            self._learn_from(snapshot, model, say)

    def drop(self) -> None:
        """Forget the moment."""
        self._snapshot = None

    def _current_snapshot(self, trainer: Trainer, model: LightningModule, say: Say) -> Snapshot | None:
        if self._impossible or type(trainer.strategy).__name__.endswith(SHARDED):
            return None
        if self._snapshot is None:
            try:
                self._snapshot = self._new_snapshot(trainer, model)
            except UnshadowableError as error:
                self._impossible = True
                name = next((name for name, part in _parts(model) if part is error.part), type(error.part).__name__)
                say(
                    f"{name!r} cannot be copied ({error}), so readings run on the model itself: what its forward "
                    "writes to attributes that are no parameters or buffers stays"
                )
        return self._snapshot

    def _new_snapshot(self, trainer: Trainer, model: LightningModule) -> Snapshot:
        size = sum(p.untyped_storage().nbytes() for p in model.parameters() if storage_of(p) is not None)
        datamodule = getattr(trainer, "datamodule", None)
        ours = [callback for callback in callbacks_of(trainer) if _is_ours(callback)]
        return Snapshot(
            (model, datamodule if _transfers(datamodule) else None),
            stand_ins=[
                (trainer, partial(stand_in, trainer)),
                *((callback, partial(_itself, callback)) for callback in ours),
                *((logger, dummy_logger) for logger in trainer.loggers),
            ],
            clone_parameters=size <= TRIAL_BYTES if self._writes is None else self._writes,
        )

    def _learn_from(self, snapshot: Snapshot, model: LightningModule, say: Say) -> None:
        """Learn whether the reading wrote to what it shares with training, or to its own parameters."""
        targets = snapshot.written()
        for target in targets:
            name = next((name for name, part in _parts(model) if part is target), f"a {type(target).__name__}")
            say(f"the model's forward writes to {name!r}, which its shadow shares for its size: a reading moves it")
        wrote = snapshot.wrote_to_parameters() or any(isinstance(target, nn.Parameter) for target in targets)
        if wrote and not self._writes:
            say("the model's forward writes to its parameters, so each reading runs on a copy of them")
        self._writes = bool(self._writes) or wrote


def _transfers(datamodule: Any) -> bool:
    """Whether a datamodule has transfer hooks of its own, which a given probe goes through."""
    return datamodule is not None and any(
        getattr(type(datamodule), hook).__module__.partition(".")[0] not in ("pytorch_lightning", "lightning")
        for hook in TRANSFER_HOOKS
        if hasattr(type(datamodule), hook)
    )


def _itself(original: Any) -> Any:
    return original


def _is_ours(callback: Any) -> bool:
    return type(callback).__module__.partition(".")[0] == "lightning_xai"


def _parts(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """All modules, parameters, buffers and attributes, by name."""
    yield from model.named_modules()
    yield from model.named_parameters()
    yield from model.named_buffers()
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            path = f"{name}.{attribute}".lstrip(".")
            yield path, value
            if isinstance(value, (list, tuple, dict)):
                items = value.values() if isinstance(value, dict) else value
                yield from ((path, item) for item in items if isinstance(item, Tensor))


def _over(forward: Any, model: LightningModule, shadow: LightningModule) -> Any:
    """The user's function over the shadow's modules and Trainer where it holds the model's."""
    if not callable(forward):
        return forward
    shadows = dict(unwrapped_names(shadow))
    pairs = [(module, shadows[name]) for name, module in unwrapped_names(model)]
    rebuilt, _ = attempt(partial(over, forward, [*pairs, (model.trainer, shadow.trainer)]))
    return forward if rebuilt is None else rebuilt
