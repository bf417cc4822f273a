"""The worker: in order, bounded, flushed; and a run whose logging happens in it."""

import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_xai import GradCAM, load_run
from lightning_xai.flow import background
from lightning_xai.flow.session import session_of
from lightning_xai.loggers import log_report, open_run
from lightning_xai.render import draw
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.events import events
from tests.support.training import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "lightning_xai"]


def test_tasks_run_in_order_in_one_other_thread():
    worker, seen = background.Worker(), []

    def see(number):
        seen.append((number, threading.current_thread().name))

    for number in range(50):
        worker.submit(partial(see, number))
    worker.flush()
    worker.stop()
    assert [number for number, _ in seen] == list(range(50))
    assert {name for _, name in seen} == {"lightning_xai"}


def test_a_full_queue_holds_the_submitter():
    worker, gate = background.Worker(), threading.Event()
    for _ in range(background.ROOM + 1):  # one runs, the others wait
        worker.submit(gate.wait)
    submitted = threading.Event()
    threading.Thread(target=lambda: (worker.submit(lambda: None), submitted.set())).start()
    assert not submitted.wait(0.2)
    gate.set()
    assert submitted.wait(5)
    worker.stop()


def test_nothing_that_a_task_raises_ends_the_worker():
    worker, seen = background.Worker(), []

    def leave():
        raise SystemExit(1)

    for task in (leave, lambda: seen.append(1)):
        worker.submit(task)
    worker.stop()
    assert seen == [1]


def test_stop_runs_what_waits():
    worker, seen = background.Worker(), []

    def see(number):
        time.sleep(0.01)
        seen.append(number)

    for number in range(background.ROOM):
        worker.submit(partial(see, number))
    worker.stop()
    assert seen == list(range(background.ROOM))


class Owner:
    pass


def test_one_worker_an_owner():
    trainer = Owner()
    first = session_of(trainer).worker
    assert session_of(trainer).worker is first and len(workers()) == 1
    session_of(trainer).finish()
    session_of(trainer).finish()
    assert workers() == []
    assert session_of(trainer).worker is not first
    session_of(trainer).finish()


# a run


def explaining(**settings):
    return GradCAM(**{"probe_size": 4, "layers": ["backbone.0", "backbone.3"], "on_error": "raise", **settings})


def fit(folder, *callbacks, model=None, train=None, **settings):
    made = trainer(folder, *callbacks, num_sanity_val_steps=0, **settings)
    model = classifier() if model is None else model
    made.fit(model, loader(20, shuffle=True, **(train or {})), loader(10, seed=1))
    return model


def records(folder, *kinds):
    """All events of some kinds under a folder, in the order of the file: (tag, step, bytes)."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    (file,) = Path(folder).rglob("events.out.tfevents.*")
    found = [Event.FromString(raw) for raw in RawEventFileLoader(str(file)).Load()]
    values = [(event.step, value) for event in found for value in event.summary.value]
    return [(v.tag, step, v.SerializeToString()) for step, v in values if v.WhichOneof("value") in kinds]


@pytest.fixture
def slow_drawing(monkeypatch):
    """Pictures that take long to draw: when training ends, some still wait."""
    from lightning_xai.loggers import tensorboard

    def drawn(picture):
        time.sleep(0.1)
        return draw(picture)

    monkeypatch.setattr(tensorboard, "draw", drawn)


def test_the_background_logs_what_the_foreground_logs(tmp_path, slow_drawing):
    for background_ in (False, True):
        fit(tmp_path / str(background_), explaining(background=background_), max_epochs=3)
    pictures = records(tmp_path / "False", "image")
    assert len(pictures) == 3 * 2 * 2
    assert [step for _, step, _ in pictures] == [4] * 4 + [9] * 4 + [14] * 4
    assert records(tmp_path / "True", "image") == pictures
    scalars = records(tmp_path / "False", "simple_value", "tensor")
    assert len([tag for tag, *_ in scalars if tag.startswith("xai/")]) == 3 * 2 * 4
    assert records(tmp_path / "True", "simple_value", "tensor") == scalars
    assert workers() == []


class Ends(pl.Callback):
    """Ends the run at the start of the third epoch, in its own way."""

    def __init__(self, end):
        self.end = end

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            assert len(workers()) == 1
            self.end()


def fail():
    raise ArithmeticError("the step broke")


@pytest.mark.parametrize(
    ("end", "raised"), [(fail, ArithmeticError), (lambda: signal.raise_signal(signal.SIGINT), SystemExit)]
)
def test_a_run_that_ends_early_logs_what_waits(tmp_path, slow_drawing, end, raised):
    # a process started in the background ignores it, and so does Lightning while it shuts down
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(raised):
            fit(tmp_path, explaining(), Ends(end), max_epochs=5)
    finally:
        signal.signal(signal.SIGINT, before)
    _, images = events(tmp_path)
    assert len(images) == 4 and all(steps == [4, 9] for steps in images.values())
    assert workers() == []


class Busy(DummyLogger):
    """A logger that goes on drawing until the loader's processes of the next epoch have given a batch."""

    def __init__(self):
        super().__init__()
        self.drawing, self.forked = threading.Event(), threading.Event()
        self.overlaps = []


@open_run.register(Busy)
def open_busy(logger, opening):
    pass


@log_report.register(Busy)
def log_busy(logger, report, step):
    logger.forked.clear()
    logger.drawing.set()
    while not logger.forked.is_set():
        for picture in report.pictures.values():
            draw(picture)
    logger.overlaps.append(step)


class Forked(pl.Callback):
    """Starts each epoch's processes while the logger draws, and lets it go on drawing until they have worked."""

    def __init__(self, busy):
        self.busy = busy

    def on_train_epoch_end(self, trainer, pl_module):
        assert self.busy.drawing.wait(60)
        self.busy.drawing.clear()

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch > 0:
            self.busy.forked.set()

    def on_fit_end(self, trainer, pl_module):
        self.busy.forked.set()


@pytest.mark.filterwarnings("ignore:Consider setting `persistent_workers=True`")
@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_training_is_the_same_while_the_worker_draws(tmp_path, context):
    train = {"num_workers": 2, "timeout": 120}
    plain = fit(tmp_path, train=train, logger=False)
    busy = Busy()
    explained = fit(
        tmp_path, explaining(), Forked(busy), logger=busy, train={**train, "multiprocessing_context": context}
    )
    assert busy.overlaps == [4, 9]
    for name, value in plain.state_dict().items():
        assert torch.equal(value, explained.state_dict()[name]), name


class Broken(DummyLogger):
    """A logger that takes no pictures."""


@open_run.register(Broken)
def open_broken(logger, opening):
    pass


@log_report.register(Broken)
def log_broken(logger, report, step):
    assert threading.current_thread().name == "lightning_xai"
    raise ConnectionError("no route to the server")


def test_a_logger_that_fails_is_told_once_and_its_pictures_are_kept(tmp_path):
    board = TensorBoardLogger(tmp_path)
    with pytest.warns(RuntimeWarning, match="no route to the server") as caught:
        fit(tmp_path, explaining(), logger=[board, Broken()], max_epochs=3)
    folder = Path(board.log_dir) / "xai"
    (said,) = [warning for warning in caught if warning.category is RuntimeWarning]
    assert f"Broken took no pictures; they are files in {folder}. ConnectionError: no route" in str(said.message)
    pictures = folder / "pictures" / "xai" / "grad_cam" / "backbone.0"
    assert [path.name for path in sorted(pictures.glob("*.png"))] == [f"{step:08d}.png" for step in (4, 9, 14)]
    _, images = events(tmp_path)
    assert all(steps == [4, 9, 14] for steps in images.values())


class DiskFull(pl.Callback):
    """No file can be written while the second reading is taken: stands before the callback that reads."""

    def on_validation_epoch_end(self, trainer, pl_module):
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self.limits[1]))


class DiskFree(pl.Callback):
    """Stands behind the callback that reads."""

    def __init__(self, full):
        self.full = full

    def on_validation_epoch_end(self, trainer, pl_module):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.full.limits)


def test_a_full_disk_harms_nothing_that_is_written(tmp_path):
    full, plain = DiskFull(), fit(tmp_path / "plain", logger=False, max_epochs=3)
    callback = explaining(on_error="warn", background=False)  # in the background it might draw when there is room
    with pytest.warns(RuntimeWarning) as caught:
        explained = fit(tmp_path, full, callback, DiskFree(full), logger=CSVLogger(tmp_path), max_epochs=3)
    kept, logged = (str(warning.message) for warning in caught if warning.category is RuntimeWarning)
    assert "the reading could not be written to" in kept and "CSVLogger took no pictures." in logged
    for name, value in plain.state_dict().items():
        assert torch.equal(value, explained.state_dict()[name]), name
    (manifest,) = tmp_path.rglob("manifest.json")
    run = load_run(manifest.parent)
    assert [reading.epoch for reading in run.readings["grad_cam"]] == [0, 2]
    assert all(reading.measured.rows["maps/backbone.0"].isfinite().all() for reading in run.readings["grad_cam"])
    assert [reading.epoch for reading in callback.state.history.readings] == [0, 1, 2]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("in_background", [False, True])
def test_a_folder_that_takes_no_files_is_told_once(tmp_path, in_background):
    (tmp_path / "xai").write_text("somebody's file")
    callback = explaining(on_error="warn", background=in_background)
    with pytest.warns(RuntimeWarning) as caught:
        fit(tmp_path, callback, logger=False, max_epochs=3)
    assert (tmp_path / "xai").read_text() == "somebody's file"
    assert len(callback.state.history.moments) == 3
    (told,) = (str(warning.message) for warning in caught if warning.category is RuntimeWarning)
    assert "kept in memory alone, and no pictures are written as files" in told


KILLED = """
import sys, time
import torch
from lightning_xai import GradCAM
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.training import trainer

torch.set_num_threads(1)
folder, callback = sys.argv[1], GradCAM(probe_size=4, layers=["backbone.0", "backbone.3"])
trainer(folder, callback, max_epochs=-1).fit(classifier(), loader(20), loader(10, seed=1))
"""


def test_a_killed_run_can_be_read(tmp_path):
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED, tmp_path], cwd=root) as run:
        try:
            deadline = time.monotonic() + 120
            while len(list(tmp_path.rglob("grad_cam/*.npz"))) < 20:
                assert run.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            run.send_signal(signal.SIGKILL)
    (manifest,) = tmp_path.rglob("manifest.json")
    readings = load_run(manifest.parent).readings["grad_cam"]
    assert [reading.epoch for reading in readings] == list(range(len(readings)))
    assert all(reading.measured.rows["maps/backbone.3"].isfinite().all() for reading in readings)
    _, images = events(tmp_path)
    waiting = background.ROOM + 1  # and the one that was drawn
    for steps in images.values():
        assert steps == [reading.step - 1 for reading in readings][: len(steps)]
        assert len(steps) >= len(readings) - waiting - 1


class Pickled(pl.Callback):
    def __init__(self, callback):
        self.callback = callback

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            assert len(workers()) == 1
            self.copy = pickle.loads(pickle.dumps(self.callback))


def test_a_callback_is_picklable_while_its_worker_lives(tmp_path, slow_drawing):
    callback = explaining()
    pickled = Pickled(callback)
    fit(tmp_path, callback, pickled)
    assert len(pickled.copy.state.history.moments) == 1
    fit(tmp_path / "copy", pickled.copy)
    assert workers() == []
