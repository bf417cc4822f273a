"""What a dataset and the settings tell about the display: used where it fits, and never the end of a run."""

import warnings
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_xai import TCAV, Concept, GradCAM
from lightning_xai.flow.display import COPIED_BYTES, with_display_of
from lightning_xai.probe import Probe
from tests.support.classifier import classifier
from tests.support.data import Samples, loader
from tests.support.training import trainer


class Normalize:
    def __init__(self, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3)):
        self.mean, self.std = mean, std


def probe(targets=(0, 1)):
    return Probe(torch.rand(2, 3, 8, 8), torch.tensor(targets))


def data(**attributes):
    held = TensorDataset(torch.rand(4, 3, 8, 8))
    for name, value in attributes.items():
        setattr(held, name, value)
    return held


# ------------------------------------------------------------ what a dataset tells


def test_the_dataset_tells_class_names_and_normalisation():
    transform = SimpleNamespace(transforms=[object(), Normalize(std=torch.tensor([0.1, 0.2, 0.3]))])
    held = data(classes=["ant", "bee"], transform=transform)
    shown = with_display_of(probe(), Subset(Subset(held, [0, 1]), [0]))
    assert list(shown.class_names) == ["ant", "bee"]
    assert shown.mean == [0.5, 0.5, 0.5]
    assert shown.std == pytest.approx([0.1, 0.2, 0.3])
    assert with_display_of(probe((0, 5)), held).class_names is None
    assert with_display_of(probe((0, 5)), None).class_names is None


class Raising(Samples):
    @property
    def classes(self):
        raise RuntimeError("labels are read lazily")

    @property
    def transform(self):
        raise RuntimeError("so are transforms")


class Opening(Samples):
    """Counts how often it is opened, to read the names."""

    opened = 0

    @property
    def classes(self):
        self.opened += 1
        return ["ant", "bee", "cat", "dog"]


class Delegating:
    """Answers for whatever it wraps, and for anything else with an error of its own."""

    def __init__(self, base):
        self.base = base

    def __getattr__(self, name):
        if name.startswith("__") or name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)


class Endless:
    """Every wrapper wraps another one."""

    @property
    def dataset(self):
        return Endless()


class Slotted:
    __slots__ = ("classes",)


UNUSUAL = {
    "raising": Raising(4),
    "transforms are None": data(transform=SimpleNamespace(transforms=None)),
    "transforms are a number": data(transform=SimpleNamespace(transforms=3)),
    "mean is None": data(transform=Normalize(mean=None)),
    "mean is text": data(transform=Normalize(mean="imagenet")),
    "mean of another length": data(transform=Normalize(mean=(0.5, 0.5))),
    "mean is not a number": data(transform=Normalize(mean=(0.5, float("nan"), 0.5))),
    "classes are a number": data(classes=2),
    "classes are a method": type("Asked", (Samples,), {"classes": lambda self: ["ant", "bee"]})(4),
    "classes are too few": data(classes=["ant"]),
    "endless": Endless(),
    "an empty slot": Slotted(),
    "wraps itself": None,
}
UNUSUAL["wraps itself"] = data()
UNUSUAL["wraps itself"].dataset = UNUSUAL["wraps itself"]


@pytest.mark.parametrize("dataset", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_cannot_be_used_is_left_out(dataset):
    shown = with_display_of(probe(), dataset)
    assert (shown.class_names, shown.mean, shown.std) == (None, None, None)


def test_one_thing_that_cannot_be_used_leaves_the_other():
    assert with_display_of(probe(), data(classes=["ant"], transform=Normalize())).mean == [0.5] * 3
    assert with_display_of(probe(), data(classes=["ant", "bee"], transform=Normalize(None))).class_names == [
        "ant",
        "bee",
    ]


def test_arrays_and_single_numbers_are_normalisations():
    shown = with_display_of(probe(), data(transform=Normalize(numpy.array([0.5, 0.4, 0.3]), 0.25)))
    assert (shown.mean, shown.std) == ([0.5, 0.4, 0.3], [0.25])
    assert shown.images().shape == (2, 8, 8, 3)


def test_a_property_is_asked_of_a_copy():
    held = Opening(4)
    assert with_display_of(probe(), held).class_names == ["ant", "bee", "cat", "dog"]
    assert with_display_of(probe(), Delegating(held)).class_names == ["ant", "bee", "cat", "dog"]
    assert held.opened == 0


def test_a_large_dataset_is_not_copied_for_its_names():
    held = Opening(4)
    held.images = torch.zeros(1).expand(COPIED_BYTES)
    assert with_display_of(probe(), held).class_names is None
    assert held.opened == 0


def with_attributes(kind=Samples, **attributes):
    held = kind(8, seed=1)
    for name, value in attributes.items():
        setattr(held, name, value)
    return held


STRANGE = {
    "raising": with_attributes(Raising),
    "transforms are None": with_attributes(transform=SimpleNamespace(transforms=None)),
    "mean is None": with_attributes(transform=Normalize(mean=None)),
    "names are too few": with_attributes(classes=["ant"]),
}


@pytest.mark.parametrize("dataset", STRANGE.values(), ids=STRANGE.keys())
def test_an_unusual_dataset_stops_no_run(tmp_path, dataset):
    callback = GradCAM(on_error="raise")
    trainer(tmp_path, callback).fit(classifier(), loader(), DataLoader(dataset, 4))
    assert len(callback.state.history.moments) == 2


# ------------------------------------------------------------ what the settings tell


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mean": [0.5] * 3}, "mean and std belong together"),
        ({"std": [0.5] * 3}, "mean and std belong together"),
        ({"mean": [0.5] * 3, "std": [0.5] * 2}, "mean has 3 values and std 2: give one a channel, or one for all"),
        ({"mean": "imagenet", "std": [1.0]}, "mean='imagenet' is unknown: give finite numbers, one a channel"),
        ({"mean": [0.5, None, 0.5], "std": [1.0]}, r"mean=\[0.5, None, 0.5\] is unknown"),
        ({"mean": [], "std": []}, r"mean=\[\] is unknown"),
        ({"mean": [0.5] * 3, "std": [1.0, float("inf"), 1.0]}, "std=.* is unknown: give finite numbers"),
        ({"class_names": "ant"}, "class_names='ant' is no list: give one name for each class index"),
        ({"class_names": {0: "ant"}}, "class_names={0: 'ant'} is no list"),
        ({"class_names": 4}, "class_names=4 is no list"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_displayed_are_refused_at_once(settings, text):
    with pytest.raises(ValueError, match=text):
        GradCAM(**settings)
    with pytest.raises(ValueError, match=text):
        TCAV(concepts=[Concept("one", torch.rand(4, 3, 8, 8))], layers="0", classes=[0], **settings)


def test_settings_of_other_types_are_understood():
    callback = GradCAM(mean=numpy.full(3, 0.5), std=torch.tensor(0.25), class_names=numpy.array(["ant", "bee"]))
    assert (callback.mean, callback.std, callback.class_names) == ([0.5] * 3, [0.25], ["ant", "bee"])
    assert callback.settings()["mean"] == [0.5] * 3


def refused(folder, match, **settings):
    run = trainer(folder, GradCAM(**settings))
    with pytest.raises(ValueError, match=match):
        run.fit(classifier(), loader(), loader(8, seed=1))
    assert run.global_step == 0


def test_what_does_not_fit_a_given_probe_is_refused_before_the_first_step(tmp_path):
    given = Probe(Samples(4).images, torch.arange(4))
    refused(tmp_path, "target 3 has no name among 2 class_names", probe=given, class_names=["ant", "bee"])
    refused(tmp_path, "mean and std belong together", probe=given, mean=[0.5] * 3)
    refused(tmp_path, "mean has 4 values for images of 3 channels", probe=given, mean=[0.5] * 4, std=[0.5] * 4)


def test_one_of_mean_and_std_completes_a_given_probe(tmp_path):
    given = Probe(Samples(4).images, torch.arange(4), mean=[0.1] * 3, std=[0.2] * 3)
    callback = GradCAM(probe=given, mean=[0.5] * 3, on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(classifier(), loader(), loader(8, seed=1))
    assert (callback.explained.mean, callback.explained.std) == ([0.5] * 3, [0.2] * 3)


class OneBased(Samples):
    def __init__(self, count, seed=0):
        super().__init__(count, seed=seed)
        self.labels = self.labels.clamp(max=2) + 1


UNFIT = {
    "labels from one": (
        {"class_names": ["ant", "bee", "cat"]},
        "GradCAM: target 3 has no name among 3 class_names .*; classes are shown as index numbers",
    ),
    "two channels": (
        {"mean": [0.5] * 2, "std": [0.5] * 2},
        "GradCAM: mean has 2 values for images of 3 channels.*; images are shown without it",
    ),
}


@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize(("settings", "text"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_the_captured_probe_is_said_once_and_the_readings_go_on(tmp_path, settings, text, on_error):
    callback = GradCAM(on_error=on_error, **settings)
    with pytest.warns(RuntimeWarning, match=text) as caught:
        trainer(tmp_path, callback, max_epochs=3).fit(
            classifier(), DataLoader(OneBased(12), 4), DataLoader(OneBased(12, seed=1), 4)
        )
    assert len([warning for warning in caught if "shown" in str(warning.message)]) == 1
    assert len(callback.state.history.readings) == 3
    assert (callback.explained.class_names, callback.explained.mean) == (None, None)


def test_names_that_fit_are_said_nothing_about(tmp_path):
    callback = GradCAM(on_error="raise", class_names=["none", "ant", "bee", "cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        trainer(tmp_path, callback, max_epochs=1).fit(
            classifier(), DataLoader(OneBased(12), 4), DataLoader(OneBased(12, seed=1), 4)
        )
    assert callback.explained.label(1) == "ant"
