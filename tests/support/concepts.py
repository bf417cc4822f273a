"""Concepts of `Samples`, a TCAV of them, and its runs."""

import pytest
import torch

from lightning_xai import TCAV, Concept, load_run
from tests.support.classifier import classifier
from tests.support.data import SIZE, loader
from tests.support.training import NoPictures, trainer

LAYER = "backbone.1"
TAG = f"xai/tcav/{LAYER}"


def images(count=12, seed=5):
    """Noise of the size of `Samples`."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def bright(count=12, seed=6):
    """Images with a bright upper quarter: what the class 0 of `Samples` is told by."""
    return images(count, seed) + 4 * torch.eye(3)[0].view(3, 1, 1) * (torch.arange(SIZE) < SIZE // 4).view(-1, 1)


def tcav(**settings):
    """Of the concept `bright` at one layer, for two classes, unless told otherwise."""
    told = {"concepts": [Concept("bright", bright())], "layers": LAYER, "classes": [0, 2], "random_sets": 4}
    return TCAV(**{**told, "probe_per_class": 3, "on_error": "raise", **settings})


def fit(folder, *callbacks, model=None, train=None, val=None, **settings):
    """The trainer after a run whose validation data suffice for random sets."""
    fitting = trainer(folder, *callbacks, **{"logger": NoPictures(), "num_sanity_val_steps": 0, **settings})
    fitting.fit(model or classifier(), loader() if train is None else train, loader(24, seed=1) if val is None else val)
    return fitting


def refused(folder, match, *callbacks, model=None, **data):
    """The run ends with this error before its first step."""
    model = model or classifier()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=match):
        fit(folder, *callbacks, model=model, **data)
    assert all(map(torch.equal, before, model.parameters()))


def shared_of(folder, name="tcav"):
    """What each stored reading says of the whole probe."""
    return [reading.measured.shared for reading in load_run(folder).readings[name]]


class Seen:
    """A forward that keeps the images of the readings."""

    def __init__(self):
        self.batches = []

    def __call__(self, model, inputs):
        self.batches.append(inputs.clone())
        return model(inputs)
