"""What GradCAM logs, against slow recomputations on the weights of each epoch."""

import pytest
import torch
from torch import nn

from lightning_xai import GradCAM, load_run
from lightning_xai.functional import grad_cam
from lightning_xai.functional.grad_cam import VARIANTS
from lightning_xai.render import draw
from tests.support.classifier import Classifier, classifier
from tests.support.data import CLASSES, SIZE, loader
from tests.support.events import events
from tests.support.fitted import Reports, assert_maps, fit_reports
from tests.support.probes import make_masks, make_probe
from tests.support.training import trainer

TAG = "xai/grad_cam/auto"


def textbook_maps(model, images, labels):
    features = model.backbone(images)
    features.retain_grad()
    logits = model.head(features)
    sum(logits[n, label] for n, label in enumerate(labels.tolist())).backward()
    maps = torch.zeros(len(images), *features.shape[2:])
    for n in range(len(images)):
        for channel in range(features.shape[1]):
            maps[n] += features.grad[n, channel].mean() * features.detach()[n, channel]
    return maps.relu()


def textbook_shares(maps):
    return [m / m.sum() if m.sum() > 0 else torch.full_like(m, 1 / m.numel()) for m in maps]


def textbook_scalars(maps, before, masks):
    """Of maps (N, 4, 4) over images of 16 x 16, by loops; means are over the maps that show something."""
    shares, cell = textbook_shares(maps), SIZE // maps.shape[-1]
    earlier = textbook_shares(torch.zeros_like(maps) if before is None else before)
    drift = [0.5 * (a - b).abs().sum() for a, b in zip(shares, earlier, strict=True)]
    found = {
        "drift": sum(drift) / len(drift),
        "peak": maps.max(),
        "zero_maps": sum(m.sum() == 0 for m in maps),
        "nan_maps": 0,
    }
    showing = [n for n in range(len(maps)) if maps[n].sum() > 0]
    for name, mask in masks.items():
        inside, lift, hits = [], [], []
        for n in showing:
            covered = mask[n].float().view(4, cell, 4, cell).mean((1, 3))
            inside.append(sum(shares[n][i, j] * covered[i, j] for i in range(4) for j in range(4)))
            lift.append(inside[-1] / mask[n].float().mean())
            top = divmod(int(maps[n].argmax()), 4)
            near = [(i, j) for i in range(4) for j in range(4) if max(abs(i - top[0]), abs(j - top[1])) <= 1]
            hits.append(any(covered[place] > 0 for place in near))
        for kind, values in (("share", inside), ("lift", lift), ("pointing", hits)):
            found[f"{kind}/{name}"] = sum(values) / len(values)
    return {f"{TAG}/{name}": float(value) for name, value in found.items()}


def test_the_scalars_are_those_of_a_slow_recomputation(tmp_path):
    probe = make_probe(masks=make_masks())
    callback = GradCAM(probe=probe, on_error="raise")
    reports, models = fit_reports(tmp_path, callback, max_epochs=4)
    before = None
    for report, model in zip(reports, models, strict=True):
        maps = textbook_maps(model, probe.inputs, probe.targets)
        torch.testing.assert_close(report.pictures[TAG].maps, maps, atol=1e-3 * float(maps.max()), rtol=0)
        # the earlier maps come back from the store as float16
        assert dict(report.scalars) == pytest.approx(textbook_scalars(maps, before, probe.masks), abs=2e-3)
        before = maps
    assert len(reports) == 4


def test_tensorboard_holds_the_reported_scalars(tmp_path):
    callback = GradCAM(probe=make_probe(masks=make_masks()), on_error="raise")
    run = trainer(tmp_path, callback, max_epochs=3)
    kept = Reports()
    run.loggers = [*run.loggers, kept]
    run.fit(classifier(), loader(), loader(8, seed=1))
    scalars, images = events(tmp_path)
    for tag in kept.reports[0].scalars:
        assert list(scalars[tag].values()) == pytest.approx([report.scalars[tag] for report in kept.reports])
    assert set(images) == {TAG, f"{TAG}/filmstrip"}
    kinds = [f"{kind}/{mask}" for kind in ("share", "lift", "pointing") for mask in ("object", "mark")]
    expected = {f"{TAG}/{name}" for name in ["drift", "peak", "zero_maps", "nan_maps", *kinds]}
    assert {tag for tag in scalars if tag.startswith("xai/")} == expected == set(callback.tags(callback.explained))


def test_without_validation_the_model_is_still_read_in_eval_mode(tmp_path):
    probe, model = make_probe(), classifier(dropout=0.9)
    trainer(tmp_path, GradCAM(probe=probe, on_error="raise")).fit(model, loader())
    assert model.training
    assert_maps(tmp_path, textbook_maps(model.eval(), probe.inputs, probe.targets))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_that_of_the_function(tmp_path, variant):
    probe = make_probe()
    _, models = fit_reports(tmp_path, GradCAM(probe=probe, variant=variant, on_error="raise"))
    expected = grad_cam(models[-1], probe.inputs, probe.targets, layer="backbone", variant=variant)
    assert_maps(tmp_path, expected, name=variant)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("backbone.3", ["backbone.3"]),
        (["backbone.0", "backbone.4"], ["backbone.0", "backbone.4"]),
        ("backbone.[13]", ["backbone.1", "backbone.3"]),
        (["backbone", "backbone.?"], ["backbone", *(f"backbone.{i}" for i in range(5))]),
    ],
)
def test_layers_are_names_and_patterns(tmp_path, layers, found):
    probe = make_probe()
    reports, models = fit_reports(tmp_path, GradCAM(probe=probe, layers=layers, on_error="raise"))
    assert set(reports[-1].pictures) == {f"xai/grad_cam/{name}{part}" for name in found for part in ("", "/filmstrip")}
    for name in found:
        assert_maps(tmp_path, grad_cam(models[-1], probe.inputs, probe.targets, layer=name), layer=name)


def test_the_layer_that_was_chosen_is_in_the_manifest_and_the_title(tmp_path):
    callback = GradCAM(probe=make_probe(), on_error="raise")
    reports, _ = fit_reports(tmp_path, callback)
    assert load_run(tmp_path).callbacks["grad_cam"]["layers"] == callback.layer_names == {"auto": "backbone"}
    assert reports[-1].pictures[TAG].title == "Grad-CAM at backbone, epoch 1"


def weighted(output):
    """A score of every class."""
    return (output * torch.arange(1.0, 1 + CLASSES)).sum(1)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("label", lambda logits, labels: labels),
        ("predicted", lambda logits, labels: logits.argmax(1)),
        (3, lambda logits, labels: torch.full_like(labels, 3)),
        (weighted, lambda logits, labels: weighted),
        (f"{__name__}:weighted", lambda logits, labels: weighted),
        (f"{__name__}.weighted", lambda logits, labels: weighted),
    ],
    ids=["label", "predicted", "int", "function", "path", "dotted path"],
)
def test_targets(tmp_path, target, meant):
    probe = make_probe()
    _, models = fit_reports(tmp_path, GradCAM(probe=probe, target=target, on_error="raise"))
    targets = meant(models[-1](probe.inputs), probe.targets)
    assert_maps(tmp_path, grad_cam(models[-1], probe.inputs, targets, layer="backbone"))


class Named(Classifier):
    """Its forward is not the one to explain."""

    def forward(self, image):
        return super().forward(image).log_softmax(1)

    def raw(self, image):
        return super().forward(image)

    def loss(self, batch):
        return nn.functional.nll_loss(self(batch[0]), batch[1])


def raw_and_doubled(model, inputs):
    return 2 * model.raw(inputs)


@pytest.mark.parametrize(
    ("forward", "factor"),
    [
        ("raw", 1),
        (lambda model, inputs: 2 * model.raw(inputs), 2),
        (f"{__name__}:raw_and_doubled", 2),
        (f"{__name__}.raw_and_doubled", 2),
    ],
    ids=["method", "function", "path", "dotted path"],
)
def test_forward_says_how_inputs_become_an_output(tmp_path, forward, factor):
    probe = make_probe()
    _, models = fit_reports(tmp_path, GradCAM(probe=probe, forward=forward, on_error="raise"), Named())
    expected = grad_cam(models[-1], probe.inputs, probe.targets, layer="backbone", forward=models[-1].raw)
    assert_maps(tmp_path, factor * expected)


def test_a_segmentation_output_takes_a_target_of_its_own(tmp_path):
    class Dense(Classifier):
        def forward(self, image):
            return self.backbone(image)[:, :CLASSES]

        def loss(self, batch):
            return nn.functional.cross_entropy(self(batch[0]).mean((2, 3)), batch[1])

    callback = GradCAM(target=lambda output: output[:, 1].mean((1, 2)), layers="backbone.1", on_error="raise")
    reports, _ = fit_reports(tmp_path, callback, Dense())
    grid = reports[-1].pictures["xai/grad_cam/backbone.1"]
    assert grid.maps.max() > 0
    assert not any("pred" in caption for caption in grid.captions)
    draw(grid)
