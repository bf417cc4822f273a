"""All that a run and the process around it may show of a callback, recorded step by step."""

import random

import numpy
import pytorch_lightning as pl
import torch
from torch.nn.modules import module as module_globals

from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.hooks import KINDS, hooks_of
from tests.support.training import NoPictures, trainer


class Recorder(pl.Callback):
    """Keeps everything that a callback before it might have changed, after each step of the run."""

    def __init__(self):
        self.seen = {}

    def record(self, moment, model):
        step = len(self.seen)
        for name, value in state(model).items():
            self.seen[f"{step} {moment}: {name}"] = value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.record("batch start", pl_module)
        self.seen[f"{len(self.seen)} batch"] = batch[0].clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.record("batch end", pl_module)
        self.seen[f"{len(self.seen)} loss"] = outputs["loss"].detach().clone()

    def on_validation_epoch_end(self, trainer, pl_module):
        self.record("validation end", pl_module)

    on_test_epoch_end = on_validation_epoch_end

    def on_train_epoch_end(self, trainer, pl_module):
        self.record("epoch end", pl_module)
        metrics = trainer.callback_metrics.items()
        self.seen[f"{len(self.seen)} metrics"] = {k: v.item() for k, v in metrics if not k.startswith("xai/")}


def state(model):
    """All that belongs to the model, and to the process around it, by name."""
    _, keys, position, *gauss = numpy.random.get_state()  # noqa: NPY002
    return {
        "weights": [p.detach().clone() for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training flags": [module.training for module in model.modules()],
        "hooks": hooks_of(model),
        "global hooks": [len(getattr(module_globals, f"_global{kind}")) for kind in KINDS],
        "own attributes": [sorted(vars(module)) for module in model.modules()],
        "torch RNG": torch.get_rng_state(),
        "numpy RNG": [keys.tolist(), position, gauss],
        "python RNG": random.getstate(),
        "modes": [
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_cache_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
        ],
    }


def same(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def assert_same(one, other):
    assert list(one) == list(other)
    assert [name for name in one if not same(one[name], other[name])] == []


def recording(folder, *callbacks, make=classifier, train=None, validation=None, **settings):
    """Everything recorded in one run that starts from the same weights and seeds."""
    model, recorder = make(), Recorder()
    fits = trainer(folder, *callbacks, recorder, **{"logger": NoPictures(), **settings})
    train = {"count": 20, "shuffle": True, **(train or {})}
    validation = {"count": 10, "seed": 1} if validation is None else validation
    fits.fit(model, loader(**train), loader(**validation) if validation else None)
    recorder.record("after fit", model)
    recorder.seen["optimizer"] = [optimizer.state_dict() for optimizer in fits.optimizers]
    return recorder.seen
