"""Whose a folder is: runs never mix, overwrite or lose their readings, and a run goes on wherever they can be kept."""

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_xai import GradCAM, load_run
from lightning_xai.storage.manifest import claim, claim_version, run_in, store_of
from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.training import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
NAME = "grad_cam"


def csv(folder):
    return CSVLogger(folder, name="", version="0")


def run(folder, *callbacks, ckpt_path=None, model=None, **settings):
    fitting = trainer(folder, *callbacks, **{"logger": csv(folder), **settings})
    fitting.fit(model or classifier(), loader(), loader(8, seed=1), ckpt_path=ckpt_path)
    return fitting


def cam(**settings):
    return GradCAM(probe_size=4, layers="backbone.3", **settings)


def epochs(folder):
    return [reading.epoch for reading in load_run(folder).readings[NAME]]


def maps(callback):
    return [reading.measured.rows["maps/backbone.3"].clone() for reading in callback.state.history.readings]


def pictures(callback):
    folder = callback.state.history.store.folder
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


class During(pl.Callback):
    """Does something once, when the second epoch begins."""

    def __init__(self, action):
        self.action = action

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.action()


class Nested:
    """A whole other run, whose maps are remembered."""

    def __init__(self, folder, **settings):
        self.folder, self.settings, self.callback = folder, settings, cam()

    def __call__(self):
        run(self.folder, self.callback, model=classifier(seed=5), **self.settings)
        self.maps = maps(self.callback)
        self.pictures = pictures(self.callback)


def same(one, other):
    return len(one) == len(other) and all(a.equal(b) for a, b in zip(one, other, strict=True))


# -- runs at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logger", [True, False])
def test_runs_that_begin_while_another_goes_on_keep_apart(tmp_path, logger):
    """In one default folder, and in a version that is used again."""
    settings = {} if logger else {"logger": False}
    first, other = cam(on_error="raise"), Nested(tmp_path, **settings)
    alone = cam()
    run(tmp_path / "alone", alone, max_epochs=4, **settings)
    run(tmp_path, first, During(other), max_epochs=4, **settings)

    folders = [callback.state.history.store.folder for callback in (first, other.callback)]
    assert folders[0] != folders[1]
    assert [epochs(folder) for folder in folders] == [[0, 1, 2, 3], [0, 1]]
    assert same(maps(other.callback), other.maps) and not same(maps(first)[:2], other.maps)
    assert pictures(other.callback) == other.pictures and len(pictures(first)) == 2 * len(other.pictures)


@pytest.mark.parametrize("place", [lambda root: claim_version(root)[1], lambda root: claim(root / "xai")[0]])
def test_a_folder_is_claimed_once(tmp_path, place):
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: place(tmp_path), range(16)))
    stores = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert sorted(map(str, claimed)) == sorted(str(run_in(path)) for path in stores)
    assert len(set(claimed)) == 16


def test_a_store_is_found_where_a_later_run_has_moved_it(tmp_path):
    folder = tmp_path / "xai"
    first, second, third = (claim(folder)[0] for _ in range(3))
    assert [store_of(run, folder).name for run in (first, second, third)] == ["xai-before-1", "xai-before-2", "xai"]
    shutil.rmtree(tmp_path / "xai-before-1")
    assert store_of(first, folder) is None


def test_a_store_that_is_gone_is_not_another_run_s(tmp_path):
    """Its folder is claimed by the other run meanwhile: the readings stay in memory, and the other's are its own."""
    other = Nested(tmp_path)

    def replace():
        shutil.rmtree(tmp_path / "0" / "xai")
        other()

    first = cam(background=False)
    with pytest.warns(RuntimeWarning, match="is another run's by now"):
        run(tmp_path, first, During(replace), max_epochs=3)
    assert epochs(tmp_path / "0") == [0, 1] and same(maps(other.callback), other.maps)
    assert pictures(other.callback) == other.pictures
    assert [reading.epoch for reading in first.state.history.readings] == [0, 1, 2]


# -- runs one after the other ------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_logger", [True, False])
@pytest.mark.parametrize("validates", [True, False])
def test_a_run_in_an_old_one_s_folder_is_its_own(tmp_path, same_logger, validates):
    logger = csv(tmp_path)
    run(tmp_path, cam(), max_epochs=3, logger=logger)
    fitting = trainer(tmp_path, cam(), max_epochs=1, logger=logger if same_logger else csv(tmp_path))
    model = classifier(seed=1)
    if validates:
        fitting.validate(model, loader(8, seed=1), verbose=False)
    fitting.fit(model, loader(), loader(8, seed=1))
    assert epochs(tmp_path / "0" / "xai") == [0]
    assert epochs(tmp_path / "0" / "xai-before-1") == [0, 1, 2]


def test_a_validation_alone_leaves_the_run_of_its_folder_as_it_is(tmp_path):
    run(tmp_path, cam())
    folder = tmp_path / "0" / "xai"
    before = {path: path.read_bytes() for path in [folder / "manifest.json", *folder.rglob(f"{NAME}/*.npz")]}
    trainer(tmp_path, cam(class_names=list("abcd")), logger=csv(tmp_path)).validate(
        classifier(), loader(12, seed=7), verbose=False
    )
    assert {path: path.read_bytes() for path in before} == before
    assert list(folder.glob(f"{NAME}/validate-*.npz")) and not (tmp_path / "0" / "xai-before-1").exists()


def test_a_validation_and_the_fit_after_it_are_one_run(tmp_path):
    callback = cam()
    fitting, model = trainer(tmp_path, callback, logger=csv(tmp_path)), classifier()
    fitting.validate(model, loader(8, seed=1), verbose=False)
    fitting.fit(model, loader(), loader(8, seed=1))
    assert epochs(tmp_path / "0") == [0, 1]
    assert [path.name for path in (tmp_path / "0").glob("xai*")] == ["xai"]


def test_a_fit_after_the_validation_of_a_checkpoint_does_not_go_on_from_it(tmp_path):
    run(tmp_path, cam(), checkpoints(tmp_path), enable_checkpointing=True)
    fitting, model = trainer(tmp_path, cam(), max_epochs=1, logger=csv(tmp_path)), classifier()
    fitting.validate(model, loader(8, seed=1), ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt", verbose=False)
    fitting.fit(model, loader(), loader(8, seed=1))
    assert epochs(tmp_path / "0" / "xai") == [0]
    assert epochs(tmp_path / "0" / "xai-before-1") == [0, 1]


# -- resumed -----------------------------------------------------------------------------------------------------


def checkpoints(folder):
    return ModelCheckpoint(folder / "checkpoints", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)


def test_a_resumed_run_finds_its_own_store_behind_another_s(tmp_path):
    first = cam()
    run(tmp_path, first, checkpoints(tmp_path / "a"), enable_checkpointing=True)
    mine = maps(first)
    run(tmp_path, cam(), model=classifier(seed=5), max_epochs=1)
    again = cam(on_error="raise")
    run(tmp_path, again, max_epochs=3, ckpt_path=tmp_path / "a" / "checkpoints" / "epoch=1.ckpt")
    assert epochs(tmp_path / "0" / "xai") == [0, 1, 2] and same(maps(again)[:2], mine)
    assert [epochs(tmp_path / "0" / f"xai-before-{number}") for number in (1, 2)] == [[0, 1], [0]]


def test_a_store_that_was_moved_with_its_experiment_is_gone_on_with(tmp_path):
    run(tmp_path / "here", cam(), checkpoints(tmp_path), enable_checkpointing=True)
    shutil.move(tmp_path / "here", tmp_path / "there")
    run(tmp_path / "there", cam(), max_epochs=3, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert epochs(tmp_path / "there") == [0, 1, 2] and not list(tmp_path.rglob("*-before-*"))
    assert [path.name for path in (tmp_path / "there" / "0").glob("xai*")] == ["xai"]


def test_a_checkpoint_without_our_state_does_not_take_over_another_s_readings(tmp_path):
    run(tmp_path / "plain", checkpoints(tmp_path), enable_checkpointing=True)
    run(tmp_path, cam(), max_epochs=3)
    run(tmp_path, cam(), max_epochs=3, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert epochs(tmp_path / "0" / "xai") == [2]
    assert epochs(tmp_path / "0" / "xai-before-1") == [0, 1, 2]


def test_another_explanation_of_the_same_name_begins_anew_in_a_resumed_store(tmp_path):
    stays = cam(name="stays")
    run(tmp_path, cam(), stays, checkpoints(tmp_path), enable_checkpointing=True)
    changed = GradCAM(probe_size=4, layers="backbone.0")
    run(tmp_path, changed, cam(name="stays"), max_epochs=3, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    stored = load_run(tmp_path / "0" / "xai").readings
    assert {name: [r.epoch for r in readings] for name, readings in stored.items()} == {NAME: [2], "stays": [0, 1, 2]}
    assert len(list((tmp_path / "0" / "xai" / f"{NAME}-before-1").iterdir())) == 2


# -- folders that cannot be had ----------------------------------------------------------------------------------


class Leaves(pl.Callback):
    """The server of the logger goes away when the fit starts: Lightning itself has had what it needs by then."""

    def on_fit_start(self, trainer, pl_module):
        trainer.logger.is_away = True


def away(what):
    def raises(self):
        if self.is_away:
            raise ConnectionError("no server")
        return getattr(DummyLogger, what).fget(self)

    return type("Away", (DummyLogger,), {what: property(raises), "is_away": False})()


@pytest.mark.parametrize("what", ["name", "version", "save_dir"])
def test_a_logger_that_does_not_say_where_its_run_is_stops_nothing(tmp_path, what):
    with pytest.warns(RuntimeWarning, match="folder of the Away cannot be used, .* ConnectionError: no server"):
        run(tmp_path, Leaves(), cam(), logger=away(what))
    assert epochs(tmp_path / "xai" / "version_0") == [0, 1]


@pytest.mark.parametrize("what", ["experiment", "log_dir", "root_dir"])
def test_a_logger_whose_other_parts_raise_stops_nothing(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, Leaves(), cam(), logger=away(what))
    assert epochs(tmp_path) == [0, 1]


def test_a_logger_s_folder_that_cannot_be_made_is_replaced(tmp_path):
    (tmp_path / "file").write_text("no folder")

    class Elsewhere(DummyLogger):
        save_dir = str(tmp_path / "file")

    with pytest.warns(RuntimeWarning, match="folder of the Elsewhere cannot be used"):
        run(tmp_path, cam(), logger=Elsewhere())
    assert epochs(tmp_path) == [0, 1]


def test_without_any_folder_the_run_goes_on_in_memory(tmp_path):
    (tmp_path / "xai").write_text("no folder")
    callback = cam()
    with pytest.warns(RuntimeWarning, match="kept in memory alone"):
        fitting = run(tmp_path, callback, logger=False)
    assert (tmp_path / "xai").read_text() == "no folder"
    assert [reading.epoch for reading in callback.state.history.readings] == [0, 1]
    fitting.fit_loop.max_epochs = 3
    fitting.fit(fitting.lightning_module, loader(), loader(8, seed=1))
    assert [reading.epoch for reading in callback.state.history.readings] == [0, 1, 2]


def test_a_folder_that_takes_no_more_is_warned_of_once(tmp_path):
    def block():
        for name in (NAME, "pictures"):
            shutil.rmtree(tmp_path / "0" / "xai" / name)
            (tmp_path / "0" / "xai" / name).write_text("no folder")

    callback = cam()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path, callback, During(block), max_epochs=4)
    said = [str(w.message).partition(". ")[0] for w in caught if "Training goes on" in str(w.message)]
    kinds = ("the reading could not be written", "CSVLogger took no pictures")
    assert [sum(kind in text for text in said) for kind in kinds] == [1, 1] and len(said) == 2
    assert [reading.epoch for reading in callback.state.history.readings] == [0, 1, 2, 3]


def test_where_pictures_are_instead_of_a_logger_is_said_once(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fitting = run(tmp_path, cam(), max_epochs=1)
        fitting.validate(fitting.lightning_module, loader(8, seed=1), verbose=False)
    folder = tmp_path / "0" / "xai"
    said = [text for text in caplog.messages if text.startswith("The pictures")]
    assert said == [f"The pictures of lightning_xai are written to {folder}, as CSVLogger takes none."]
    assert list((folder / "pictures").rglob("*.png"))
