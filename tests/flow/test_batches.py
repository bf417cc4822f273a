"""From the batches to the samples that are explained: of every structure, balanced, transferred once."""

from collections import namedtuple

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_xai import GradCAM
from lightning_xai.functional import grad_cam
from lightning_xai.report import Grid
from tests.support.classifier import Classifier, classifier
from tests.support.data import CLASSES, SIZE, Samples, loader
from tests.support.events import events
from tests.support.fitted import assert_maps, fit_reports, maps_in_store
from tests.support.probes import make_probe
from tests.support.training import trainer

TAG = "xai/grad_cam/auto"


@pytest.mark.parametrize("kind", ["tuple", "mapping", "tensor"])
@pytest.mark.parametrize("origin", ["captured", "given"])
def test_batches_of_every_kind(tmp_path, kind, origin):
    probe = make_probe() if origin == "given" else None
    callback = GradCAM(probe=probe, probe_size=4, on_error="raise")
    reports, models = fit_reports(
        tmp_path, callback, train=loader(kind=kind), validation=loader(8, kind, seed=1, batch_size=3)
    )
    explained = callback.explained
    images = explained.inputs["image"] if origin == "captured" and kind == "mapping" else explained.inputs
    targets = "predicted" if explained.targets is None else explained.targets
    assert_maps(tmp_path, grad_cam(models[-1], images, targets, layer="backbone"))
    assert (explained.targets is None) == (origin == "captured" and kind == "tensor")
    assert isinstance(reports[-1].pictures[TAG], Grid)


def test_a_named_tuple_is_a_batch(tmp_path):
    Pair = namedtuple("Pair", ["image", "label"])
    data = [Pair(image, label) for image, label in Samples(8)]
    callback = GradCAM(probe_size=4, on_error="raise")
    fit_reports(tmp_path, callback, train=DataLoader(data, 4), validation=DataLoader(data, 4))
    assert callback.explained.inputs.shape == (4, 3, SIZE, SIZE)
    assert callback.explained.targets is not None


def test_labels_may_be_anywhere_in_the_batch(tmp_path):
    class Last(Samples):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, torch.zeros(2), label

    class Takes(Classifier):
        def loss(self, batch):
            return super().loss((batch[0], batch[2]))

    callback = GradCAM(probe_size=4, labels=lambda batch: batch[2], on_error="raise")
    data = Last(8)
    fit_reports(tmp_path, callback, Takes(), train=DataLoader(data, 4), validation=DataLoader(data, 4))
    assert set(callback.explained.targets.tolist()) == set(data.labels.tolist())


def test_the_probe_is_balanced_over_the_classes(tmp_path):
    data = Samples(40, seed=1)
    order = data.labels.argsort(stable=True)
    data.images, data.labels = data.images[order], data.labels[order]
    callback = GradCAM(probe_size=CLASSES, on_error="raise")
    fit_reports(tmp_path, callback, validation=DataLoader(data, 4))
    assert callback.explained.targets.tolist() == list(range(CLASSES))


def test_the_probe_is_taken_from_the_named_validation_loader(tmp_path):
    callback = GradCAM(probe_size=4, probe_loader=1, on_error="raise")
    named = DataLoader(Samples(8, seed=5, classes=["a", "b", "c", "d"]), 4)
    fit_reports(tmp_path, callback, validation=[loader(8, seed=1), named, loader(8, seed=6)])
    samples = Samples(8, seed=5).images
    assert all(any(torch.equal(image, sample) for sample in samples) for image in callback.explained.inputs)
    assert callback.explained.class_names == ["a", "b", "c", "d"]


class Normalising(Classifier):
    """Normalises on the device, counts how often, and keeps what its validation sees."""

    def __init__(self):
        super().__init__()
        self.transferred, self.validated = 0, []

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return self.moved(batch, lambda image: image * 3)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.transferred += 1
        return self.moved(batch, lambda image: (image - 10) / 2)

    def moved(self, batch, function):
        if isinstance(batch, dict):
            return {**batch, "image": function(batch["image"])}
        return (function(batch[0]), batch[1]) if isinstance(batch, (tuple, list)) else function(batch)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.validated.append(batch["image"] if isinstance(batch, dict) else batch[0])
        super().validation_step(batch, batch_idx)


def spy(seen):
    def forward(model, inputs):
        seen.append(inputs["image"] if isinstance(inputs, dict) else inputs)
        return model(seen[-1])

    return forward


BATCHES = 2 + 2 * (3 + 2)  # of the sanity check, and in each of two epochs


@pytest.mark.parametrize("kind", ["tuple", "mapping"])
def test_a_given_probe_goes_through_the_transfer_hooks_once(tmp_path, kind):
    seen, probe, model = [], make_probe(), Normalising()
    callback = GradCAM(probe=probe, forward=spy(seen), layers="backbone", on_error="raise")
    fit_reports(tmp_path, callback, model, train=loader(kind=kind), validation=loader(8, kind, seed=1))
    assert len(seen) == 2
    for inputs in seen:
        assert torch.equal(inputs, (probe.inputs * 3 - 10) / 2)
    assert model.transferred == BATCHES, "the hooks ran on the shadow"
    assert torch.equal(callback.explained.inputs, probe.inputs)


@pytest.mark.parametrize("kind", ["tuple", "mapping"])
def test_a_captured_probe_is_not_sent_through_them_again(tmp_path, kind):
    seen, model = [], Normalising()
    callback = GradCAM(probe_size=4, forward=spy(seen), layers="backbone", on_error="raise")
    fit_reports(tmp_path, callback, model, train=loader(kind=kind), validation=loader(8, kind, seed=1))
    for inputs in seen:
        assert all(any(torch.equal(row, other) for batch in model.validated for other in batch) for row in inputs)
    assert model.transferred == BATCHES
    assert callback.explained.prepared


def test_a_saved_captured_probe_is_not_sent_through_them_again(tmp_path):
    first = GradCAM(probe_size=4, on_error="raise")
    fit_reports(tmp_path / "first", first, Normalising())
    first.explained.save(tmp_path / "probe.pt")
    seen, model = [], Normalising()
    callback = GradCAM(probe=str(tmp_path / "probe.pt"), forward=spy(seen), layers="backbone", on_error="raise")
    fit_reports(tmp_path / "second", callback, model)
    assert torch.equal(seen[-1], first.explained.inputs)
    assert model.transferred == BATCHES


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("origin", ["captured", "given"])
def test_the_probe_takes_the_precision_of_the_batches(tmp_path, precision, origin):
    seen, autocast = [], []

    def forward(model, inputs):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return spy(seen)(model, inputs)

    probe = make_probe() if origin == "given" else None
    callback = GradCAM(probe=probe, probe_size=4, forward=forward, layers="backbone", on_error="raise")
    run = trainer(tmp_path, callback, precision=precision)
    run.fit(classifier(), loader(), loader(8, seed=1))
    assert seen[-1].dtype == {"64": torch.float64, "bf16": torch.bfloat16}.get(
        precision.removesuffix("-true"), torch.float32
    )
    assert set(autocast) == {precision == "bf16-mixed"}
    assert maps_in_store(tmp_path, layer="backbone").dtype == torch.float32
    assert len(events(tmp_path)[1]["xai/grad_cam/backbone"]) == 2
