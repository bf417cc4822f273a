"""What Lightning keeps private is still there, and means what we take it for."""

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from lightning_xai.foreign import lightning as private


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.steps = []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("seen", 1.0)

    def on_validation_epoch_end(self):
        self.steps.append(private.logged_step(self.trainer))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch + 1


def trainer(tmp_path, **settings):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
    }
    return Trainer(default_root_dir=tmp_path, max_epochs=2, accelerator="cpu", **{"logger": False, **quiet, **settings})


def loader():
    return DataLoader(torch.ones(6, 2), batch_size=2)


def test_the_logged_step_is_the_one_in_the_logger(tmp_path):
    logged = []

    class Watching(TensorBoardLogger):
        def log_metrics(self, metrics, step=None):
            logged.extend([step] if "seen" in metrics else [])
            super().log_metrics(metrics, step)

    net = Net()
    trainer(tmp_path, logger=Watching(tmp_path), num_sanity_val_steps=0).fit(net, loader(), loader())
    assert logged == net.steps == [2, 5]


def test_min_epochs_keep_a_run_from_stopping_early(tmp_path):
    run = trainer(tmp_path, min_epochs=2)
    run.fit(Net(), loader())
    assert private.can_stop_early(run)
    run.fit_loop.epoch_progress.current.processed = 1
    assert not private.can_stop_early(run)


def test_durations_between_validations_are_known(tmp_path):
    run = trainer(tmp_path)
    run.fit(Net(), loader(), loader())
    assert not private.validates_by_time(run)
    run._val_check_time_interval = 60.0
    assert private.validates_by_time(run)


@pytest.mark.parametrize("by_epoch", [True, False])
def test_when_monitors_look(tmp_path, by_epoch):
    stopping = EarlyStopping("seen", check_on_train_epoch_end=by_epoch)
    saving = ModelCheckpoint(tmp_path, monitor="seen", save_on_train_epoch_end=by_epoch)
    assert [private.looks_at_epoch_end(callback) for callback in (stopping, saving)] == [by_epoch] * 2


def test_the_prefix_of_a_logger(tmp_path):
    assert private.prefix_of(TensorBoardLogger(tmp_path, prefix="a")) == "a"
    assert private.prefix_of(object()) == ""


def test_a_twin_of_a_trainer_has_another_strategy_and_runs_another_model(tmp_path):
    net, other = Net(), Net()
    run = trainer(tmp_path, logger=TensorBoardLogger(tmp_path))
    run.fit(net, loader())
    strategy = private.twin(run.strategy)
    made = private.trainer_twin(run, strategy, [])
    private.give_model(made, other, None)
    assert (made.strategy, made.loggers, made.lightning_module) == (strategy, [], other)
    assert run.strategy is not strategy and run.loggers and run.lightning_module is net
    other.__dict__["_trainer"] = made
    assert private.before_transfer(other, torch.zeros(1)).item() == 1


def test_a_module_without_a_trainer_is_known(tmp_path):
    net = Net()
    assert not private.is_attached(net)
    net.trainer = trainer(tmp_path)
    assert private.is_attached(net)
