"""What the callbacks with a map a sample draw: their scale, their history, captions and other shapes of input."""

import importlib
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import GradCAM, Probe, load_run
from lightning_xai.render import draw
from lightning_xai.report import Filmstrip, Grid, Traces
from tests.support.classifier import Classifier
from tests.support.data import CLASSES, SIZE, Samples, loader
from tests.support.fitted import Reports, fit_reports, maps_in_store
from tests.support.probes import make_masks, make_probe
from tests.support.training import trainer

TAG = "xai/grad_cam/auto"


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


def weighted(output):
    """A score of every class."""
    return (output * torch.arange(1.0, 1 + CLASSES)).sum(1)


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
