"""Our scalars are ordinary metrics: EarlyStopping, ModelCheckpoint and learning-rate schedulers act on them."""

import logging

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_xai import GradCAM
from tests.support.classifier import Classifier, classifier
from tests.support.data import loader
from tests.support.events import events
from tests.support.messages import lines_with
from tests.support.probes import probe_with_rows
from tests.support.training import NoPictures, trainer

DRIFT, SHARE = "xai/grad_cam/auto/drift", "xai/grad_cam/auto/share/row"
STALE = "reads whenever it looks"


class Scripted(GradCAM):
    """Reads as ever, but says what the test wants: the n-th reading's drift is the n-th of the values."""

    values = (0.9, 0.5, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1)

    def report(self, probe, history):
        found = super().report(probe, history)
        return type(found)(found.epoch, {**found.scalars, DRIFT: self.values[len(history) - 1]}, found.pictures)

    @property
    def epochs(self):
        return [epoch for epoch, _ in self.state.history.moments]


class Failing(Scripted):
    """Fails in one epoch."""

    fails_in = 0
    now = -1

    def on_train_epoch_start(self, trainer, pl_module):
        self.now = trainer.current_epoch

    def measure(self, run, probe):
        if self.now == self.fails_in:
            raise ArithmeticError("the map came out upside down")
        return super().measure(run, probe)


def stopping(monitor=DRIFT, **settings):
    return EarlyStopping(monitor, **{"mode": "min", "patience": 2, **settings})


def fit(folder, *callbacks, model=None, validation=True, **settings):
    # monitors first: the order in the list must not matter
    quick = {"max_epochs": 8, "num_sanity_val_steps": 0, "logger": NoPictures()}
    fitting = trainer(folder, *callbacks, **{**quick, **settings})
    fitting.fit(model or classifier(), loader(8), loader(8, seed=1) if validation else None)
    return fitting


@pytest.mark.parametrize(
    ("settings", "stopped_after"),
    [
        ({}, 3),
        ({"val_check_interval": 0.5}, 1),
        ({"check_val_every_n_epoch": 2}, 7),
        ({"validation": False}, 3),
        ({"limit_val_batches": 0}, 3),
    ],
)
@pytest.mark.parametrize("schedule", [{}, {"every_n_epochs": 5}, {"every_n_validations": 3}])
def test_early_stopping_counts_every_look_once(tmp_path, caplog, settings, stopped_after, schedule):
    caplog.set_level(logging.INFO)
    callback = Scripted(probe_size=4, **schedule)
    fitting = fit(tmp_path, stopping(), callback, **settings)
    assert fitting.current_epoch - 1 == stopped_after
    assert len(callback.epochs) == 4
    assert len(set(callback.state.history.moments)) == 4
    said = lines_with(caplog, STALE)
    assert len(said) == bool(schedule)
    assert all(f"EarlyStopping monitors '{DRIFT}'" in text for text in said)


def test_a_sparse_schedule_without_a_monitor_stays_sparse(tmp_path):
    callback = Scripted(probe_size=4, every_n_epochs=3)
    fit(tmp_path, callback, EarlyStopping("val_loss", patience=100))
    assert callback.epochs == [0, 2, 5, 7]


def test_reaching_a_threshold_stops_the_run(tmp_path):
    callback = Scripted(probe_size=4)
    fitting = fit(tmp_path, callback, stopping(patience=100, stopping_threshold=0.2))
    assert callback.epochs == [0, 1, 2, 3, 4]
    assert fitting.current_epoch == 5


def test_a_monitor_at_the_end_of_epochs_that_have_no_validation_is_served(tmp_path):
    callback = Scripted(probe=probe_with_rows())
    fitting = fit(tmp_path, stopping(check_on_train_epoch_end=True), callback, check_val_every_n_epoch=2)
    assert callback.epochs == [0, 1, 2, 3]
    assert fitting.current_epoch == 4


@pytest.mark.parametrize("settings", [{}, {"val_check_interval": 0.5}, {"validation": False}])
def test_the_best_checkpoint_is_the_one_of_the_best_value(tmp_path, settings):
    keep = ModelCheckpoint(tmp_path / "checkpoints", "{step}", monitor=SHARE, mode="max", save_top_k=2)
    callback = GradCAM(probe=probe_with_rows(), on_error="raise")
    board = TensorBoardLogger(tmp_path)
    fit(tmp_path, keep, callback, logger=board, enable_checkpointing=True, max_epochs=5, **settings)
    logged = events(tmp_path)[0][SHARE]
    assert len(logged) == (10 if "val_check_interval" in settings else 5)
    best = sorted(logged.values())[-2:]
    assert len(set(logged.values())) > 2
    assert sorted(float(value) for value in keep.best_k_models.values()) == pytest.approx(best)
    assert float(keep.best_model_score) == pytest.approx(best[-1])
    (step,) = (step for step, value in logged.items() if value == best[-1])
    assert f"step={step + 1}.ckpt" in keep.best_model_path


class Plateau(Classifier):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 1.0)
        scheduler = ReduceLROnPlateau(optimizer, mode="min", patience=1, factor=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": DRIFT}}


@pytest.mark.parametrize("validation", [True, False])
def test_a_scheduler_on_a_plateau_reduces_the_rate_in_the_right_epoch(tmp_path, caplog, validation):
    caplog.set_level(logging.INFO)

    class Rates(Callback):
        seen = ()

        def on_train_epoch_start(self, trainer, pl_module):
            self.seen = (*self.seen, trainer.optimizers[0].param_groups[0]["lr"])

    rates = Rates()
    callback = Scripted(probe_size=4, every_n_epochs=4)
    fit(tmp_path, rates, callback, model=Plateau(), max_epochs=6, validation=validation)
    # 0.9, 0.5, then two that are not better
    assert rates.seen == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.1, 0.1])
    assert callback.epochs == [0, 1, 2, 3, 4, 5]
    assert caplog.text.count(f"ReduceLROnPlateau monitors '{DRIFT}'") == 1


def test_a_first_reading_that_fails_names_the_monitor(tmp_path):
    expected = f"EarlyStopping monitors '{DRIFT}', but the first reading of Failing failed: the map came out upside"
    with pytest.raises(RuntimeError, match=expected) as caught:
        fit(tmp_path, stopping(), Failing(probe_size=4))
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_a_first_reading_that_fails_unwatched_costs_no_run(tmp_path):
    callback = Failing(probe_size=4)
    with pytest.warns(RuntimeWarning, match="the reading of epoch 0 failed. ArithmeticError: the map came out"):
        fitting = fit(tmp_path, callback, max_epochs=3)
    assert fitting.current_epoch == 3
    assert callback.epochs == [1, 2]


@pytest.mark.parametrize("validation", [True, False])
def test_a_later_failure_logs_the_last_value_again(tmp_path, validation):
    callback = Failing(probe_size=4)
    callback.fails_in = 2
    with pytest.warns(RuntimeWarning, match="the reading of epoch 2 failed; the last values are logged again"):
        board = TensorBoardLogger(tmp_path)
        fitting = fit(tmp_path, stopping(patience=3), callback, logger=board, validation=validation, max_epochs=4)
    assert fitting.current_epoch == 4
    assert callback.epochs == [0, 1, 3]
    assert [value for _, value in sorted(events(tmp_path)[0][DRIFT].items())] == pytest.approx([0.9, 0.5, 0.5, 0.6])


@pytest.mark.parametrize("wrong", ["xai/grad_cam/auto/drfit", "xai/gradcam/auto/drift", SHARE])
@pytest.mark.parametrize("monitor", [stopping, ModelCheckpoint])
def test_a_misspelt_monitor_is_answered_before_the_first_step(tmp_path, wrong, monitor):
    class NoStep(Classifier):
        def training_step(self, batch, batch_idx):
            raise AssertionError("trained")

    with pytest.raises(ValueError, match=f"monitors '{wrong}', which no callback logs. Close: .*{DRIFT}"):
        fit(tmp_path, GradCAM(), monitor(monitor=wrong), model=NoStep(), enable_checkpointing=True)


def test_a_misspelt_monitor_of_a_scheduler_is_answered_too(tmp_path):
    with pytest.raises(ValueError, match=f"ReduceLROnPlateau monitors '{DRIFT}', .* Close: xai/mine/auto/drift"):
        fit(tmp_path, GradCAM(name="mine"), model=Plateau())


def test_monitors_of_other_metrics_are_left_alone(tmp_path):
    assert fit(tmp_path, GradCAM(probe_size=4), stopping("val_loss", patience=5), max_epochs=1).current_epoch == 1
