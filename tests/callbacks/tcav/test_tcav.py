"""TCAV in training: what it reads, says, keeps and never touches."""

import json
import logging
import math
import random
import subprocess
import sys
from functools import partial
from itertools import pairwise

import numpy
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_xai import TCAV, Concept, Probe, load_run
from lightning_xai.compare.earlier import revive
from lightning_xai.report import Curves
from tests.support.alive import alive
from tests.support.classifier import Augmented, Classifier, classifier
from tests.support.concepts import LAYER, TAG, Seen, bright, fit, images, refused, shared_of, tcav
from tests.support.data import CLASSES, SIZE, Samples, loader
from tests.support.events import events, read_events
from tests.support.messages import lines_with
from tests.support.probes import make_probe
from tests.support.recorder import assert_same, recording
from tests.support.training import NoPictures, seeded, trainer

# ------------------------------------------------------------ what is read and said


def test_scalars_pictures_and_charts_are_logged(tmp_path):
    two = [Concept("bright", bright()), Concept("dark", -bright())]
    callback = tcav(concepts=two, layers=["backbone.1", "backbone.3"], class_names=["a/b", "c", "d", "e"])
    run = fit(tmp_path, callback, logger=TensorBoardLogger(tmp_path))
    scalars, pictures = events(tmp_path)
    for layer in ("backbone.1", "backbone.3"):
        for name in ("score", "lower", "upper", "effect", "effect_lower", "effect_upper", "p_value"):
            assert len(scalars[f"xai/tcav/{layer}/a_b/bright/{name}"]) == 2
        assert set(scalars) >= {f"xai/tcav/{layer}/{name}" for name in ("cav_accuracy/dark", "cav_cosine/bright/dark")}
        assert scalars[f"xai/tcav/{layer}/d/zero_gradients"].keys() == scalars["val_loss"].keys()
        # on the scalars' step
        assert pictures[f"xai/tcav/{layer}/effects"] == sorted(scalars["val_loss"])
    logged = {tag for tag in scalars if tag.startswith("xai/")}
    assert logged == set(callback.tags(None))
    assert {scalar.name for scalar in callback.declared(None) if scalar.leads} < logged
    assert run.callback_metrics["xai/tcav/backbone.1/a_b/bright/effect_upper"] > 0


def test_tensorboard_holds_a_margin_chart_of_the_effect_with_its_band(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2

    fit(tmp_path, tcav(classes=[2]), max_epochs=1, logger=TensorBoardLogger(tmp_path))
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    found = read_events(file)
    layout = layout_pb2.Layout()
    layout.ParseFromString(found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (chart,) = layout.category[0].chart
    (margin,) = chart.margin.series
    ends = (margin.value, margin.lower, margin.upper)
    assert ends == tuple(f"{TAG}/2/bright/effect{end}" for end in ("", "_lower", "_upper"))


def test_the_curves_hold_the_run_and_hollow_points(tmp_path):
    class Watched(TCAV):
        said = ()

        def report(self, probe, history):
            found = super().report(probe, history)
            self.said = (*self.said, found)
            return found

    callback = Watched(**{f: getattr(tcav(), f) for f in ("concepts", "layers", "classes", "random_sets")})
    fit(tmp_path, callback, max_epochs=3)
    assert len(callback.said) == 3
    for epoch, report in enumerate(callback.said):
        curves = report.pictures[f"{TAG}/effects"]
        assert isinstance(curves, Curves)
        assert list(curves.x) == list(range(epoch + 1))
        (curve,) = curves.panels["class 0"]
        reading = load_run(tmp_path).readings["tcav"][epoch]
        assert curve.y[epoch] == reading.scalars[curve.tag] == reading.scalars[f"{TAG}/0/bright/effect"]
        directed = reading.measured.shared[f"directed/{LAYER}"]
        told = bool(directed[0]) and reading.scalars[f"{TAG}/0/bright/p_value"] <= 0.05
        assert curve.solid[epoch] == told
        assert curve.lower[epoch] < curve.upper[epoch]


def test_a_concept_that_is_random_is_hollow_and_says_so(tmp_path):
    callback = tcav(
        concepts=[Concept("bright", bright(40)), Concept("chance", Samples(40, seed=9).images)], random_sets=8
    )
    fit(tmp_path, callback, max_epochs=1, val=loader(160, seed=1))
    run = load_run(tmp_path)
    report = callback.report(run.probes["tcav"], run.readings["tcav"])
    curves = report.pictures[f"{TAG}/effects"]
    solid = {curve.name: curve.solid[-1] for panel in curves.panels.values() for curve in panel}
    assert solid["chance"] is False
    assert "Not told apart now: chance." in curves.note
    assert report.scalars[f"{TAG}/cav_accuracy/bright"] > 0.9 > report.scalars[f"{TAG}/cav_accuracy/chance"]


def test_the_readings_rows_are_those_of_the_probe(tmp_path):
    """A reading and its probe can be joined, whatever classes a given probe holds besides."""
    given = Probe(Samples(24, seed=2).images, Samples(24, seed=2).labels)
    fit(tmp_path, tcav(probe=given))
    run = load_run(tmp_path)
    probe, measured = run.probes["tcav"], run.readings["tcav"][-1].measured
    kept = [index for index, label in enumerate(given.targets.tolist()) if label in (0, 2)]
    assert probe.fingerprint == given[kept].fingerprint
    assert {len(rows) for rows in measured.rows.values()} == {len(kept)}
    assert measured.rows[f"derivatives/{LAYER}"].shape == (len(kept), 1, 4)
    with torch.no_grad():
        assert measured.rows["prediction"].shape == (len(kept),)


def test_the_automatic_probe_has_its_number_of_each_class_asked_for(tmp_path):
    callback = tcav(classes=[3, 1])
    fit(tmp_path, callback)
    assert sorted(callback.explained.targets.tolist()) == [1, 1, 1, 3, 3, 3]


def test_its_own_schedule_and_its_cost_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    callback = tcav(every_n_epochs=2, concepts=[Concept("bright", bright(40)), Concept("dark", -bright(33))])
    fit(tmp_path, callback, max_epochs=5, val=loader(48, seed=1))
    assert [reading.epoch for reading in load_run(tmp_path).readings["tcav"]] == [0, 1, 3, 4]
    cost = lines_with(caplog, "a reading takes")
    # 40 and 33 in batches of 32, four random sets of 33
    assert cost == [
        "TCAV: a reading takes at most 12 forwards of up to 32 examples (2 concepts, 4 random sets), and a forward and "
        "a backward of 6 samples."
    ]


def test_few_examples_are_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    seen = Seen()
    fit(tmp_path, tcav(concepts=[Concept("bright", bright(19)), Concept("dark", -bright(20))], forward=seen))
    assert "concept 'bright' has 19 examples: its direction is uncertain" in caplog.text
    assert "concept 'dark' has" not in caplog.text
    assert caplog.text.count("each random set has 6 examples, the smallest concept 19") == 1
    randoms = torch.cat(seen.batches[2:6])
    assert len(randoms.flatten(1).unique(dim=0)) == 24


@pytest.mark.parametrize("kind", ["tuple", "mapping"])
def test_batches_of_every_structure(tmp_path, kind):
    examples = bright() if kind == "tuple" else {"image": bright()}
    fit(tmp_path, tcav(concepts=[Concept("bright", examples)]), train=loader(kind=kind), val=loader(24, kind, 1))
    assert len(shared_of(tmp_path)) == 2


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_takes_one_reading(tmp_path, stage):
    run = trainer(tmp_path, tcav())
    (metrics,) = getattr(run, stage)(classifier(), loader(24, seed=1), verbose=False)
    assert f"{TAG}/0/bright/effect" in metrics


# ------------------------------------------------------------ the batch's path


class Normalised(Classifier):
    """Normalises once a batch is on its device, and draws random numbers."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        inputs, labels = batch
        torch.randn(3), numpy.random.rand(2), random.random()  # noqa: NPY002
        return (inputs - 50) / 7, labels


def test_concepts_and_random_sets_take_the_path_of_a_batch_exactly_once(tmp_path):
    seen = Seen()
    data = TensorDataset(100 + images(24, seed=1), torch.arange(24) % CLASSES)
    told = {"concepts": [Concept("bright", 200 + bright())], "random_sets": 3, "forward": seen}
    fit(tmp_path, tcav(**told), model=seeded(Normalised), val=DataLoader(data, 4), max_epochs=1)
    concept, *randoms = seen.batches[:4]
    assert torch.equal(concept, (200 + bright() - 50) / 7)
    pool = (data.tensors[0] - 50) / 7
    for batch in randoms:
        assert all((pool == image).flatten(1).all(1).sum() == 1 for image in batch)


def test_a_prepared_concept_is_taken_as_it_is(tmp_path):
    seen = Seen()
    concept = Concept("bright", bright(), prepared=True)
    fit(tmp_path, tcav(concepts=[concept], forward=seen), model=seeded(Normalised), max_epochs=1)
    assert torch.equal(seen.batches[0], bright())


def test_precision_and_device_are_those_of_a_batch(tmp_path):
    seen = Seen()
    fit(tmp_path, tcav(forward=seen), precision="64-true", max_epochs=1)
    assert {batch.dtype for batch in seen.batches} == {torch.float64}


class Noisy(Samples):
    """A validation dataset that augments with every RNG there is."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + torch.rand(1) + random.random() + numpy.random.rand(), label  # noqa: NPY002


def random_batches(folder, seed=0, global_seed=1, make=Samples, **settings):
    seen = Seen()
    model = classifier(global_seed)
    fit(folder, tcav(forward=seen, seed=seed, **settings), model=model, val=DataLoader(make(24, seed=1), 4))
    sets, probe = 4, 1
    readings = [seen.batches[start : start + 1 + sets + probe] for start in range(0, len(seen.batches), 2 + sets)]
    return [reading[1 : 1 + sets] for reading in readings]


def test_random_sets_are_the_same_all_through_a_run_and_for_the_same_seed(tmp_path):
    first = random_batches(tmp_path / "a")
    again = random_batches(tmp_path / "b", global_seed=2)
    other = random_batches(tmp_path / "c", seed=1)
    noisy = random_batches(tmp_path / "d", make=Noisy)
    for readings in (first, noisy):
        assert len(readings) == 2
        assert all(map(torch.equal, *readings))
    assert all(map(torch.equal, first[0], again[0]))
    assert not torch.equal(first[0][0], other[0][0])


def test_random_sets_are_of_the_epoch_that_is_validated_first_also_beside_a_given_probe(tmp_path):
    captured = random_batches(tmp_path / "captured")
    given = random_batches(tmp_path / "given", probe=Probe(Samples(24, seed=1).images, Samples(24, seed=1).labels))
    assert all(map(torch.equal, captured[0], given[0]))
    pool = Samples(24, seed=1).images
    found = torch.cat(captured[0])
    assert all((pool == image).flatten(1).all(1).sum() == 1 for image in found)
    assert len(found.flatten(1).unique(dim=0)) == len(found)


def test_no_more_samples_are_kept_than_the_sets_take(tmp_path):
    class Watching(pl.Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            if batch_idx == 19:
                counts.append(alive(Probe) - before)

    before, watching, counts = alive(Probe), Watching(), []
    callback = tcav(concepts=[Concept("bright", bright(3))], probe=make_probe(12))
    fit(tmp_path, watching, callback, val=loader(80, seed=1))
    probes = 3  # as it is given, its samples of the two classes, and as it is read
    first, second = counts
    assert first <= 12 + probes
    assert second <= probes, "the sets are drawn"


def test_a_monitor_that_looks_before_any_validation_waits_for_random_samples(tmp_path):
    probe = Probe(Samples(12, seed=3).images, Samples(12, seed=3).labels)
    stops = EarlyStopping(f"{TAG}/0/bright/effect", strict=False, check_on_train_epoch_end=True)
    callback = tcav(probe=probe)
    fit(tmp_path, stops, callback, check_val_every_n_epoch=2)
    assert [epoch for epoch, _ in callback.state.history.moments] == [1]


class Images(Samples):
    """Whatever a loader's own collate_fn is needed for."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"pixels": image, "class": label, "file": f"{index}.png", "box": [object()]}


def test_random_sets_are_collated_by_the_loader(tmp_path):
    def collate(samples):
        return torch.stack([s["pixels"] for s in samples]), torch.stack([s["class"] for s in samples])

    fit(tmp_path, tcav(), val=DataLoader(Images(24, seed=1), 4, collate_fn=collate))
    assert len(shared_of(tmp_path)) == 2


RUNS = {
    "plain": {},
    "random transfer hook": {"make": partial(seeded, Augmented)},
    "validation in mid-accumulation": {"accumulate_grad_batches": 3, "val_check_interval": 2},
    "no validation": {"validation": {}},
    "bf16": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS.keys())
def test_training_is_bit_identical(tmp_path, settings):
    captured = tcav(
        layers=["backbone.1", "backbone.3"], concepts=[Concept("bright", bright(8))], classes=[1], probe_per_class=2
    )
    settings = {"train": {"count": 20, "shuffle": True}, **settings}
    plain, explained = recording(tmp_path, **settings), recording(tmp_path, captured, **settings)
    assert captured.explained is not None
    assert_same(plain, explained)


def test_augmented_validation_data_move_no_rng(tmp_path):
    def run(*callbacks):
        fit(tmp_path, *callbacks, val=DataLoader(Noisy(24, seed=1), 4), max_epochs=2)
        return torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()  # noqa: NPY002

    random.seed(0)
    plain = run()
    random.seed(0)
    torch_state, *others = run(tcav())
    assert torch.equal(torch_state, plain[0])
    assert tuple(others) == plain[1:]


# ------------------------------------------------------------ monitors, checkpoints, the store


def test_early_stopping_and_checkpoints_act_on_the_effect(tmp_path):
    effect = f"{TAG}/0/bright/effect"

    class Scripted(TCAV):
        def report(self, probe, history):
            found = super().report(probe, history)
            return type(found)(found.epoch, {**found.scalars, effect: float(len(history))}, found.pictures)

    base = tcav()
    callback = Scripted(**{f: getattr(base, f) for f in ("concepts", "layers", "classes", "random_sets", "on_error")})
    stops = EarlyStopping(effect, mode="min", patience=100, divergence_threshold=2.5)
    keeps = ModelCheckpoint(tmp_path / "kept", monitor=effect, mode="max")
    run = fit(tmp_path, stops, keeps, callback, max_epochs=8, enable_checkpointing=True)
    assert run.current_epoch == 3
    assert float(keeps.best_model_score) == 3.0


def test_a_monitor_of_what_is_not_logged_is_answered(tmp_path):
    stops = EarlyStopping(f"{TAG}/1/bright/effect")
    refused(tmp_path, f"monitors '{TAG}/1/bright/effect', which no callback logs. Close: {TAG}/", stops, tcav())


def checkpointed(folder, epochs, version, ckpt_path=None, **settings):
    keeps = ModelCheckpoint(folder / "kept", f"{version}-{{epoch}}", save_top_k=-1, save_on_train_epoch_end=True)
    callback = tcav(**settings)
    run = trainer(
        folder, keeps, callback, max_epochs=epochs, logger=NoPictures(folder, version), enable_checkpointing=True
    )
    run.fit(classifier(dropout=0.0), loader(), DataLoader(Noisy(24, seed=1), 4), ckpt_path=ckpt_path)
    return callback


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_goes_on_with_the_same_random_sets(tmp_path):
    probe = Probe(Samples(12, seed=3).images, Samples(12, seed=3).labels)
    checkpointed(tmp_path / "straight", 3, "run", probe=probe)
    checkpointed(tmp_path / "stopped", 1, "first", probe=probe)
    ckpt = tmp_path / "stopped" / "kept" / "first-epoch=0.ckpt"
    checkpointed(tmp_path / "stopped", 3, "second", ckpt, probe=probe)
    straight = load_run(tmp_path / "straight").readings["tcav"]
    stopped = load_run(tmp_path / "stopped" / "second").readings["tcav"]
    assert [reading.epoch for reading in stopped] == [0, 1, 2]
    for one, other in zip(straight, stopped, strict=True):
        for name, values in one.measured.shared.items():
            assert torch.equal(values, other.measured.shared[name]), name


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_concepts_and_activations_never_enter_a_checkpoint(tmp_path):
    def size(examples):
        folder = tmp_path / str(examples)
        checkpointed(folder, 1, "run", concepts=[Concept("bright", bright(examples))], randoms=images(2 * examples))
        path = folder / "kept" / "run-epoch=0.ckpt"
        (state,) = (s for key, s in torch.load(path)["callbacks"].items() if key.startswith("TCAV"))
        return path.stat().st_size, state

    (small, _), (large, state) = size(10), size(500)
    assert abs(large - small) < 4096
    (reading,) = state["history"]["readings"]
    assert max(tensor.numel() for tensor in reading["shared"].values()) < 100
    assert json.dumps(sorted(reading["rows"])).count(LAYER) == 4


def test_another_process_reports_the_same_from_the_store(tmp_path):
    callback = tcav(randoms=images(60, seed=3), concepts=[Concept("bright", bright()), Concept("dark", -bright())])
    metrics = fit(tmp_path, callback, max_epochs=3).callback_metrics
    code = (
        "import json, sys; from lightning_xai.compare.reported import report_of\n"
        "from lightning_xai.store import load_run\n"
        "run = load_run(sys.argv[1])\n"
        "report = report_of(run, 'tcav', run.readings['tcav'])\n"
        "curves = {tag: [picture.title, list(picture.x)] for tag, picture in report.pictures.items()}\n"
        "print(json.dumps([dict(report.scalars), curves]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scalars, curves = json.loads(done.stdout.splitlines()[-1])
    expected = {tag: float(value) for tag, value in metrics.items() if tag.startswith("xai/")}
    assert scalars == pytest.approx(expected, rel=1e-6)
    assert curves == {f"{TAG}/effects": [f"Concept effects at {LAYER}, epoch 2", [0, 1, 2]]}


def test_concepts_of_folders_are_revived_by_name(tmp_path):
    for name in ("dotted", "striped"):
        (tmp_path / "concepts" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (9, 9), (80 * index, 0, 0)).save(tmp_path / "concepts" / name / f"{index}.png")
    callback = tcav(concepts=str(tmp_path / "concepts"), mean=[0.5] * 3, std=[0.5] * 3, random_sets=3)
    fit(tmp_path / "run", callback)
    assert callback.concept_names == ["dotted", "striped"]
    entry = load_run(tmp_path / "run").callbacks["tcav"]
    assert revive(entry).tags(None) == callback.tags(None)


def test_random_sets_from_a_folder(tmp_path):
    seen = Seen()
    pool = folder_of(tmp_path / "pool", 6)
    told = {"mean": [0.5] * 3, "std": [0.5] * 3, "random_sets": 3, "forward": seen}
    fit(tmp_path / "run", tcav(randoms=pool, **told), max_epochs=1)
    reds = torch.cat(seen.batches[1:4])[:, 0]
    torch.testing.assert_close(reds.std((1, 2)), torch.zeros(6))
    torch.testing.assert_close(reds.mean((1, 2)).sort().values, 2 * 40 * torch.arange(6) / 255 - 1)


# ------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"concepts": []}, "there must be one or more"),
        ({"concepts": [Concept("a", images()), Concept("a", bright())]}, r"\['a', 'a'\] need different names"),
        ({"classes": []}, r"classes=\[\] must be one or more different class indices"),
        ({"classes": [1, 1]}, r"classes=\[1, 1\] must be one or more different"),
        ({"classes": [-1]}, r"classes=\[-1\] must be"),
        ({"class_names": ["ant", "bee"]}, "class 2 has no name among 2 class_names"),
        ({"random_sets": 10, "test": "rank"}, "1 concept needs at least 19 random sets, and 10 were given"),
        ({"random_sets": 2}, "needs at least 3 random sets"),
        ({"test": "z"}, "test='z' is unknown; expected one of 't', 'rank'"),
        ({"probe_per_class": 0}, "probe_per_class=0 is out of range"),
    ],
)
def test_settings_that_cannot_work_are_refused_where_they_are_written(settings, text):
    with pytest.raises(ValueError, match=text):
        tcav(**settings)


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Samples(24, seed=1)[index] for index in range(24))


def given_probe(count=12, size=SIZE):
    labels = torch.arange(count) % CLASSES
    return Probe(torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)), labels)


BEFORE_TRAINING = {
    "layer": ({"layers": "backbone.9"}, "no layer 'backbone.9'. Did you mean 'backbone."),
    "class": ({"probe": given_probe(2)}, r"no sample of the classes \[2\]: it has labels \[0, 1\]"),
    "labels": ({"probe": Probe(images())}, r"no sample of the classes \[0, 2\]: it has no labels"),
    "shape": (
        {"probe": given_probe(size=20)},
        r"'?bright'? have the shape \(3, 16, 16\), the probe's samples \(3, 20, 20\)",
    ),
    "pool": ({"randoms": images(7)}, "random pool has 7 examples, and each of 4 random sets needs two of its own"),
    "default pool": ({"random_sets": 13}, "random pool has 24 examples, and each of 13 random sets needs two"),
    "no pool": ({"randoms": Stream()}, "which a Stream does not allow: give randoms= a map-style dataset"),
}


@pytest.mark.parametrize(("settings", "text"), BEFORE_TRAINING.values(), ids=BEFORE_TRAINING.keys())
def test_what_cannot_work_ends_before_training_even_where_errors_only_warn(tmp_path, settings, text):
    refused(tmp_path, text, tcav(**{"on_error": "warn", **settings}))


def test_random_sets_of_an_iterable_dataset(tmp_path):
    fit(tmp_path / "stream", tcav(), val=DataLoader(Stream(), 4))
    fit(tmp_path / "map", tcav(), val=loader(24, seed=1))
    for one, other in zip(shared_of(tmp_path / "stream"), shared_of(tmp_path / "map"), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def folder_of(path, number):
    path.mkdir(parents=True)
    for index in range(number):
        Image.new("RGB", (20, 30), (40 * index, 0, 0)).save(path / f"{index}.png")
    return str(path)


def test_folders_that_cannot_be_concepts_end_before_training(tmp_path):
    one, two = folder_of(tmp_path / "one", 1), folder_of(tmp_path / "of" / "striped", 2)
    refused(tmp_path / "a", "one holds one image: a direction needs two or more", tcav(concepts=[one]))
    refused(tmp_path / "b", "of holds folders of images: give one of them", tcav(concepts=[str(tmp_path / "of")]))
    with pytest.raises(ValueError, match="like= needs a Probe of images with mean and std"):
        fit(tmp_path / "c", tcav(concepts=[two]))
    with pytest.raises(FileNotFoundError, match="nowhere holds no images"):
        tcav(concepts=str(tmp_path / "nowhere"))


def test_a_class_absent_from_the_data_is_named(tmp_path):
    data = TensorDataset(images(24), torch.zeros(24, dtype=torch.long))
    with pytest.raises(ValueError, match=r"no sample of the classes \[2\]: it has labels \[0\]"):
        fit(tmp_path / "some", tcav(), val=DataLoader(data, 4))
    with pytest.raises(ValueError, match=r"no sample of the classes \[2, 3\] was seen to take a probe from"):
        fit(tmp_path / "none", tcav(classes=[2, 3]), val=DataLoader(data, 4))


def test_a_class_that_the_model_does_not_have_is_named(tmp_path):
    data = TensorDataset(images(24), torch.arange(24) % 6)
    with pytest.raises(IndexError, match="5"):
        fit(tmp_path, tcav(classes=[5]), train=loader(), val=DataLoader(data, 4), model=seeded(Unvalidated))


class Unvalidated(Classifier):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass


class Fragile(Classifier):
    """Scales each image by its own spread in the transfer hook: a flat image becomes NaN."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        inputs, labels = batch
        return inputs / inputs.std((1, 2, 3), keepdim=True), labels


def test_a_broken_concept_does_not_spoil_the_others(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    good, flat = Concept("bright", bright()), Concept("flat", torch.ones(12, 3, SIZE, SIZE))
    other = Concept("dark", -bright())
    alone = fit(tmp_path / "a", tcav(concepts=[good, other]), model=seeded(Fragile), max_epochs=1).callback_metrics
    beside = fit(tmp_path / "b", tcav(concepts=[good, flat, other]), model=seeded(Fragile), max_epochs=1)
    metrics = beside.callback_metrics
    assert {tag: metrics[tag] for tag in alone if tag.startswith("xai/")} == {
        tag: value for tag, value in alone.items() if tag.startswith("xai/")
    }
    assert metrics[f"{TAG}/0/flat/effect"] == 0
    assert metrics[f"{TAG}/0/flat/p_value"] == 1
    assert metrics[f"{TAG}/cav_cosine/flat/dark"] == 0
    assert "concept 'flat' has NaN or infinity at layer 'backbone.1': it is left out there" in caplog.text


def test_identical_examples_leave_the_others_alone(tmp_path):
    good, same = Concept("bright", bright()), Concept("same", torch.zeros(12, 3, SIZE, SIZE))
    metrics = fit(tmp_path, tcav(concepts=[good, same]), max_epochs=1).callback_metrics
    assert all(math.isfinite(value) for value in metrics.values())


class Dead(Classifier):
    def __init__(self):
        super().__init__()
        self.backbone[4] = nn.Sequential(nn.Hardtanh(5.0, 6.0), nn.Threshold(7.0, 0.0))


def test_a_dead_layer_says_nothing_and_breaks_nothing(tmp_path):
    metrics = fit(tmp_path, tcav(layers="backbone.4"), model=seeded(Dead), max_epochs=2).callback_metrics
    tag = "xai/tcav/backbone.4"
    assert metrics[f"{tag}/0/bright/effect"] == 0
    assert metrics[f"{tag}/0/bright/p_value"] == 1
    assert metrics[f"{tag}/cav_accuracy/bright"] <= 0.5
    assert not shared_of(tmp_path)[-1]["directed/backbone.4"].any()


class WithLogits(Classifier):
    """Takes its inputs through a method only."""

    def logits(self, image):
        return super().forward(image)

    def forward(self, image):
        raise NotImplementedError


def test_a_last_layer_before_pooling_and_a_linear_head_is_told_and_an_earlier_one_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    fit(tmp_path, tcav(layers="backbone.4", forward="logits"), model=seeded(Trained), max_epochs=1)
    (line,) = lines_with(caplog, "the gradient is the same")
    assert "Take an earlier layer, such as 'backbone." in line
    assert "'backbone.4'. Take" not in line
    run = load_run(tmp_path)
    curves = revive(run.callbacks["tcav"]).report(run.probes["tcav"], run.readings["tcav"])
    assert "each score is 0 or 1" in curves.pictures["xai/tcav/backbone.4/effects"].note


class Trained(WithLogits):
    def loss(self, batch):
        return nn.functional.cross_entropy(self.logits(batch[0]), batch[1])


def test_the_curve_never_shows_an_effect_between_readings(tmp_path):
    fit(tmp_path, tcav(every_n_epochs=3), max_epochs=6, logger=TensorBoardLogger(tmp_path))
    scalars, _ = events(tmp_path)
    steps = sorted(scalars[f"{TAG}/0/bright/effect"])
    assert [b - a for a, b in pairwise(steps)] == [6, 9]
