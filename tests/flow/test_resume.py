"""A run that is stopped and resumed: the same samples, the history from epoch 0, nothing lost, nothing changed."""

import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, Dataset

from lightning_xai import GradCAM, Probe, load_run
from lightning_xai.flow import state as states
from lightning_xai.flow.history import CHECKPOINT_BYTES, READINGS_WITH_ROWS, History
from lightning_xai.reading import Measured, Reading
from lightning_xai.store import RunStore
from tests.support.classifier import Classifier, classifier
from tests.support.data import CLASSES, Samples, loader
from tests.support.messages import lines_with
from tests.support.training import NoPictures, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

NAME, FILMSTRIP = "grad_cam", "xai/grad_cam/auto/filmstrip"
OTHER_SAMPLES = "pictures before and after"


class Watched(GradCAM):
    """Keeps the names of the latest filmstrip's columns."""

    def report(self, probe, history):
        found = super().report(probe, history)
        self.columns = list(found.pictures[FILMSTRIP].columns)
        return found


def epochs(*numbers):
    return [f"epoch {number}" for number in numbers]


def backwards(count=8, seed=1, batch_size=4):
    """The samples of `loader(count, seed=seed)` in another order."""
    samples = Samples(count, seed=seed)
    return DataLoader([samples[index] for index in reversed(range(count))], batch_size)


def run(folder, callback, max_epochs, ckpt_path=None, version=0, train=None, val=None, model=None, **settings):
    """One fit that keeps a checkpoint an epoch in ``folder``; the logger's folder is ``folder/version``."""
    name = f"{version}-{{epoch}}"
    checkpoints = ModelCheckpoint(folder / "checkpoints", name, save_top_k=-1, save_on_train_epoch_end=True)
    callbacks = [checkpoints] if callback is None else [checkpoints, callback]
    told = {
        "max_epochs": max_epochs,
        "logger": NoPictures(folder, str(version)),
        "enable_checkpointing": True,
        **settings,
    }
    fitting = trainer(folder, *callbacks, **told)
    model = model or classifier()
    fitting.fit(model, train or loader(shuffle=True), val or loader(8, seed=1), ckpt_path=ckpt_path)
    return fitting


def checkpoint(folder, epoch, version=0):
    return folder / "checkpoints" / f"{version}-epoch={epoch}.ckpt"


def state_in(path):
    (state,) = (s for key, s in torch.load(path)["callbacks"].items() if "GradCAM" in key or "Watched" in key)
    return state


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def read_epochs(folder):
    return [reading.epoch for reading in load_run(folder).readings[NAME]]


@pytest.mark.parametrize("version", [0, 1])
def test_a_resumed_run_goes_on_with_its_samples_and_its_filmstrip(tmp_path, version):
    first, resumed = Watched(probe_size=4), Watched(probe_size=4)
    run(tmp_path, first, 2)
    before = files(tmp_path / "0" / "xai")
    run(tmp_path, resumed, 4, checkpoint(tmp_path, 1), version, val=backwards())

    assert resumed.explained.fingerprint == first.explained.fingerprint
    assert resumed.columns == epochs(0, 1, 2, 3)
    stored = load_run(tmp_path / str(version))
    assert [reading.epoch for reading in stored.readings[NAME]] == [0, 1, 2, 3]
    assert stored.probes[NAME].fingerprint == first.explained.fingerprint
    after = files(tmp_path / "0" / "xai")
    assert {name: after[name] for name in before if name.endswith(".pt")} == {
        name: content for name, content in before.items() if name.endswith(".pt")
    }
    if version:
        assert after == before


def test_the_order_of_the_data_decides_the_samples_of_a_new_run(tmp_path):
    """Else the same fingerprint after a resume would prove nothing."""
    first, second = GradCAM(probe_size=4), GradCAM(probe_size=4)
    run(tmp_path, first, 1)
    run(tmp_path, second, 1, version=1, val=backwards())
    assert first.explained.fingerprint != second.explained.fingerprint


def test_the_scalars_after_a_resume_are_those_of_a_run_that_never_stopped(tmp_path):
    """Drift needs the last maps before the stop, and the colour scale the largest value so far."""

    def metrics(folder, stop):
        data = {"train": loader(), "model": classifier(dropout=0.0)}
        if stop:
            run(folder, GradCAM(probe_size=4), 1, **data)
            return run(folder, GradCAM(probe_size=4), 2, checkpoint(folder, 0), 1, **data).callback_metrics
        return run(folder, GradCAM(probe_size=4), 2, **data).callback_metrics

    straight, resumed = metrics(tmp_path / "straight", stop=False), metrics(tmp_path / "stopped", stop=True)
    assert straight["xai/grad_cam/auto/drift"] > 0
    assert {k: v for k, v in resumed.items() if "xai" in k} == {k: v for k, v in straight.items() if "xai" in k}


def test_a_changed_schedule_keeps_the_history(tmp_path):
    run(tmp_path, Watched(probe_size=4), 2)
    sparser = Watched(probe_size=4, every_n_epochs=2, on_error="raise")
    run(tmp_path, sparser, 6, checkpoint(tmp_path, 1), 1, val=backwards())
    assert sparser.columns == epochs(0, 1, 3, 5)


def test_the_key_of_the_state_names_what_is_explained_and_no_schedule():
    key = GradCAM().state_key
    schedule = {"every_n_epochs": 5, "every_n_validations": 3, "on_error": "raise", "probe_size": 2}
    assert GradCAM(**schedule).state_key == key
    others = [{"layers": "backbone.0"}, {"variant": "hires_cam"}, {"target": 2}, {"name": "mine"}]
    assert len({key, *(GradCAM(**settings).state_key for settings in others)}) == 5


@pytest.mark.parametrize("version", [0, 1])
def test_the_checkpoint_carries_on_where_the_store_is_gone(tmp_path, version):
    first, resumed = Watched(probe_size=4), Watched(probe_size=4)
    run(tmp_path, first, 2)
    shutil.rmtree(tmp_path / "0" / "xai")
    run(tmp_path, resumed, 3, checkpoint(tmp_path, 1), version, val=backwards())
    assert resumed.columns == epochs(0, 1, 2)
    assert resumed.explained.fingerprint == first.explained.fingerprint
    assert read_epochs(tmp_path / str(version)) == [0, 1, 2]


def test_without_any_logger_a_resume_goes_on_too(tmp_path):
    run(tmp_path, Watched(probe_size=4), 2, logger=False)
    resumed = Watched(probe_size=4)
    run(tmp_path, resumed, 3, checkpoint(tmp_path, 1), logger=False)
    assert resumed.columns == epochs(0, 1, 2)
    assert read_epochs(tmp_path / "xai" / "version_0") == [0, 1]
    assert read_epochs(tmp_path / "xai" / "version_1") == [0, 1, 2]


@pytest.mark.parametrize("version", [0, 1])
def test_readings_of_later_steps_than_the_checkpoint_are_dropped(tmp_path, version):
    run(tmp_path, Watched(probe_size=4), 3)
    resumed = Watched(probe_size=4)
    # two steps an epoch instead of three: steps of the abandoned epochs would stay between the new ones
    run(tmp_path, resumed, 3, checkpoint(tmp_path, 0), version, train=loader(8))
    assert resumed.columns == epochs(0, 1, 2)
    assert [reading.step for reading in load_run(tmp_path / str(version)).readings[NAME]] == [3, 5, 7]
    assert read_epochs(tmp_path / "0") == [0, 1, 2]


def test_a_checkpoint_loads_with_weights_only_and_holds_no_class_of_ours(tmp_path):
    run(tmp_path, GradCAM(probe_size=4), 1)
    state = torch.load(checkpoint(tmp_path, 0), weights_only=True)["callbacks"]
    assert any("GradCAM" in key for key in state)


class Big(Dataset):
    """Samples of 3 MiB each."""

    def __init__(self, offset):
        self.offset = offset

    def __len__(self):
        return 6

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index + self.offset)
        return torch.rand(3, 512, 512, generator=generator), index % CLASSES


def big(offset=0):
    return DataLoader(Big(offset), batch_size=2)


def test_a_probe_over_16_MiB_is_in_the_store_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, resumed = GradCAM(probe_size=6), GradCAM(probe_size=6)
    run(tmp_path, first, 1, train=big(), val=big())
    assert state_in(checkpoint(tmp_path, 0))["probe"] is None
    assert checkpoint(tmp_path, 0).stat().st_size < CHECKPOINT_BYTES
    run(tmp_path, resumed, 2, checkpoint(tmp_path, 0), 1, train=big(), val=big(offset=100))
    assert resumed.explained.fingerprint == first.explained.fingerprint
    assert OTHER_SAMPLES not in caplog.text


@pytest.mark.parametrize("same_data", [True, False])
def test_resumed_without_store_and_probe_it_captures_again_and_says_if_it_differs(
    tmp_path, monkeypatch, caplog, same_data
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(states, "CHECKPOINT_BYTES", 1000)
    first, resumed = Watched(probe_size=4), Watched(probe_size=4)
    run(tmp_path, first, 2)
    shutil.rmtree(tmp_path / "0")
    run(tmp_path, resumed, 3, checkpoint(tmp_path, 1), 1, val=None if same_data else backwards())
    assert (resumed.explained.fingerprint == first.explained.fingerprint) == same_data
    assert resumed.columns == epochs(0, 1, 2)
    said = lines_with(caplog, OTHER_SAMPLES)
    assert len(said) == (0 if same_data else 1)
    assert all("before and after epoch 2 show different samples" in text for text in said)


def test_another_given_probe_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    probes = [Probe.from_dataset(Samples(8, seed=1), indices) for indices in ([0, 1, 2], [3, 4, 5])]
    run(tmp_path, GradCAM(probe=probes[0]), 1)
    run(tmp_path, GradCAM(probe=probes[0]), 2, checkpoint(tmp_path, 0), 1)
    assert OTHER_SAMPLES not in caplog.text
    resumed = GradCAM(probe=probes[1])
    run(tmp_path, resumed, 2, checkpoint(tmp_path, 0), 2)
    assert "another probe is given than before" in caplog.text
    assert resumed.explained.fingerprint == probes[1].fingerprint


def test_a_checkpoint_before_the_probe_is_captured_again_still_holds_the_history(tmp_path, monkeypatch):
    """Resumed without probe and store, and stopped again before the first validation."""
    monkeypatch.setattr(states, "CHECKPOINT_BYTES", 1000)
    first, resumed, again = Watched(probe_size=4), Watched(probe_size=4), Watched(probe_size=4)
    run(tmp_path, first, 2)
    shutil.rmtree(tmp_path / "0")
    run(tmp_path, resumed, 3, checkpoint(tmp_path, 1), 1, check_val_every_n_epoch=10)
    state = state_in(checkpoint(tmp_path, 2, 1))
    assert [epoch for epoch, _ in state["history"]["moments"]][:2] == [0, 1]
    shutil.rmtree(tmp_path / "1")
    run(tmp_path, again, 4, checkpoint(tmp_path, 2, 1), 2)
    assert again.columns[:2] == epochs(0, 1)


def test_a_checkpoint_stays_small_however_long_the_run():
    def kept(readings, cells):
        history = History(NAME, None)
        maps = torch.rand(8, cells)
        history.readings = [Reading(i, i, Measured({"maps/auto": maps})) for i in range(readings)]
        return history.state()["readings"]

    def size(states):
        return sum(2 * state["rows"]["maps/auto"]["values"].numel() for state in states)

    assert [state["epoch"] for state in kept(3, 4)] == [0, 1, 2]
    many = kept(100, 4)
    assert len(many) == READINGS_WITH_ROWS
    assert (many[0]["epoch"], many[-1]["epoch"]) == (0, 99)
    large = kept(10, 2**18)
    assert len(large) == 4
    assert size(large) <= CHECKPOINT_BYTES
    assert kept(2, 2**20 + 1) == []


def test_a_new_run_in_the_folder_of_an_old_one_moves_its_store_aside(tmp_path):
    contents = []
    for _ in range(3):
        run(tmp_path, Watched(probe_size=4), 1)
        contents.append(files(tmp_path / "0" / "xai"))
        assert read_epochs(tmp_path / "0") == [0]
    assert files(tmp_path / "0" / "xai-before-1") == contents[0]
    assert files(tmp_path / "0" / "xai-before-2") == contents[1]


def test_a_callback_used_again_by_another_trainer_starts_anew(tmp_path):
    callback = Watched(probe_size=4, on_error="raise")
    run(tmp_path, callback, 2)
    fingerprint = callback.explained.fingerprint
    run(tmp_path, callback, 1, val=backwards())
    assert callback.columns == epochs(0)
    assert callback.explained.fingerprint != fingerprint


def test_fitting_on_with_the_same_trainer_goes_on(tmp_path):
    callback = Watched(probe_size=4, on_error="raise")
    fitting = run(tmp_path, callback, 2)
    fitting.fit_loop.max_epochs = 4
    fitting.fit(fitting.lightning_module, loader(shuffle=True), backwards())
    assert callback.columns == epochs(0, 1, 2, 3)
    assert read_epochs(tmp_path / "0") == [0, 1, 2, 3]
    assert not (tmp_path / "0" / "xai-before-1").exists()


def test_the_same_trainer_may_go_back_to_an_earlier_checkpoint(tmp_path):
    callback = Watched(probe_size=4, on_error="raise")
    fitting = run(tmp_path, callback, 3)
    fitting.fit(fitting.lightning_module, loader(8), loader(8, seed=1), ckpt_path=checkpoint(tmp_path, 0))
    assert callback.columns == epochs(0, 1, 2)
    assert [reading.step for reading in load_run(tmp_path / "0").readings[NAME]] == [3, 5, 7]


def test_resumed_training_is_the_same_with_and_without_the_callback(tmp_path):
    ends = []
    for callback in (lambda: None, lambda: GradCAM(probe_size=4)):
        folder = tmp_path / str(len(ends))
        run(folder, callback(), 2)
        fitting = run(folder, callback(), 4, checkpoint(folder, 1), 1)
        model, (optimizer,) = fitting.lightning_module, fitting.optimizers
        held = [*model.state_dict().values(), *(t for s in optimizer.state.values() for t in s.values())]
        ends.append([*held, torch.get_rng_state()])
    assert len(ends[0]) == len(ends[1])
    assert all(one.equal(other) for one, other in zip(*ends, strict=True))


def test_readings_that_vanish_while_training_fail_neither_pictures_nor_checkpoints(tmp_path):
    class Vanishing(Watched):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                shutil.rmtree(tmp_path / "0" / "xai")

    callback = Vanishing(probe_size=4, on_error="raise")
    run(tmp_path, callback, 3, logger=TensorBoardLogger(tmp_path, name="", version="0"))
    assert callback.columns == epochs(0, 1, 2)
    assert checkpoint(tmp_path, 2).exists()
    assert read_epochs(tmp_path / "0") == [1, 2]


def test_a_broken_store_costs_the_history_and_not_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(states, "CHECKPOINT_BYTES", 1000)
    run(tmp_path, GradCAM(probe_size=4), 1)
    for file in (tmp_path / "0" / "xai").rglob("*.npz"):
        file.write_bytes(b"not a file of torch")
    resumed = GradCAM(probe_size=4)
    with pytest.warns(RuntimeWarning, match="could not be taken over whole"):
        run(tmp_path, resumed, 2, checkpoint(tmp_path, 0), 1)
    assert resumed.explained is not None


Images = namedtuple("Images", "left right")


class Pairs(Classifier):
    def forward(self, left, right):
        return super().forward(left + right)

    def loss(self, batch):
        images, label = batch
        return torch.nn.functional.cross_entropy(self(*images), label)


def pairs(batch_size=4):
    samples = [(Images(image, image.flip(0)), label) for image, label in Samples(8)]
    return DataLoader(samples, batch_size)


def test_inputs_that_are_a_namedtuple_can_be_resumed(tmp_path):
    first, resumed = GradCAM(probe_size=4, on_error="raise"), GradCAM(probe_size=4, on_error="raise")
    run(tmp_path, first, 1, train=pairs(), val=pairs(), model=Pairs())
    run(tmp_path, resumed, 2, checkpoint(tmp_path, 0), 1, train=pairs(), val=pairs(), model=Pairs())
    assert resumed.explained.fingerprint == first.explained.fingerprint
    assert read_epochs(tmp_path / "1") == [0, 1]


def test_inputs_in_a_mapping_are_resumed_as_a_mapping(tmp_path):
    first, resumed = GradCAM(probe_size=4, on_error="raise"), GradCAM(probe_size=4, on_error="raise")
    data = {"train": loader(kind="mapping"), "val": loader(8, kind="mapping", seed=1)}
    run(tmp_path, first, 1, **data)
    run(tmp_path, resumed, 2, checkpoint(tmp_path, 0), 1, **data)
    assert resumed.explained.fingerprint == first.explained.fingerprint
    assert read_epochs(tmp_path / "1") == [0, 1]


def test_readings_of_an_unrelated_run_in_the_folder_are_set_aside(tmp_path):
    store = RunStore(tmp_path / "b" / "xai")
    mine = Reading(0, 50, Measured({"maps/auto": torch.zeros(1, 2, 2)}))
    store.add("grad_cam", mine)
    other = RunStore(tmp_path / "a" / "xai")
    for step in (10, 20):
        other.add("grad_cam", Reading(0, step, mine.measured))
    history = History("grad_cam", store)
    state = {"store": str(other.folder), "moments": [[0, 10], [1, 20]], "readings": []}
    history.resume(state, step=10, main_process=True)
    assert [reading.step for reading in history.readings] == [10]
    assert (store.folder / "grad_cam-before-1" / "50-0.npz").exists()
