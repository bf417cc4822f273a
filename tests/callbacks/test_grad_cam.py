"""What GradCAM logs, against slow recomputations on the weights of each epoch."""

import importlib
import math
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import GradCAM, Probe, load_run
from lightning_xai.functional import grad_cam
from lightning_xai.functional.grad_cam import VARIANTS
from lightning_xai.render import draw
from lightning_xai.report import Filmstrip, Grid, Traces
from tests.support.classifier import Classifier, classifier
from tests.support.data import CLASSES, SIZE, Samples, loader
from tests.support.events import events
from tests.support.fitted import Reports, fit_reports
from tests.support.probes import make_masks, make_probe
from tests.support.training import trainer

TAG = "xai/grad_cam/auto"


# ------------------------------------------------------------ the numbers


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


class Grows(Classifier):
    """Its head, and so its maps, are scaled by the epoch."""

    factors = (1.0, 8.0, 2.0)

    def on_validation_epoch_start(self):
        with torch.no_grad():
            self.head[3].weight.copy_(torch.linspace(-1, 1, CLASSES * 8).view(CLASSES, 8))
            self.head[3].weight.mul_(self.factors[self.current_epoch])


def test_one_colour_scale_is_the_largest_peak_so_far(tmp_path):
    reports, _ = fit_reports(tmp_path, GradCAM(probe=make_probe(), on_error="raise"), Grows(), max_epochs=3)
    peaks = [report.scalars[f"{TAG}/peak"] for report in reports]
    assert peaks[1] > peaks[2] > 0
    for report, scale in zip(reports, [peaks[0], peaks[1], peaks[1]], strict=True):
        assert [picture.scale for picture in report.pictures.values()] == pytest.approx([scale, scale])
        assert {row.heatmap.scale for row in report.tables[f"{TAG}/samples"]} == {report.pictures[TAG].scale}


def test_a_scale_for_each_image_is_left_to_the_drawing(tmp_path):
    reports, _ = fit_reports(tmp_path, GradCAM(probe=make_probe(), scale="image", on_error="raise"))
    assert {picture.scale for report in reports for picture in report.pictures.values()} == {None}


def test_an_all_zero_map_is_counted_and_left_out_of_the_means(tmp_path):
    class Dead(Classifier):
        def on_validation_epoch_start(self):
            with torch.no_grad():
                self.backbone[3].bias.fill_(-1e6)

    callback = GradCAM(probe=make_probe(masks=make_masks()), layers="backbone.4", on_error="raise")
    reports, _ = fit_reports(tmp_path, callback, Dead())
    scalars = reports[-1].scalars
    tag = "xai/grad_cam/backbone.4"
    assert scalars[f"{tag}/zero_maps"] == 4
    assert {name: scalars[f"{tag}/{name}"] for name in ("drift", "peak", "share/object", "pointing/mark")} == {
        "drift": 0,
        "peak": 0,
        "share/object": 0,
        "pointing/mark": 0,
    }


def test_without_validation_the_model_is_still_read_in_eval_mode(tmp_path):
    probe, model = make_probe(), classifier(dropout=0.9)
    trainer(tmp_path, GradCAM(probe=probe, on_error="raise")).fit(model, loader())
    assert model.training
    assert_maps(tmp_path, textbook_maps(model.eval(), probe.inputs, probe.targets))


# ------------------------------------------------------------ report


def described(report):
    """A report as plain values."""
    pictures = {
        tag: (type(picture), picture.images, picture.maps, tuple(picture.captions), picture.scale, picture.title)
        for tag, picture in report.pictures.items()
    }
    rows = [(r.sample_id, r.label, r.prediction, r.confidence) for table in report.tables.values() for r in table]
    return report.epoch, dict(report.scalars), pictures, rows


def assert_same_report(one, other, rounding=0.0):
    (epoch, scalars, pictures, rows), (epoch_b, scalars_b, pictures_b, rows_b) = described(one), described(other)
    assert (epoch, rows) == (epoch_b, rows_b)
    assert scalars == pytest.approx(scalars_b, abs=2 * rounding, rel=rounding)
    assert pictures.keys() == pictures_b.keys()
    for tag, (kind, images, maps, captions, scale, title) in pictures.items():
        kind_b, images_b, maps_b, captions_b, scale_b, title_b = pictures_b[tag]
        assert (kind, captions, title) == (kind_b, captions_b, title_b)
        assert scale == pytest.approx(scale_b, rel=rounding)
        assert torch.equal(images, images_b)
        torch.testing.assert_close(maps, maps_b, atol=rounding * float(maps_b.max()), rtol=0)


def test_the_report_depends_on_its_arguments_alone(tmp_path):
    callback = GradCAM(probe=make_probe(masks=make_masks()), on_error="raise")
    fit_reports(tmp_path, callback, max_epochs=3)
    history = load_run(tmp_path).readings["grad_cam"]
    before = [reading.measured.rows["maps/auto"].clone() for reading in history]
    rng = torch.get_rng_state()
    one = callback.report(callback.explained, history)
    other = callback.report(callback.explained, history)
    assert_same_report(one, other)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(a, b.measured.rows["maps/auto"]) for a, b in zip(before, history, strict=True))


def test_the_stored_run_gives_the_reports_that_were_logged(tmp_path):
    callback = GradCAM(
        probe=make_probe(masks=make_masks()),
        layers=["backbone.1", "backbone.4"],
        target=weighted,
        name="mine",
        on_error="raise",
    )
    reports, _ = fit_reports(tmp_path, callback, max_epochs=3)
    run = load_run(tmp_path)
    entry, history = run.callbacks["mine"], run.readings["mine"]
    module, _, name = entry["class"].partition(":")
    again = getattr(importlib.import_module(module), name)(**entry["settings"])
    again.layer_names = entry["layers"]
    assert again.target is weighted
    for index, report in enumerate(reports):
        readings = history[: index + 1]
        assert_same_report(again.report(run.probes["mine"], readings), report, rounding=1e-3)


def test_the_filmstrip_holds_every_reading(tmp_path):
    reports, _ = fit_reports(tmp_path, GradCAM(probe=make_probe(), every_n_epochs=2, on_error="raise"), max_epochs=5)
    strip = reports[-1].pictures[f"{TAG}/filmstrip"]
    assert isinstance(strip, Filmstrip)
    assert list(strip.columns) == ["epoch 0", "epoch 1", "epoch 3", "epoch 4"]
    assert strip.maps.shape == (4, 4, 4, 4)
    assert torch.equal(strip.maps[:, -1], reports[-1].pictures[TAG].maps)


def test_a_long_filmstrip_keeps_the_first_and_the_latest(tmp_path):
    reports, _ = fit_reports(tmp_path, GradCAM(probe=make_probe(2), on_error="raise"), train=loader(4), max_epochs=20)
    columns = list(reports[-1].pictures[f"{TAG}/filmstrip"].columns)
    assert len(columns) == 16
    assert (columns[0], columns[-1]) == ("epoch 0", "epoch 19")


# ------------------------------------------------------------ layers, variants, targets, forward


def maps_in_store(folder, name="grad_cam", layer="auto"):
    """The maps of the latest reading."""
    return load_run(folder).readings[name][-1].measured.rows[f"maps/{layer}"]


def assert_maps(folder, expected, **where):
    assert expected.max() > 0
    torch.testing.assert_close(maps_in_store(folder, **where), expected, atol=1e-3 * float(expected.max()), rtol=0)


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


# ------------------------------------------------------------ the samples


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


def test_captions_name_label_prediction_and_probability(tmp_path):
    names = ["ant", "bee", "cat", "dog"]
    callback = GradCAM(probe_size=4, on_error="raise")
    data = DataLoader(Samples(8, seed=1, classes=names), 4)
    reports, models = fit_reports(tmp_path, callback, validation=data)
    explained = callback.explained
    for n, caption in enumerate(reports[-1].pictures[TAG].captions):
        probability, prediction = models[-1](explained.inputs)[n].softmax(0).max(0)
        assert caption == f"label {names[explained.targets[n]]}\npred {names[prediction]} {probability.item():.0%}"


def test_given_class_names_win_over_those_of_the_dataset(tmp_path):
    callback = GradCAM(probe_size=4, class_names=["w", "x", "y", "z"], on_error="raise")
    fit_reports(tmp_path, callback, validation=DataLoader(Samples(8, classes=["a", "b", "c", "d"]), 4))
    assert callback.explained.class_names == ["w", "x", "y", "z"]


def test_the_display_undoes_the_normalisation(tmp_path):
    pixels = torch.rand(4, 3, SIZE, SIZE)
    callback = GradCAM(probe=Probe((pixels - 0.4) / 0.2), mean=[0.4] * 3, std=[0.2] * 3, on_error="raise")
    reports, _ = fit_reports(tmp_path, callback)
    shown = reports[-1].pictures[TAG].images.float() / 255
    torch.testing.assert_close(shown, pixels.permute(0, 2, 3, 1), atol=1 / 255, rtol=0)


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


# ------------------------------------------------------------ other shapes of input


class Shaped(Classifier):
    """The same net over 1 or 3 dimensions."""

    def __init__(self, dimensions):
        super().__init__()
        conv, pool = {
            1: (nn.Conv1d, nn.AdaptiveAvgPool1d),
            3: (nn.Conv3d, nn.AdaptiveAvgPool3d),
        }[dimensions]
        self.backbone = nn.Sequential(conv(1, 6, 3, 2, 1), nn.ReLU(inplace=True), conv(6, 8, 3, 2, 1), nn.ReLU())
        self.head[0] = pool(1)


@pytest.mark.parametrize(("dimensions", "size", "maps"), [(1, (64,), (16,)), (3, (8, 12, 16), (2, 3, 4))])
def test_signals_and_volumes_give_pictures(tmp_path, dimensions, size, maps):
    inputs, labels = torch.rand(8, 1, *size), torch.arange(8) % CLASSES
    data = DataLoader(TensorDataset(inputs, labels), 4)
    logger = Reports()
    callback = GradCAM(probe_size=4, on_error="raise")
    trainer(tmp_path, callback, logger=logger).fit(Shaped(dimensions), data, data)
    assert maps_in_store(tmp_path).shape == (4, *maps)
    pictures = logger.reports[-1].pictures
    assert type(pictures[TAG]) is {1: Traces, 3: Grid}[dimensions]
    for picture in pictures.values():
        drawn = draw(picture)
        assert drawn.dtype == torch.uint8
        assert drawn.shape[2] == 3
    assert all(math.isfinite(value) for value in logger.reports[-1].scalars.values())


def test_of_a_volume_the_slice_with_the_most_relevance_is_shown(tmp_path):
    inputs, labels = torch.rand(4, 1, 8, 12, 16), torch.arange(4)
    logger = Reports()
    callback = GradCAM(probe=Probe(inputs, labels), on_error="raise")
    data = DataLoader(TensorDataset(inputs, labels), 4)
    trainer(tmp_path, callback, logger=logger).fit(Shaped(3), data, data)
    volume, grid = maps_in_store(tmp_path), logger.reports[-1].pictures[TAG]
    for n in range(4):
        best = max(range(2), key=lambda depth: volume[n, depth].sum())
        torch.testing.assert_close(grid.maps[n], volume[n, best], atol=1e-3, rtol=0)
        # depth 2 of the maps stands for depth 8 of the volume
        plane = (inputs[n, 0, 2 + 4 * best] * 255).round().to(torch.uint8)
        assert torch.equal(grid.images[n, ..., 0], plane)
