"""One class for `pytorch_lightning` and `lightning.pytorch`: Trainers, modules, loggers, and either one alone."""

import copy
import pickle
import subprocess
import sys
from importlib import import_module

import pytest

from lightning_xai import GradCAM, load_run
from lightning_xai.flow import namespaces
from tests.support.classifier import classifier, net_of
from tests.support.data import loader
from tests.support.events import events
from tests.support.namespaces import NAMESPACES
from tests.support.training import trainer

DRIFT = "xai/grad_cam/auto/drift"


def fit(lightning, folder, *callbacks, **settings):
    loggers = import_module(f"{lightning.__name__}.loggers")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    fitting = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"logger": loggers.TensorBoardLogger(folder), "enable_checkpointing": False, **quiet, **settings},
    )
    fitting.fit(net_of(lightning)(), loader(8), loader(8, seed=1))
    return fitting


@pytest.fixture(params=NAMESPACES)
def lightning(request):
    return import_module(request.param)


def test_one_class_is_a_callback_of_both():
    for name in NAMESPACES:
        assert isinstance(GradCAM(), import_module(name).Callback)
    assert [namespace.__name__ for namespace in namespaces.NAMESPACES] == sorted(NAMESPACES)


def test_it_logs_to_the_loggers_of_both(lightning, tmp_path):
    callbacks = import_module(f"{lightning.__name__}.callbacks")
    loggers = import_module(f"{lightning.__name__}.loggers")
    two = [loggers.TensorBoardLogger(tmp_path), loggers.CSVLogger(tmp_path / "csv")]
    stop = callbacks.EarlyStopping(DRIFT, patience=10)
    keep = callbacks.ModelCheckpoint(tmp_path / "kept", "{epoch}", monitor=DRIFT)
    callback = GradCAM(probe_size=4, on_error="raise")
    fitting = fit(lightning, tmp_path, stop, keep, callback, logger=two, enable_checkpointing=True)

    assert stop.best_score == keep.best_model_score
    assert 0 < float(fitting.callback_metrics[DRIFT]) < 1
    scalars, images = events(tmp_path)
    assert sorted(scalars[DRIFT]) == sorted(images["xai/grad_cam/auto"]) == [1, 3]
    assert DRIFT in (tmp_path / "csv" / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert [reading.epoch for reading in load_run(tmp_path).readings["grad_cam"]] == [0, 1]
    assert len(list(tmp_path.glob("**/xai/pictures/**/*.png"))) == 4


def test_both_log_the_same(tmp_path):
    logged = []
    for name in NAMESPACES:
        lightning = import_module(name)
        lightning.seed_everything(0, verbose=False)
        fit(lightning, tmp_path / name, GradCAM(probe_size=4))
        logged.append({tag: steps for tag, steps in events(tmp_path / name)[0].items() if tag.startswith("xai/")})
    assert logged[0] == logged[1]
    assert len(logged[0]) == 4


def test_a_checkpoint_of_one_is_resumed_by_the_other(tmp_path):
    one, other = (import_module(name) for name in NAMESPACES)
    first, resumed = GradCAM(probe_size=4), GradCAM(probe_size=4)
    fit(one, tmp_path / "one", first).save_checkpoint(tmp_path / "last.ckpt")
    fitting = other.Trainer(
        accelerator="cpu",
        max_epochs=3,
        default_root_dir=tmp_path / "other",
        callbacks=[resumed],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    fitting.fit(net_of(other)(), loader(8), loader(8, seed=2), ckpt_path=tmp_path / "last.ckpt")
    assert resumed.explained.fingerprint == first.explained.fingerprint
    assert [reading.epoch for reading in load_run(tmp_path / "other").readings["grad_cam"]] == [0, 1, 2]


ALONE = """
import sys
sys.modules[{blocked!r}] = None  # as if it were not installed
sys.path.insert(0, {tests!r})
import torch
import {found} as lightning
from callbacks_alone import fit
from lightning_xai import GradCAM

callback = GradCAM(probe_size=4, on_error="raise")
assert isinstance(callback, lightning.Callback)
print(*fit(lightning, {folder!r}, callback))
assert not [name for name in sys.modules if name.partition(".")[0] == {blocked!r} and sys.modules[name]]
"""


MODULE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def fit(lightning, folder, callback):
    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))

        def forward(self, image):
            return self.net(image)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, callbacks=[callback], **quiet)
    trainer.fit(Net(), DataLoader(TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8) % 2), 4))
    return sorted(name for name in trainer.callback_metrics if name.startswith("xai/"))
"""


@pytest.mark.parametrize(("blocked", "found"), [("lightning", NAMESPACES[0]), ("pytorch_lightning", NAMESPACES[1])])
def test_either_one_is_enough(tmp_path, blocked, found):
    (tmp_path / "callbacks_alone.py").write_text(MODULE)
    script = ALONE.format(blocked=blocked, found=found, tests=str(tmp_path), folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert DRIFT in ended.stdout


@pytest.mark.parametrize("again", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
def test_a_callback_is_copied_and_pickled_before_and_after_a_fit(tmp_path, again):
    def fit(folder, callback):
        trainer(folder, callback).fit(classifier(), loader(8), loader(8, seed=1))

    fresh = again(GradCAM(layers="body.*", probe_size=4, every_n_epochs=2))
    assert (fresh.layers, fresh.probe_size, fresh.every_n_epochs) == ("body.*", 4, 2)
    first = again(GradCAM(probe_size=4, on_error="raise"))
    fit(tmp_path / "first", first)
    second = again(first)
    assert second.explained.fingerprint == first.explained.fingerprint
    assert second.state_key == first.state_key
    fit(tmp_path / "second", second)
    assert [reading.epoch for reading in load_run(tmp_path / "second").readings["grad_cam"]] == [0, 1]
    assert [reading.epoch for reading in load_run(tmp_path / "first").readings["grad_cam"]] == [0, 1]
