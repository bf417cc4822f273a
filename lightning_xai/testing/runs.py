"""Runs of a project, and everything in them that an explanation could change."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn
from torch.nn.modules import module as module_globals

from lightning_xai.flow.namespaces import NAMESPACES, LightningModule, Trainer
from lightning_xai.testing.project import Project

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "log_every_n_steps": 1,
    "max_epochs": 2,
    "logger": False,
}


def trainer_of(folder: Path, *callbacks: Any, namespace: Any = NAMESPACES[-1], **settings: Any) -> Trainer:
    """A quiet Trainer on the CPU, for two epochs unless told otherwise."""
    made: Trainer = namespace.Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**QUIET, **settings})
    return made


def fit(
    project: Project, folder: Path, *callbacks: Any, checkpoint: Path | None = None, **settings: Any
) -> tuple[Trainer, LightningModule]:
    """Train the project from its first weights, or from a checkpoint.

    Args:
        project: what is trained.
        folder: of the run.
        callbacks: of the Trainer.
        checkpoint: what training goes on from.
        settings: of the Trainer.
    """
    with seeded():
        module = project.module()
        trainer = trainer_of(folder, *callbacks, **settings)
        with warnings.catch_warnings():
            # Lightning's own advice: workers, log intervals, a precision that the CPU is slow at
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning|lightning_fabric)\.")
            trainer.fit(module, project.data(), project.data(), ckpt_path=checkpoint)
    return trainer, module


@contextmanager
def seeded() -> Iterator[None]:
    """Every RNG stream from one seed, and afterwards as it was."""
    before = random.getstate(), numpy.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    numpy.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


class Recorder(NAMESPACES[-1].Callback):  # type: ignore[misc]
    """Keeps everything that a callback before it might have changed, at every moment of the run."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def record(self, moment: str, module: nn.Module) -> None:
        """The state of the module and of the process around it, under the moment's name."""
        number = len(self.seen)
        self.seen |= {f"{number} {moment}: {name}": value for name, value in state_of(module).items()}

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.record("before a batch", pl_module)
        self.seen[f"{len(self.seen)} batch"] = batch

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.record("after a batch", pl_module)
        self.seen[f"{len(self.seen)} loss"] = outputs["loss"].detach().clone()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.record("after a validation", pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.record("after an epoch", pl_module)
        metrics = trainer.callback_metrics.items()
        self.seen[f"{len(self.seen)} metrics"] = {key: float(v) for key, v in metrics if not key.startswith("xai/")}

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.record("after the fit", pl_module)
        self.seen["optimizers"] = [optimizer.state_dict() for optimizer in trainer.optimizers]


class SeededSteps(NAMESPACES[-1].Callback):  # type: ignore[misc]
    """Draws the same in a step whatever came before it: a run that is resumed trains as one that is not."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(trainer.global_step)


def state_of(module: nn.Module) -> dict[str, Any]:
    """All that belongs to a module, and to the process around it, by name."""
    keys: Any
    _, keys, position, *gauss = numpy.random.get_state()  # noqa: NPY002
    parameters = list(module.parameters())
    return {
        "weights": [parameter.detach().clone() for parameter in parameters],
        "gradients": [None if p.grad is None else p.grad.clone() for p in parameters],
        "buffers": [buffer.clone() for buffer in module.buffers()],
        "requires_grad": [parameter.requires_grad for parameter in parameters],
        "training flags": [part.training for part in module.modules()],
        "hooks": [sum(len(getattr(part, kind)) for kind in HOOKS) for part in module.modules()],
        "global hooks": [len(getattr(module_globals, f"_global{kind}")) for kind in HOOKS],
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "torch's RNG": torch.get_rng_state(),
        "numpy's RNG": [keys.tolist(), position, gauss],
        "python's RNG": random.getstate(),
        "modes": [
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_cache_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
        ],
    }


def is_same(one: Any, other: Any) -> bool:
    """Whether two nests hold the same values, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    return type(one) is type(other) and one == other


def scalars_of(trainer: Trainer, callback: Any) -> dict[str, float]:
    """What the callback has logged last, by tag."""
    start = f"{callback.tag}/"
    return {tag: float(value) for tag, value in trainer.callback_metrics.items() if tag.startswith(start)}
