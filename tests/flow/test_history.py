"""What a run keeps of its readings, and what a method from outside may return."""

from dataclasses import dataclass

import pytest
import pytorch_lightning as pl
import torch

from lightning_xai import GradCAM, Saliency, load_run
from lightning_xai.callbacks import Explanation
from lightning_xai.reading import Measured
from lightning_xai.report import Report
from tests.support.classifier import Classifier, classifier
from tests.support.data import loader
from tests.support.recorder import assert_same, recording
from tests.support.training import NoPictures, trainer


@dataclass(eq=False, kw_only=True)
class Careless(Explanation):
    """Numbers of each sample, of a shape and a kind that a test asks for."""

    numbers: int = 1
    whole: bool = False

    scalars = ()

    def measure(self, run, probe):
        output = run.on_probe(probe.inputs)
        rows = {"logits": output.sum() if self.whole else output}
        return Measured(rows, {}, {"first": torch.ones(len(probe), self.numbers)})

    def report(self, probe, history):
        mean = float(history[-1].measured.rows["logits"].mean())
        self.seen = [reading.measured for reading in history]
        return Report(history[-1].epoch, {f"{self.tag}/mean": mean})


def fit(folder, callback, **settings):
    run = trainer(folder, callback, logger=NoPictures(), **settings)
    run.fit(classifier(), loader(), loader(8, seed=1))
    return run


def test_measure_and_report_are_enough(tmp_path):
    callback = Careless(on_error="raise", batch_size=3)
    run = fit(tmp_path, callback)
    assert callback.method == "careless"
    mean = float(callback.seen[-1].rows["logits"].mean())
    assert float(run.callback_metrics["xai/careless/mean"]) == pytest.approx(mean, rel=1e-3)
    assert callback.seen[-1].rows["prediction"].tolist() == callback.seen[-1].rows["logits"].argmax(1).tolist()


def test_what_is_kept_is_small(tmp_path):
    # 8 bytes are the flow's own: the prediction and the label's probability
    fit(tmp_path, Careless(numbers=14, on_error="raise"))
    with pytest.raises(ValueError, match=r"Careless keeps 68 bytes a sample .*64 at most.*return the rest as rows"):
        fit(tmp_path, Careless(numbers=15, on_error="raise"))
    with pytest.warns(RuntimeWarning, match="keeps 68 bytes a sample"):
        assert_same(recording(tmp_path), recording(tmp_path, Careless(numbers=15)))


def test_rows_are_of_the_samples(tmp_path):
    with pytest.raises(ValueError, match=r"'logits' of shape \(\) of 8 samples.*belongs to prepare\(\)"):
        fit(tmp_path, Careless(whole=True, on_error="raise"))


def test_each_reading_keeps_a_little_and_sixteen_keep_rows(tmp_path):
    mine = Careless(on_error="raise", probe_size=4)
    others = [Saliency(probe_size=4, on_error="raise"), GradCAM(probe_size=4, on_error="raise")]
    run = trainer(tmp_path, mine, *others, logger=NoPictures(), max_epochs=40)
    run.fit(classifier(), loader(4), loader(4, seed=1))
    for callback in (mine, *others):
        measured = [reading.measured for reading in callback.state.history.readings]
        assert len(measured) == 40
        assert all({"prediction", "probability"} <= m.kept.keys() for m in measured)
        assert sum(bool(m.rows) for m in measured) == 16
        assert measured[0].rows and measured[-1].rows
    assert all("first" in m.kept for m in mine.seen)
    assert sum(bool(m.rows) for m in mine.seen) in (16, 17)  # this reading's own among them
    assert all("peak/input" in reading.measured.kept for reading in others[0].state.history.readings)


# ------------------------------------------------------------ readings of one step


class Uncounted(Classifier):
    """Steps with an optimizer that Lightning does not wrap, so that no step is counted."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


class Copies(pl.Callback):
    """The maps of each reading when it is taken."""

    def __init__(self, callback):
        self.callback, self.maps = callback, []

    def on_validation_epoch_end(self, trainer, pl_module):
        readings = self.callback.state.history.readings
        if len(readings) > len(self.maps):
            self.maps.append(readings[-1].measured.rows["maps/input"].clone())


@pytest.mark.parametrize(
    ("make", "schedule", "settings", "count"),
    [
        (Uncounted, {}, {"max_epochs": 3}, 3),
        (
            Classifier,
            {"every_n_validations": 1},
            {"max_epochs": 1, "accumulate_grad_batches": 4, "val_check_interval": 2},
            4,
        ),
    ],
    ids=["steps that are not counted", "several within one step"],
)
def test_readings_of_one_step_overwrite_nothing(tmp_path, make, schedule, settings, count):
    callback = Saliency(probe_size=4, on_error="raise", **schedule)
    copies = Copies(callback)
    pl.seed_everything(0, verbose=False)
    run = trainer(tmp_path, callback, copies, logger=NoPictures(), num_sanity_val_steps=0, **settings)
    run.fit(make(), loader(32), loader(8, seed=1))
    steps = [step for _, step in callback.state.history.moments]
    assert len(steps) == len(copies.maps) == count and len(set(steps)) < count
    for readings in (callback.state.history.readings, load_run(tmp_path).readings["saliency"]):
        assert [(reading.step, reading.index) for reading in readings] == [
            (step, steps[:place].count(step)) for place, step in enumerate(steps)
        ]
        for reading, maps in zip(readings, copies.maps, strict=True):
            assert torch.equal(reading.measured.rows["maps/input"], maps)
    assert not torch.equal(copies.maps[0], copies.maps[1])
