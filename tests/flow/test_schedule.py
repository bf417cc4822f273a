"""Which epochs are read, and on which step, as TensorBoard's files hold them."""

from itertools import product

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_xai import GradCAM, Probe, load_run
from lightning_xai.flow.schedule import epoch_due
from tests.support.classifier import classifier
from tests.support.data import Samples, loader
from tests.support.events import events
from tests.support.training import trainer

TAG = "xai/grad_cam/auto"


def train(batches):
    return loader(2 * batches, batch_size=2)


def validation():
    return loader(4, seed=1, batch_size=2)


def read_steps(folder, metric="val_loss"):
    """The steps of the readings; their images and scalars share them, with each other and with ``metric``."""
    scalars, images = events(folder)
    steps = images.get(TAG, [])
    assert images.get(f"{TAG}/filmstrip", []) == steps
    for name in ("drift", "peak", "zero_maps", "nan_maps"):
        assert list(scalars.get(f"{TAG}/{name}", {})) == steps
    assert set(steps) <= set(scalars[metric])
    return steps


def fitted(folder, batches, callback=None, data=None, validates=True, **settings):
    """The steps that were read in a run of this many batches an epoch."""
    callback = callback or GradCAM(probe_size=2, on_error="raise")
    run = trainer(folder, callback, **settings)
    run.fit(classifier(), train(batches) if data is None else data, validation() if validates else None)
    return read_steps(folder, "val_loss" if validates else "train_loss_epoch")


def last_batches(epochs, batches):
    """The step of the last batch of each of these epochs."""
    return [(epoch + 1) * batches - 1 for epoch in epochs]


# ------------------------------------------------------------ epochs


def simulated(epochs, validated, every):
    """The epochs that are read, by remembering what waits."""
    read, waiting = [], False
    for epoch in range(epochs):
        waiting = waiting or (epoch + 1) % every == 0
        if epoch in validated and (not read or waiting or epoch == epochs - 1):
            read.append(epoch)
            waiting = False
    return read


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_due_epoch_waits_for_the_next_validated_one(every):
    epochs = 8
    for chosen in product([False, True], repeat=epochs):
        validated = [epoch for epoch in range(epochs) if chosen[epoch]]
        read = []
        for epoch in validated:
            if epoch_due(epoch, read[-1] if read else None, every, epoch == epochs - 1):
                read.append(epoch)
        assert read == simulated(epochs, validated, every)


def test_an_epoch_is_never_due_twice():
    assert not any(epoch_due(epoch, epoch, every, last) for epoch in range(9) for every in (1, 2, 3) for last in (0, 1))


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3, 4]), (2, [0, 1, 3, 4]), (3, [0, 2, 4]), (9, [0, 4])])
@pytest.mark.parametrize("validates", [True, False])
def test_the_first_every_nth_and_the_last_epoch_are_read(tmp_path, every, epochs, validates):
    callback = GradCAM(probe_size=2, every_n_epochs=every)
    assert fitted(tmp_path, 3, callback, validates=validates, max_epochs=5) == last_batches(epochs, 3)
    readings = load_run(tmp_path).readings["grad_cam"]
    assert [reading.epoch for reading in readings] == epochs
    assert [reading.step - 1 for reading in readings] == last_batches(epochs, 3)


def test_without_validation_in_an_epoch_it_is_not_read(tmp_path):
    callback = GradCAM(probe_size=2, every_n_epochs=3)
    # validated: 1, 3, ...; due: the first of them, 2, 5, 8, and the last of them
    steps = fitted(tmp_path, 2, callback, max_epochs=12, check_val_every_n_epoch=2)
    assert steps == last_batches([1, 3, 5, 9, 11], 2)


@pytest.mark.parametrize(("every", "check"), [(2, 3), (3, 2), (4, 3), (5, 2)])
def test_both_rhythms_together(tmp_path, every, check):
    validated = [epoch for epoch in range(9) if (epoch + 1) % check == 0]
    callback = GradCAM(probe_size=2, every_n_epochs=every)
    steps = fitted(tmp_path, 1, callback, max_epochs=9, check_val_every_n_epoch=check)
    assert steps == last_batches(simulated(9, validated, every), 1)


@pytest.mark.parametrize("validates", [True, False])
def test_the_last_epoch_is_known_by_max_steps(tmp_path, validates):
    callback = GradCAM(probe_size=2, every_n_epochs=9)
    settings = {"max_epochs": -1, "max_steps": 8, "validates": validates}
    assert fitted(tmp_path, 4, callback, **settings) == [3, 7]


def test_the_end_in_the_middle_of_an_epoch_is_read(tmp_path):
    callback = GradCAM(probe_size=2, every_n_epochs=9)
    assert fitted(tmp_path, 4, callback, validates=False, max_epochs=-1, max_steps=6) == [3, 5]


class StopIn(pl.Callback):
    """Asks to stop in the first batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            trainer.should_stop = True


def test_the_epoch_in_which_the_run_is_stopped_is_read(tmp_path):
    run = trainer(tmp_path, StopIn(2), GradCAM(probe_size=2, every_n_epochs=9), max_epochs=9)
    run.fit(classifier(), train(3), validation())
    assert read_steps(tmp_path) == [2, 6]


@pytest.mark.filterwarnings("ignore:Trainer was signaled to stop")
def test_a_stop_that_has_to_wait_is_not_the_last_epoch(tmp_path):
    run = trainer(tmp_path, StopIn(1), GradCAM(probe_size=2, every_n_epochs=4), max_epochs=9, min_epochs=6)
    run.fit(classifier(), train(3), validation())
    epochs = [reading.epoch for reading in load_run(tmp_path).readings["grad_cam"]]
    assert epochs == [0, 3, 5]
    assert read_steps(tmp_path) == last_batches(epochs, 3)


# ------------------------------------------------------------ several validations an epoch


@pytest.mark.parametrize("batches", [6, 7, 10])
@pytest.mark.parametrize("interval", [0.5, 0.3, 0.25, 2, 3, 5])
def test_the_last_validation_of_an_epoch_is_read(tmp_path, batches, interval):
    between = interval if isinstance(interval, int) else max(1, int(batches * interval))
    last = max(batch for batch in range(1, batches + 1) if batch % between == 0)
    steps = fitted(tmp_path, batches, max_epochs=3, val_check_interval=interval)
    assert steps == [epoch * batches + last - 1 for epoch in range(3)]


@pytest.mark.parametrize("interval", [2, 3, 5, 10])
@pytest.mark.parametrize("every", [1, 2])
def test_an_interval_that_runs_over_epochs(tmp_path, interval, every):
    batches, epochs = 4, 5
    last = {(batch - 1) // batches: batch - 1 for batch in range(interval, epochs * batches + 1, interval)}
    callback = GradCAM(probe_size=2, every_n_epochs=every)
    settings = {"check_val_every_n_epoch": None, "val_check_interval": interval, "max_epochs": epochs}
    assert fitted(tmp_path, batches, callback, **settings) == [last[e] for e in simulated(epochs, last, every)]


def test_the_sample_limit_of_an_epoch_counts(tmp_path):
    steps = fitted(tmp_path, 12, max_epochs=2, limit_train_batches=5, val_check_interval=2)
    assert steps == [3, 8]


def test_steps_are_those_of_optimizer_steps_under_accumulation(tmp_path):
    steps = fitted(tmp_path, 6, max_epochs=2, accumulate_grad_batches=4, val_check_interval=3)
    assert steps == [1, 3]
    assert [reading.step for reading in load_run(tmp_path).readings["grad_cam"]] == [2, 4]


class Endless(IterableDataset):
    """A stream of samples that does not say how many there are."""

    def __init__(self, count):
        self.samples = Samples(count)

    def __iter__(self):
        return (self.samples[i] for i in range(len(self.samples)))


def stream(batches):
    return DataLoader(Endless(2 * batches), batch_size=2)


@pytest.mark.parametrize("validates", [True, False])
def test_a_stream_without_length_is_read_at_the_end_of_each_epoch(tmp_path, validates):
    assert fitted(tmp_path, 5, data=stream(5), validates=validates, max_epochs=3) == [4, 9, 14]


def test_of_a_stream_any_validation_may_be_the_last_of_its_epoch(tmp_path):
    assert fitted(tmp_path, 5, data=stream(5), max_epochs=3, val_check_interval=2) == [1, 6, 11]


def test_validations_are_counted_where_epochs_do_not_end(tmp_path):
    callback = GradCAM(probe_size=2, every_n_validations=3)
    settings = {"max_epochs": -1, "max_steps": 20, "val_check_interval": 2, "check_val_every_n_epoch": None}
    # validations 1, 3, 6, 9 and the last, 10
    assert fitted(tmp_path, 50, callback, data=stream(50), **settings) == [1, 5, 11, 17, 19]


def test_every_nth_validation_within_epochs(tmp_path):
    callback = GradCAM(probe_size=2, every_n_validations=4)
    steps = fitted(tmp_path, 6, callback, max_epochs=3, val_check_interval=0.5)
    # validations 1 and 4, and the last, 6
    assert steps == [2, 11, 17]


# ------------------------------------------------------------ no validation


def empty():
    return DataLoader(Samples(0), batch_size=2)


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_an_empty_validation_set_leaves_the_training_samples(tmp_path, sanity):
    callback = GradCAM(probe_size=2, on_error="raise")
    trainer(tmp_path, callback, num_sanity_val_steps=sanity).fit(classifier(), train(3), empty())
    assert read_steps(tmp_path, "train_loss_epoch") == [2, 5]
    assert callback.explained is not None


def test_no_validation_batches_leave_the_training_samples(tmp_path):
    callback = GradCAM(probe_size=2, on_error="raise")
    trainer(tmp_path, callback, limit_val_batches=0).fit(classifier(), train(3), validation())
    assert read_steps(tmp_path, "train_loss_epoch") == [2, 5]
    assert torch.equal(callback.explained.inputs[0], Samples(6).images[0])


def test_a_model_without_validation_step_is_read_after_each_epoch(tmp_path):
    model = classifier()
    model.validation_step = None
    callback = GradCAM(probe_size=2, on_error="raise")
    trainer(tmp_path, callback).fit(model, train(3))
    assert read_steps(tmp_path, "train_loss_epoch") == [2, 5]


# ------------------------------------------------------------ before, beside and without training


class AfterSanity(pl.Callback):
    def __init__(self, callback):
        self.callback, self.seen = callback, None

    def on_sanity_check_end(self, trainer, pl_module):
        self.seen = (self.callback.explained, list(self.callback.state.history.moments), self.callback.state.capture)


def test_the_sanity_check_is_neither_captured_nor_read(tmp_path):
    callback = GradCAM(probe_size=2)
    after = AfterSanity(callback)
    trainer(tmp_path, callback, after, num_sanity_val_steps=-1).fit(classifier(), train(3), validation())
    assert after.seen == (None, [], None)
    assert read_steps(tmp_path) == [2, 5]


def test_a_given_probe_is_not_read_in_the_sanity_check(tmp_path):
    callback = GradCAM(probe=Probe(Samples(2).images, Samples(2).labels))
    after = AfterSanity(callback)
    trainer(tmp_path, callback, after).fit(classifier(), train(3), validation())
    assert after.seen[1] == []
    assert read_steps(tmp_path) == [2, 5]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_validate_and_test_take_one_reading_beside_the_history(tmp_path, stage):
    run = trainer(tmp_path, GradCAM(probe_size=2, every_n_epochs=9, on_error="raise"))
    model = classifier()
    run.fit(model, train(3), validation())
    (metrics,) = getattr(run, stage)(model, validation(), verbose=False)
    assert f"{TAG}/drift" in metrics
    (store,) = tmp_path.rglob("xai/grad_cam")
    assert sorted(file.name for file in store.iterdir()) == ["3-0.npz", "6-0.npz", f"{stage}-6-0.npz"]
    assert [reading.epoch for reading in load_run(tmp_path).readings["grad_cam"]] == [0, 1]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_validate_and_test_work_without_training(tmp_path, stage):
    run = trainer(tmp_path, GradCAM(probe_size=2, on_error="raise"))
    getattr(run, stage)(classifier(), validation(), verbose=False)
    scalars, images = events(tmp_path)
    metric = "val_loss" if stage == "validate" else "test_loss"
    assert images[TAG] == list(scalars[metric]) == list(scalars[f"{TAG}/drift"])


@pytest.mark.filterwarnings("ignore:.*fast_dev_run")
def test_fast_dev_run_reads_and_writes_nothing(tmp_path):
    run = trainer(tmp_path, GradCAM(probe_size=2, on_error="raise"), fast_dev_run=True)
    run.fit(classifier(), train(3), validation())
    assert f"{TAG}/drift" in run.callback_metrics
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.filterwarnings("ignore:You are trying to `self.log", "ignore:.*barebones")
def test_barebones_works(tmp_path):
    callback = GradCAM(probe_size=2, on_error="raise")
    run = pl.Trainer(barebones=True, max_epochs=2, callbacks=[callback], default_root_dir=tmp_path, accelerator="cpu")
    run.fit(classifier(), train(3), validation())
    assert callback.state.history.moments == [(0, 3), (1, 6)]


def test_a_second_fit_goes_on_in_the_same_store(tmp_path):
    callback = GradCAM(probe_size=2)
    run, model = trainer(tmp_path, callback), classifier()
    run.fit(model, train(3), validation())
    probe = callback.explained
    run.fit_loop.max_epochs = 4
    run.fit(model, train(3), validation())
    assert read_steps(tmp_path) == [2, 5, 8, 11]
    assert callback.explained.fingerprint == probe.fingerprint
    assert [reading.epoch for reading in load_run(tmp_path).readings["grad_cam"]] == [0, 1, 2, 3]
