"""The user's datasets and loaders: never read in the main process, and found in every nest."""

import pickle
import threading
from types import SimpleNamespace

import numpy
import pytest
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Subset, TensorDataset, get_worker_info

from lightning_xai import GradCAM
from lightning_xai.flow.loaders import copied, dataset_of, flattened
from tests.support.classifier import classifier
from tests.support.concepts import fit, images, refused, shared_of, tcav
from tests.support.data import Samples, loader
from tests.support.recorder import Recorder, assert_same
from tests.support.training import NoPictures, trainer

FORKS = pytest.mark.filterwarnings(
    "ignore:Consider setting `persistent_workers=True`",
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
)


class Lazy(Samples):
    """Opens something at the first read, as readers of archives do, that cannot be pickled or shared by processes."""

    file = None

    def __getitem__(self, index):
        if self.file is None:
            self.file = threading.Lock()
        return super().__getitem__(index)


class OfWorkers(Samples):
    """Can be read in a worker alone, which opens it."""

    def __getitem__(self, index):
        if get_worker_info() is None:
            raise RuntimeError("the dataset is opened by workers alone")
        return super().__getitem__(index)


class Pointing(Samples):
    """Holds what pickle refuses with an error of another kind."""

    def __reduce_ex__(self, protocol):
        raise ValueError("objects containing pointers cannot be pickled")


class Drawing(Samples):
    """Augments with a generator of its own."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.random = numpy.random.default_rng(0)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.1 * float(self.random.standard_normal()), label


class Labelled(Lazy):
    """Reads its classes from the file, too."""

    @property
    def classes(self):
        self[0]
        return ["ant", "bee", "cat", "dog"]


def split(kind):
    whole = kind(44)
    return Subset(whole, range(20)), Subset(whole, range(20, 44))


def apart(kind):
    return kind(20), kind(24, seed=1)


def trained(folder, sets, *callbacks, **workers):
    """Everything of a run on these data, the batches included."""
    model, recorder = classifier(), Recorder()
    train, val = sets
    fits = trainer(folder, *callbacks, recorder, logger=NoPictures())
    fits.fit(model, DataLoader(train, 4, shuffle=True, **workers), DataLoader(val, 4, **workers))
    return recorder.seen


@pytest.mark.parametrize("make", [split, apart])
def test_a_dataset_with_a_generator_of_its_own_gives_the_same_batches(tmp_path, make):
    callback = tcav()
    plain = trained(tmp_path, make(Drawing))
    assert_same(plain, trained(tmp_path, make(Drawing), callback, GradCAM(on_error="raise")))
    assert callback.state.history.moments


@FORKS
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("make", [split, apart])
def test_a_dataset_is_read_by_its_workers_alone(tmp_path, make, persistent):
    callback = tcav()
    fork = {"num_workers": 1, "multiprocessing_context": "fork", "persistent_workers": persistent}
    plain = trained(tmp_path, make(OfWorkers), **fork)
    assert_same(plain, trained(tmp_path, make(OfWorkers), callback, **fork))
    assert callback.state.history.moments


@FORKS
def test_a_file_that_is_opened_lazily_stays_closed_in_the_main_process(tmp_path):
    sets = apart(Labelled)
    callback, cam = tcav(), GradCAM(on_error="raise")
    fits = trainer(tmp_path, callback, cam, logger=NoPictures(), num_sanity_val_steps=0)
    fits.fit(classifier(), loader(20), DataLoader(sets[1], 4, num_workers=1, multiprocessing_context="fork"))
    assert len(callback.state.history.moments) == 2
    assert sets[1].file is None
    assert cam.explained.class_names == ["ant", "bee", "cat", "dog"]


# ------------------------------------------------------------ a dataset as randoms=


def test_a_dataset_as_randoms_is_read_in_a_copy(tmp_path):
    pool = Drawing(40)
    whole = Labelled(40)
    before = pickle.dumps(pool)
    for folder, randoms in enumerate((pool, whole)):
        fit(tmp_path / str(folder), tcav(randoms=randoms), max_epochs=1)
        assert len(shared_of(tmp_path / str(folder))) == 1
    assert pickle.dumps(pool) == before
    assert whole.file is None


def test_drawing_from_randoms_moves_no_random_stream(tmp_path):
    class Kept(GradCAM):
        """Looks at the stream once everything is opened."""

        state_before = None

        def on_train_start(self, trainer, pl_module):
            super().on_train_start(trainer, pl_module)
            self.state_before = torch.get_rng_state()

    streams = []
    for number, settings in enumerate(({}, {"randoms": Augmenting(40)})):
        watch = Kept()
        fit(tmp_path / str(number), watch, tcav(**settings), max_epochs=1)
        streams.append(watch.state_before)
    assert torch.equal(*streams)


class Augmenting(Samples):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + torch.rand(1), label


def test_randoms_that_cannot_be_copied_are_refused_with_the_way_out(tmp_path):
    held = Samples(40)
    held.transform = lambda image: image
    match = r"randoms= is a \w+, of which a copy made by pickle is read.*Give randoms= the examples as tensors"
    refused(tmp_path, match, tcav(randoms=held, on_error="warn"))
    refused(tmp_path, match, tcav(randoms=Pointing(40), on_error="warn"))
    match = "RuntimeError: the dataset is opened by workers alone. Give randoms= the examples as tensors"
    refused(tmp_path, match, tcav(randoms=OfWorkers(40), on_error="warn"))


def test_plain_tensors_of_a_dataset_are_not_copied(tmp_path):
    pool = TensorDataset(images(40))
    callback = tcav(randoms=pool)
    pool.held = lambda: None  # could not be pickled
    fit(tmp_path, callback, max_epochs=1)
    assert len(shared_of(tmp_path)) == 1


def test_a_copy_has_a_limit():
    data = TensorDataset(torch.zeros(1000))
    assert torch.equal(copied(data, 4000).tensors[0], data.tensors[0])
    with pytest.raises(ValueError, match="too large"):
        copied(data, 3999)


# ------------------------------------------------------------ nests of loaders


class Named(Samples):
    classes = ("ant", "bee", "cat", "dog")


NESTS = {
    "mapping": lambda: {"clean": loader(24, seed=1), "named": DataLoader(Named(24, seed=2), 4)},
    "list": lambda: [loader(24, seed=1), DataLoader(Named(24, seed=2), 4)],
    "nest": lambda: {"all": [loader(24, seed=1), {"named": DataLoader(Named(24, seed=2), 4)}]},
    "combined": lambda: CombinedLoader({"a": loader(24, seed=1), "b": DataLoader(Named(24, seed=2), 4)}, "sequential"),
}


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS.keys())
def test_validation_loaders_in_a_nest(tmp_path, nest):
    concepts, cam = tcav(probe_loader=1), GradCAM(probe_loader=1, on_error="raise")
    fit(tmp_path, concepts, cam, val=nest())
    assert len(shared_of(tmp_path)) == 2
    assert cam.explained.class_names == ["ant", "bee", "cat", "dog"]
    found = concepts.explained.inputs
    pool = Named(24, seed=2).images
    assert all((pool == image).flatten(1).all(1).sum() == 1 for image in found)


def test_nests_are_numbered_as_lightning_does():
    first, second, third, fourth = (loader(4) for _ in range(4))
    nest = {"b": [first, {"z": second, "a": third}], "a": (fourth,)}
    assert flattened(nest) == CombinedLoader(nest, "sequential").flattened == [first, second, third, fourth]
    assert flattened(None) == []


def test_without_validation_the_dataset_is_that_of_the_first_training_loader():
    nest = {"labelled": [DataLoader(Named(8), 4)], "other": loader()}
    run = SimpleNamespace(val_dataloaders=[], test_dataloaders=None, train_dataloader=nest)
    assert dataset_of(run, 0).classes == Named.classes


@pytest.mark.parametrize("nested", [False, True])
def test_too_few_validation_batches_are_refused_before_the_first_step(tmp_path, nested):
    match = "random pool has 4 examples, and each of 4 random sets needs two of its own"
    run = trainer(tmp_path, tcav(on_error="warn"), limit_val_batches=1, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match=match):
        val = loader(24, seed=1)
        run.fit(classifier(), loader(), {"all": [val]} if nested else val)
    assert run.global_step == 0


def test_batches_that_hold_more_than_the_samples_of_a_dataset_are_not_refused(tmp_path):
    def crops(samples):
        return torch.cat([images(12, seed=i) for i in range(2)]), torch.arange(24) % 4

    fit(tmp_path, tcav(), val=DataLoader(Samples(4), 4, collate_fn=crops))
    assert len(shared_of(tmp_path)) == 2


def test_random_sets_without_any_sample_fail_the_reading_alone(tmp_path):
    callback = tcav(on_error="warn", probe=None, random_sets=4)
    few = DataLoader(Samples(24, seed=1), 4, collate_fn=lambda samples: same(samples))
    with pytest.warns(RuntimeWarning, match="random pool has 1 examples"):
        run = fit(tmp_path, callback, val=few)
    assert run.current_epoch == 2


def same(samples):
    return torch.ones(len(samples), 3, 16, 16), torch.tensor([0, 2, 0, 2])[: len(samples)]
