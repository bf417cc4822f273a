"""Files and checkpoints that are damaged cost what they hold, and never the run."""

import json
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_xai import GradCAM, load_run
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.training import NoPictures, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
NAME = "grad_cam"


def run(folder, callback, *others, max_epochs=2, ckpt_path=None, val=None):
    checkpoints = ModelCheckpoint(folder / "checkpoints", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    settings = {"logger": NoPictures(folder, "0"), "max_epochs": max_epochs, "enable_checkpointing": True}
    fitting = trainer(folder, callback, *others, checkpoints, **settings)
    fitting.fit(classifier(), loader(), val or loader(8, seed=1), ckpt_path=ckpt_path)
    return fitting


def cam():
    return GradCAM(probe_size=4, layers="backbone.3")


def told(caught):
    return [str(w.message) for w in caught if w.category is RuntimeWarning]


def epochs(readings):
    return [reading.epoch for reading in readings]


MANIFESTS = {
    "cut short": lambda text: text[:40],
    "empty": lambda text: "",
    "newer": lambda text: json.dumps({**json.loads(text), "format": 99}),
    "a list": lambda text: "[]",
    "no callbacks": lambda text: '{"format": 1}',
    "callbacks in a list": lambda text: '{"format": 1, "callbacks": []}',
}


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("harm", MANIFESTS.values(), ids=MANIFESTS)
def test_a_damaged_manifest_is_set_aside_with_its_readings(tmp_path, harm, resumes):
    first = cam()
    run(tmp_path, first)
    path = tmp_path / "0" / "xai" / "manifest.json"
    harmed = harm(path.read_text())
    path.write_text(harmed)
    again = cam()
    with pytest.warns(RuntimeWarning) as caught:
        run(tmp_path, again, max_epochs=3, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt" if resumes else None)
    (said,) = told(caught)
    assert "manifest.json" in said and "xai-before-1" in said
    # what the checkpoint holds of the readings is in the new store
    assert epochs(load_run(tmp_path / "0" / "xai").readings[NAME]) == epochs(again.state.history.readings) == [0, 1, 2]
    aside = tmp_path / "0" / "xai-before-1"
    assert (aside / "manifest.json").read_text() == harmed and len(list((aside / NAME).iterdir())) == 2
    if resumes:
        assert again.explained.fingerprint == first.explained.fingerprint


def test_a_validation_leaves_a_damaged_store_where_it_is(tmp_path):
    run(tmp_path, cam())
    path = tmp_path / "0" / "xai" / "manifest.json"
    path.write_text("{")
    with pytest.warns(RuntimeWarning, match="so the readings go to"):
        trainer(tmp_path, cam(), logger=NoPictures(tmp_path, "0")).validate(
            classifier(), loader(8, seed=1), verbose=False
        )
    assert path.read_text() == "{" and len(list(tmp_path.glob("xai/version_0/*/validate-*.npz"))) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def folder(path):
    path.unlink()
    path.mkdir()


def newer(path):
    torch.save({"format": 99}, path)


class Harm(pl.Callback):
    """Damages the first reading when an epoch begins."""

    def __init__(self, root, harm, epoch=1):
        self.root, self.harm, self.epoch = root, harm, epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.harm(self.root / "0" / "xai" / NAME / "3-0.npz")


def state_in(path):
    (state,) = (state for key, state in torch.load(path)["callbacks"].items() if "GradCAM" in key)
    return state


@pytest.mark.parametrize("harm", [cut, folder, newer])
def test_a_reading_that_is_damaged_while_training_costs_the_run_nothing(tmp_path, harm):
    callback = cam()
    run(tmp_path, callback, Harm(tmp_path, harm), max_epochs=4)
    assert epochs(callback.state.history.readings) == [0, 1, 2, 3]
    state = state_in(tmp_path / "checkpoints" / "epoch=3.ckpt")
    assert [reading["epoch"] for reading in state["history"]["readings"]] == [0, 1, 2, 3]
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert epochs(load_run(tmp_path / "0").readings[NAME]) == [1, 2, 3]


@pytest.mark.parametrize("harm", [cut, folder, newer])
def test_a_damaged_reading_is_made_whole_by_the_checkpoint(tmp_path, harm):
    run(tmp_path, cam())
    path = tmp_path / "0" / "xai" / NAME / "3-0.npz"
    harm(path)
    again = cam()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path, again, max_epochs=3, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert any("3-0.npz cannot be read" in text for text in told(caught))
    assert epochs(again.state.history.readings) == [0, 1, 2]


def test_a_state_that_cannot_be_made_leaves_a_checkpoint(tmp_path):
    callback = cam()
    run(tmp_path, callback)

    class Broken:
        def __getattr__(self, name):
            raise ArithmeticError("no state")

    callback.state.probe = Broken()
    with pytest.warns(RuntimeWarning, match="the checkpoint holds nothing of it"):
        assert callback.state_dict() == {}


STATES = {
    "a list": [1, 2],
    "text": "state",
    "a number": 3,
    "other keys": {"a": 1},
    "no history": {"fingerprint": "f", "probe": None, "history": None, "validations": 0, "logged": {}},
    "moments of text": {
        "fingerprint": "f",
        "probe": None,
        "history": {"store": None, "moments": ["ab"], "readings": []},
        "validations": 0,
        "logged": {},
    },
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_state_of_another_shape_starts_anew(tmp_path, state):
    run(tmp_path, cam())
    path = tmp_path / "checkpoints" / "epoch=1.ckpt"
    held = torch.load(path)
    held["callbacks"] = {key: state if "GradCAM" in key else value for key, value in held["callbacks"].items()}
    torch.save(held, path)
    again = cam()
    with pytest.warns(RuntimeWarning, match="cannot be read, so it starts anew"):
        run(tmp_path, again, max_epochs=3, ckpt_path=path)
    assert epochs(again.state.history.readings) == [2]
    assert epochs(load_run(tmp_path / "0" / "xai-before-1").readings[NAME]) == [0, 1]


def test_an_empty_state_starts_anew_without_a_word(tmp_path):
    callback = cam()
    callback.load_state_dict({})
    run(tmp_path, callback)
    assert epochs(callback.state.history.readings) == [0, 1]


@pytest.mark.parametrize("part", ["probe", "reading"])
def test_parts_of_a_state_that_are_damaged_are_taken_from_the_store(tmp_path, part):
    first = cam()
    run(tmp_path, first)
    path = tmp_path / "checkpoints" / "epoch=1.ckpt"
    held = torch.load(path)
    (state,) = (s for key, s in held["callbacks"].items() if "GradCAM" in key)
    if part == "probe":
        state["probe"] = {"inputs": "none"}
    else:
        state["history"]["readings"][0] = {"epoch": 0}
    torch.save(held, path)
    again = cam()
    with pytest.warns(RuntimeWarning, match="could not be taken over whole"):
        run(tmp_path, again, max_epochs=3, ckpt_path=path, val=loader(8, seed=2))
    assert again.explained.fingerprint == first.explained.fingerprint
    assert epochs(again.state.history.readings) == [0, 1, 2]
