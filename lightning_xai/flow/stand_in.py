"""What stands for the Trainer in a shadow: it is read as the Trainer is, and nothing done to it reaches a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_xai.flow.namespaces import NAMESPACES, LightningModule, Trainer
from lightning_xai.foreign.lightning import give_model, trainer_twin, twin

T = TypeVar("T")

SILENT = (
    "log",
    "log_dict",
    "print",
    "backward",
    "manual_backward",
    "toggle_optimizer",
    "untoggle_optimizer",
    "clip_gradients",
    "configure_gradient_clipping",
    "optimizer_step",
    "optimizer_zero_grad",
    "lr_scheduler_step",
)


def stand_in(trainer: Trainer) -> Trainer:
    """A Trainer of the same state, whose loggers are dummies and whose strategy speaks to no other process."""
    profiler = import_module(f"{NAMESPACES[0].__name__}.profilers").PassThroughProfiler
    size, alone = trainer.world_size, _Alone()
    strategy = twin(
        trainer.strategy,
        all_gather=lambda tensor, group=None, sync_grads=False: _gathered(tensor, size),
        barrier=alone.nothing,
        broadcast=alone.first,
        reduce=alone.first,
        reduce_boolean_decision=alone.first,
        save_checkpoint=alone.nothing,
    )
    loggers = [dummy_logger() for _ in trainer.loggers]
    return trainer_twin(trainer, strategy, loggers, profiler=profiler(), save_checkpoint=alone.nothing)


def dummy_logger() -> Any:
    """A logger that takes everything and keeps nothing."""
    return import_module(f"{NAMESPACES[0].__name__}.loggers.logger").DummyLogger()


def attach(trainer: Trainer, model: LightningModule, datamodule: Any) -> None:
    """Let a stand-in know the shadow it belongs to, and the shadow's modules be silent."""
    give_model(trainer, model, datamodule)
    for module in model.modules():
        if isinstance(module, tuple(namespace.LightningModule for namespace in NAMESPACES)):
            _silence(module, trainer)


def _silence(module: nn.Module, trainer: Trainer) -> None:
    alone = _Alone()
    optimizers = [_Idle(optimizer) for optimizer in trainer.optimizers]
    schedulers = [_Idle(config.scheduler) for config in trainer.lr_scheduler_configs]
    module.__dict__.update(
        dict.fromkeys(SILENT, alone.nothing),
        toggled_optimizer=lambda *_, **__: nullcontext(),
        optimizers=lambda *_, **__: optimizers[0] if len(optimizers) == 1 else optimizers,
        lr_schedulers=lambda: (schedulers[0] if len(schedulers) == 1 else schedulers) if schedulers else None,
    )


class _Idle:
    """Reads as an optimizer or a scheduler does, and takes no step."""

    def __init__(self, idle: Any) -> None:
        self._idle = idle
        if hasattr(idle, "param_groups"):
            self.param_groups = [dict(group) for group in idle.param_groups]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._idle, name)

    def _nothing(self, *_: Any, **__: Any) -> None:
        return None

    step = zero_grad = load_state_dict = add_param_group = _nothing

    def toggle_model(self, *_: Any, **__: Any) -> AbstractContextManager[None]:
        return nullcontext()


class _Alone:
    """What a process answers to itself where there is no other."""

    def nothing(self, *_: Any, **__: Any) -> None:
        return None

    def first(self, value: T, *_: Any, **__: Any) -> T:
        return value


def _gathered(tensor: Tensor, size: int) -> Tensor:
    """This rank's tensor in every rank's place, (world size, *shape); of one rank the tensor alone."""
    return tensor if size == 1 else torch.stack([tensor] * size)
