"""A family closes one of the two methods: what a method of five lines logs."""

from dataclasses import dataclass

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_xai import load_run
from lightning_xai.callbacks import Features, Values
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Scalar
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.events import events
from tests.support.training import trainer


@dataclass(eq=False, kw_only=True)
class Margin(Values):
    title = "Margin"
    scalars = (Scalar("margin", "distance to the second class, in logits"),)

    def values(self, run, probe):
        first, second = run.on_probe(probe.inputs).topk(2).values.T
        return {"margin": first - second}


@dataclass(eq=False, kw_only=True)
class Colours(Features):
    title, band = "Colours", "noise"
    scalars = (
        Scalar("{colour}", "how much it counts", "low", "high", chart="colours"),
        Scalar("low", "lower end of noise"),
        Scalar("high", "upper end of noise"),
    )

    def things(self, probe):
        return {"colour": ["red", "green", "blue"]}

    def measure(self, run, probe):
        without = [run(probe.inputs * (torch.arange(3) != channel).view(3, 1, 1)) for channel in range(3)]
        return Measured({"drops": torch.stack([run.on_probe(probe.inputs) - output for output in without], 1).sum(2)})

    def weights(self, probe, reading):
        weights = reading.measured.rows["drops"].mean(0).tolist()
        return {**dict(zip(("red", "green", "blue"), weights, strict=True)), "low": -0.05, "high": 0.05}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, callbacks = tmp_path_factory.mktemp("families"), [Margin(probe_size=12, batch_size=5), Colours()]
    logger = TensorBoardLogger(folder, name=None, version="")
    fit = trainer(folder, *callbacks, max_epochs=3, logger=logger)
    model = classifier()
    fit.fit(model, loader(), loader())
    return folder, callbacks, model, fit


def test_values_are_logged_as_their_mean(run):
    folder, (margin, _), model, _ = run
    first, second = model.eval()(margin.explained.inputs).detach().topk(2).values.T
    *_, logged = events(folder)[0]["xai/margin/margin"].values()
    assert logged == pytest.approx(float((first - second).mean()), rel=1e-5)


def test_values_of_every_sample_and_reading_are_there(run):
    folder, (margin, _), model, _ = run
    readings = load_run(folder).readings["margin"]
    assert [reading.measured.kept["margin"].shape for reading in readings] == [(12,)] * 3
    first, second = model.eval()(margin.explained.inputs).detach().topk(2).values.T
    torch.testing.assert_close(readings[-1].measured.kept["margin"], first - second)


def test_values_are_drawn_with_their_quartiles(run):
    _, (margin, _), _, _ = run
    history = margin.state.history.readings
    (picture,) = margin.report(margin.explained, history).pictures.values()
    (curve,) = picture.panels["margin"]
    values = torch.stack([reading.measured.kept["margin"] for reading in history])
    for drawn, quantile in ((curve.lower, 0.25), (curve.y, 0.5), (curve.upper, 0.75)):
        assert drawn == pytest.approx(values.quantile(quantile, 1).tolist(), rel=1e-5)


def test_weights_are_logged_and_drawn_hollow_inside_their_band(run):
    _, (_, colours), _, fit = run
    report = colours.report(colours.explained, colours.state.history.readings)
    (picture,) = report.pictures.values()
    assert [curve.name for curve in picture.panels["colours/colours"]] == ["red", "green", "blue"]
    for curve in picture.panels["colours/colours"]:
        assert curve.y[-1] == pytest.approx(float(fit.callback_metrics[f"xai/colours/{curve.name}"]), rel=1e-3)
        assert curve.solid == [abs(value) > 0.05 for value in curve.y]
        assert curve.lower == [-0.05] * 3
    assert picture.band == "noise"


def test_both_are_pictures_in_tensorboard(run):
    folder, *_ = run
    _, images = events(folder)
    assert set(images) == {"xai/margin/values", "xai/colours/weights"}


def test_a_chart_without_scalars_is_none():
    colours = Colours()
    reading = Reading(0, 1, Measured({"drops": torch.ones(2, 3)}))
    assert colours.curves(None, [reading]) == {}
