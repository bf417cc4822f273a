"""What is wrong is said clearly, before the first step where it can be, and the run goes on where it can."""

import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, default_collate

from lightning_xai import TCAV, Concept, GradCAM, load_run
from lightning_xai.render import draw
from lightning_xai.render.overlay import notes
from tests.support.classifier import Classifier, classifier
from tests.support.data import CLASSES, Samples, loader
from tests.support.events import events
from tests.support.messages import said
from tests.support.probes import make_probe
from tests.support.training import NoPictures, trainer

TAG = "xai/grad_cam/auto"


class Counter(pl.Callback):
    """Counts the batches that the run has seen, those of the sanity check included."""

    def __init__(self):
        self.batches = 0

    def on_train_batch_start(self, *args):
        self.batches += 1

    def on_validation_batch_start(self, *args):
        self.batches += 1


def unseen(folder, *callbacks, **settings):
    """A Trainer whose pictures nobody looks at."""
    return trainer(folder, *callbacks, **{"logger": NoPictures(), **settings})


def refused(folder, match, *callbacks, model=None, error=ValueError):
    """The run ends with this error before it has seen a batch."""
    counter = Counter()
    run = unseen(folder, counter, *callbacks)
    with pytest.raises(error, match=match):
        run.fit(model or classifier(), loader(), loader(8, seed=1))
    assert counter.batches == 0


def warned(folder, match, *callbacks, model=None, epochs=3, **settings):
    """The run warns once, and goes on to its end."""
    run = unseen(folder, *callbacks, max_epochs=epochs, **settings)
    with pytest.warns(RuntimeWarning, match=match) as caught:
        run.fit(model or classifier(), loader(), loader(8, seed=1))
    ours = [str(warning.message) for warning in caught if "Training goes on; said once" in str(warning.message)]
    assert len(ours) == 1
    assert run.current_epoch == epochs
    assert run.global_step == epochs * 3
    return run


# ------------------------------------------------------------ refused where it is written


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"variant": "gradcam"}, r"there is no variant 'gradcam'\. Did you mean 'grad_cam'.*Variants: grad_cam, "),
        ({"on_error": "ignore"}, "on_error='ignore' is unknown: give 'warn' or 'raise'"),
        ({"every_n_epochs": 0}, "every_n_epochs=0 is out of range: give 1 or more"),
        ({"every_n_validations": 0}, "every_n_validations=0 is out of range: give 1 or more"),
        ({"probe_size": 0}, "probe_size=0 is out of range: give 1 or more"),
        ({"name": "a/b"}, "name='a/b' holds a slash, which would split the tags: leave it out"),
        ({"scale": "epoch"}, "scale='epoch' is unknown: give 'run' or 'image'"),
        ({"target": "labels"}, "target='labels' is unknown: give 'label', 'predicted', a class index or a function"),
        ({"target": "nowhere:score"}, "nothing can be imported from 'nowhere:score'.*Write it as 'module:name'"),
        ({"target": "torch:no_such"}, "nothing can be imported from 'torch:no_such'"),
        ({"labels": "second"}, "labels='second' is unknown: give a function of the batch, or its import path"),
        ({"reshape": "torch:no_such"}, "nothing can be imported from 'torch:no_such'"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_work_are_refused_at_once(settings, text):
    with pytest.raises(ValueError, match=text):
        GradCAM(**settings)


def test_a_mask_of_the_wrong_shape_is_refused_with_the_shape_that_fits():
    with pytest.raises(ValueError, match=r"mask 'object' has shape \(4, 8, 8\), expected \(4, 16, 16\)"):
        make_probe(masks={"object": torch.zeros(4, 8, 8, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"mask 'object' has shape \(3, 16, 16\), expected \(4, 16, 16\)"):
        make_probe(masks={"object": torch.zeros(3, 16, 16, dtype=torch.bool)})
    with pytest.raises(TypeError, match=r"mask 'object' is torch.float32, expected torch.bool"):
        make_probe(masks={"object": torch.zeros(4, 16, 16)})


# ------------------------------------------------------------ refused before the first step


def test_an_unknown_layer_is_answered_with_the_close_matches(tmp_path):
    match = r"the model has no layer 'backbon\.3'\. Did you mean 'backbone\.3' or "
    refused(tmp_path, match, GradCAM(layers="backbon.3"))
    refused(tmp_path, "the model has no layer 'encoder.*'", GradCAM(layers=["backbone.0", "encoder.*"]))
    refused(tmp_path, "layers is empty", GradCAM(layers=[]))


def test_a_module_without_forward_is_told_what_to_define_or_give(tmp_path):
    class NoForward(Classifier):
        forward = pl.LightningModule.forward

    match = "NoForward defines no forward.*define one that returns logits, or give forward= the name of a method"
    refused(tmp_path, match, GradCAM(), model=NoForward())


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        ("predict_logits", "forward='predict_logits' is no method of Classifier: give the name of one"),
        ("nowhere:function", "nothing can be imported from 'nowhere:function'"),
    ],
)
def test_a_forward_that_is_not_there_is_refused(tmp_path, forward, text):
    refused(tmp_path, text, GradCAM(forward=forward))


def test_equal_tags_are_refused_with_a_name_that_would_do(tmp_path):
    match = "two callbacks log under 'xai/grad_cam'.*GradCAM\\(name='grad_cam_2'\\)"
    refused(tmp_path, match, GradCAM(layers="backbone.0"), GradCAM(layers="backbone.3"))
    refused(tmp_path, match, GradCAM(), GradCAM(name="grad_cam", variant="score_cam"))


def test_a_misspelt_monitor_of_ours_is_answered_with_the_close_tags(tmp_path):
    match = f"EarlyStopping monitors '{TAG}/drif', which no callback logs. Close: {TAG}/drift"
    refused(tmp_path, match, GradCAM(), EarlyStopping(f"{TAG}/drif"))
    match = "which no callback logs.*Scalars of masks need a given Probe with masks="
    refused(tmp_path, match, GradCAM(probe=make_probe()), EarlyStopping(f"{TAG}/share/object"))
    refused(tmp_path, "which no callback logs", GradCAM(layers="backbone.3"), EarlyStopping(f"{TAG}/drift"))


def test_a_probe_path_that_does_not_exist_is_named(tmp_path):
    match = r"there is no saved Probe at .*missing\.pt: Probe\(\.\.\.\)\.save\(path\) writes one"
    refused(tmp_path, match, GradCAM(probe=str(tmp_path / "missing.pt")), error=FileNotFoundError)


def test_class_names_that_are_too_few_for_a_given_probe_are_refused(tmp_path):
    match = r"target \d has no name among 1 class_names \(ant\)"
    refused(tmp_path, match, GradCAM(probe=make_probe(8), class_names=["ant"]))


# ------------------------------------------------------------ said once, and the run goes on


class WithUnused(Classifier):
    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(3, 3, 1)


class Odd(Classifier):
    """Gives back more than logits."""

    def forward(self, image):
        logits = super().forward(image)
        return {"first": logits, "second": logits} if not torch.is_grad_enabled() or not self.training else logits

    def loss(self, batch):
        output = self(batch[0])
        return nn.functional.cross_entropy(output if isinstance(output, torch.Tensor) else output["first"], batch[1])


class Dense(Classifier):
    """Logits (N, classes, H, W)."""

    def forward(self, image):
        return self.backbone(image)[:, :CLASSES]

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]).mean((2, 3)), batch[1])


FAILURES = {
    "layer never runs": (
        WithUnused,
        {"layers": "unused"},
        ValueError,
        r"the reading of epoch 0 failed. ValueError: layer 'unused' did not run in this forward. Layers that did",
    ),
    "target out of range": (
        Classifier,
        {"target": CLASSES},
        IndexError,
        f"target 4 of sample 0 is out of range: the model has {CLASSES} classes, 0 to {CLASSES - 1}",
    ),
    "negative target": (Classifier, {"target": -1}, IndexError, "target -1 of sample 0 is out of range"),
    "output of a kind of its own": (
        Odd,
        {},
        TypeError,
        r"found no logits in the model's output, a dict with the keys \['first', 'second'\]. Expected.*Pass forward=",
    ),
    "output of pixels": (
        Dense,
        {},
        ValueError,
        r"the logits have the shape \(2, 4, 4, 4\); expected \(N, classes\).*callable target",
    ),
    "callable target of the wrong shape": (
        Classifier,
        {"target": lambda output: output.sum()},
        ValueError,
        "the callable target returned shape",
    ),
    "layer without cells": (Classifier, {"layers": "head.3"}, ValueError, "head.3"),
}


@pytest.mark.parametrize(("model", "settings", "error", "text"), FAILURES.values(), ids=FAILURES.keys())
def test_a_reading_that_fails_is_said_once_and_the_run_goes_on(tmp_path, model, settings, error, text):
    run = warned(tmp_path, text, GradCAM(probe_size=4, **settings), model=model())
    assert "val_loss" in run.callback_metrics
    assert not [tag for tag in run.callback_metrics if tag.startswith("xai/")]


@pytest.mark.parametrize(("model", "settings", "error", "text"), FAILURES.values(), ids=FAILURES.keys())
def test_on_error_raise_stops_the_run(tmp_path, model, settings, error, text):
    run = unseen(tmp_path, GradCAM(probe_size=4, on_error="raise", **settings))
    with pytest.raises(error, match=text.rpartition("Error: ")[2]):
        run.fit(model(), loader(), loader(8, seed=1))


def test_a_later_failure_logs_the_last_values_again(tmp_path):
    def forward(model, inputs):
        if model.current_epoch == 2:
            raise ArithmeticError("no more")
        return model(inputs)

    match = "failed; the last values are logged again. ArithmeticError: no more"
    warned(tmp_path, match, GradCAM(forward=forward), logger=TensorBoardLogger(tmp_path))
    scalars, images = events(tmp_path)
    drift = list(scalars[f"{TAG}/drift"].values())
    assert len(drift) == 3
    assert drift[-1] == drift[-2]
    assert images[TAG] == [2, 5]


def test_a_probe_larger_than_the_data_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    callback = GradCAM(probe_size=64, on_error="raise")
    unseen(tmp_path, callback, max_epochs=3).fit(classifier(), loader(), loader(8, seed=1))
    assert said(caplog, "64 samples was asked for, but the data has 8: these are explained") == 1
    assert len(callback.explained) == 8


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_an_empty_validation_set_gives_a_probe_of_training_samples(tmp_path):
    callback = GradCAM(probe_size=4, on_error="raise")
    run = unseen(tmp_path, callback)
    run.fit(classifier(), loader(), DataLoader(Samples(0), 4))
    assert len(callback.explained) == 4
    assert f"{TAG}/drift" in run.callback_metrics


def test_a_missing_validation_loader_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = unseen(tmp_path, GradCAM(probe_loader=2), max_epochs=3)
    run.fit(classifier(), loader(), loader(8, seed=1))
    assert said(caplog, "GradCAM: no batch was seen to take a probe from, so there is nothing to explain") == 1
    assert run.current_epoch == 3


def test_without_labels_the_predicted_class_is_explained(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    callback = GradCAM(probe_size=4, on_error="raise")
    tensors = {"kind": "tensor"}
    unseen(tmp_path, callback, max_epochs=3).fit(classifier(), loader(**tensors), loader(8, seed=1, **tensors))
    assert said(caplog, "the probe has no class labels, so the predicted class is explained") == 1
    assert callback.explained.targets is None


class Regression(Classifier):
    def loss(self, batch):
        return (self(batch[0])[:, 0] - batch[1]).square().mean()


class Floats(Samples):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, label.float()


def test_float_labels_are_no_classes_and_the_predicted_one_is_explained(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    callback = GradCAM(probe_size=4, on_error="raise")
    unseen(tmp_path, callback).fit(Regression(), DataLoader(Floats(), 4), DataLoader(Floats(8), 4))
    assert said(caplog, "the probe has no class labels, so the predicted class is explained") == 1
    assert callback.explained.targets is None


def test_extracted_labels_have_to_be_classes(tmp_path):
    match = "no probe could be taken from the batches. TypeError: the targets are a torch.float32 tensor of shape"
    warned(tmp_path, match, GradCAM(labels=lambda batch: batch[1].float()))
    run = unseen(tmp_path, GradCAM(labels=lambda batch: batch[1].float(), on_error="raise"))
    with pytest.raises(TypeError, match="expected class indices"):
        run.fit(classifier(), loader(), loader(8, seed=1))


def jagged(rows=2):
    return torch.nested.nested_tensor([torch.zeros(n + 1) for n in range(rows)], layout=torch.jagged)


BESIDE = {
    "jagged": jagged,
    "jagged, as many": lambda: jagged(4),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "sparse rows": lambda: torch.eye(4).to_sparse_csr(),
    "sparse": lambda: torch.eye(4).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(4, 2), 0.1, 0, torch.qint8),
    "another number": lambda: torch.zeros(7, 2),
    "none at all": lambda: torch.zeros(0, 2),
    "a number": lambda: torch.tensor(3.0),
    "None": lambda: None,
    "text": lambda: ["a", "b", "c", "d"],
    "numbers": lambda: 3,
    "ragged": lambda: [torch.zeros(2, 4), torch.zeros(5, 4), torch.zeros(0, 4), torch.zeros(1, 4)],
    "arrays": lambda: np.zeros((4, 2)),
    "a mapping": lambda: {"boxes": [torch.zeros(1, 4), torch.zeros(2, 4)], "path": ["a", "b"]},
    "an iterator": lambda: iter(()),
}


class Beside(Classifier):
    """Takes the image and the label of a batch, whatever else there is."""

    def forward(self, image, **_):
        return super().forward(image)

    def loss(self, batch):
        image, label = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch[:2]
        return nn.functional.cross_entropy(self(image), label)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), batch_size=4)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)


def beside(kind, make):
    """Batches that hold one more thing, in front of the others where they are named."""

    def collate(samples):
        batch = default_collate(samples)
        return {"extra": make(), **batch} if kind == "mapping" else (*batch, make())

    return {"collate_fn": collate, "kind": kind}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings(
    "ignore:.*quantize_per_tensor:UserWarning", "ignore:torch.ao.quantization:DeprecationWarning"
)
@pytest.mark.parametrize("kind", ["tuple", "mapping"])
@pytest.mark.parametrize("make", BESIDE.values(), ids=BESIDE.keys())
def test_whatever_lies_beside_images_and_labels_is_left_alone(tmp_path, kind, make):
    callback = GradCAM(probe_size=4, on_error="raise", layers="backbone.3")
    tcav = TCAV(
        concepts=[Concept("noise", torch.rand(4, 3, 16, 16))],
        layers="backbone.1",
        classes=[0],
        random_sets=3,
        on_error="raise",
        forward=lambda model, inputs: model(inputs["image"] if isinstance(inputs, dict) else inputs),
    )
    told = beside(kind, make)
    run = unseen(tmp_path, callback, tcav, max_epochs=1)
    run.fit(Beside(), loader(**told), loader(8, seed=1, **told))
    assert len(callback.explained) == 4
    assert callback.explained.targets is not None
    assert len(callback.state.history.moments) == len(tcav.state.history.moments) == 1
    assert callback.state.batch_structure is not None


class Loose(Beside):
    """Takes batches of any make."""

    def loss(self, batch):
        return self(torch.ones(4, 3, 16, 16)).square().mean()


UNUSABLE = {
    "nested images": lambda: (torch.nested.nested_tensor([torch.zeros(3, 4, 4)] * 2), torch.arange(2)),
    "sparse images": lambda: (torch.zeros(2, 3, 4, 4).to_sparse(), torch.arange(2)),
    "ragged images": lambda: ([torch.zeros(3, 4, 4), torch.zeros(2, 4, 4)], torch.arange(2)),
    "text": lambda: (["a", "b"], torch.arange(2)),
    "nothing": lambda: (None, None),
    "no sample": lambda: (torch.zeros(0, 3, 4, 4), torch.zeros(0, dtype=torch.long)),
    "an object": object,
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_batches_that_no_probe_can_be_taken_from_are_said_once(tmp_path, make):
    sizes = iter(range(100))

    def collate(samples):
        # texts that differ from batch to batch
        return make() if next(sizes) % 2 else ([torch.zeros(next(sizes), 2), torch.zeros(next(sizes), 2)], None)

    data = {"train_dataloaders": loader(collate_fn=collate), "val_dataloaders": loader(12, collate_fn=collate)}
    run = unseen(tmp_path, GradCAM(), max_epochs=2)
    with pytest.warns(RuntimeWarning, match="no probe could be taken from the batches") as caught:
        run.fit(Loose(), **data)
    assert len([warning for warning in caught if "no probe could be taken" in str(warning.message)]) == 1
    assert run.current_epoch == 2


def test_a_batch_that_holds_itself_is_said_once(tmp_path):
    class Untransferred(Loose):
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            return batch

    def collate(samples):
        batch = [*default_collate(samples)]
        batch[0] = [batch]
        return batch

    run = unseen(tmp_path, GradCAM())
    with pytest.warns(RuntimeWarning, match="no probe could be taken from the batches. RecursionError"):
        run.fit(Untransferred(), loader(), loader(8, collate_fn=collate))
    assert run.current_epoch == 2


def test_an_unusable_batch_leaves_the_choice_to_the_others(tmp_path):
    batches = iter(range(100))

    def collate(samples):
        return default_collate(samples) if next(batches) % 2 else (["a", "b"], torch.arange(2))

    callback = GradCAM(probe_size=4)
    run = unseen(tmp_path, callback, num_sanity_val_steps=0)
    with pytest.warns(RuntimeWarning, match="no probe could be taken from the batches. TypeError: a Probe needs"):
        run.fit(Loose(), loader(), loader(16, collate_fn=collate))
    assert len(callback.explained) == 4
    assert len(callback.state.history.moments) == 2


def test_entries_that_some_batches_lack_are_left_out_of_the_probe(tmp_path):
    batches = iter(range(100))

    def collate(samples):
        extra = {} if next(batches) % 2 else {"extra": torch.zeros(4)}
        return {**default_collate(samples), **extra}

    callback = GradCAM(probe_size=6, on_error="raise")
    run = unseen(tmp_path, callback, max_epochs=1, num_sanity_val_steps=0)
    run.fit(Beside(), loader(kind="mapping"), loader(16, kind="mapping", collate_fn=collate))
    assert list(callback.explained.inputs) == ["image"]


def test_more_than_tensors_among_the_inputs_of_a_tuple_is_named(tmp_path):
    def collate(samples):
        images, labels = default_collate(samples)
        return (images, ["a"] * len(images)), labels

    run = unseen(tmp_path, GradCAM())
    with pytest.warns(RuntimeWarning, match="the inputs hold a list beside tensors, which cannot be cut into samples"):
        run.fit(Loose(), loader(), loader(8, collate_fn=collate))
    assert run.current_epoch == 2


class Poison(pl.Callback):
    """Makes the activations of two channels NaN, from an epoch on."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.epoch:
            with torch.no_grad():
                pl_module.backbone[3].bias.fill_(torch.nan)


def test_maps_of_nan_are_counted_drawn_as_such_and_the_run_goes_on(tmp_path):
    callback = GradCAM(probe_size=4, on_error="raise")
    run = trainer(tmp_path, Poison(1), callback, max_epochs=3)
    run.fit(classifier(), loader(), loader(8, seed=1))
    scalars, images = events(tmp_path)
    assert list(scalars[f"{TAG}/nan_maps"].values()) == [0, 4, 4]
    assert list(scalars[f"{TAG}/zero_maps"].values())[1:] == [0, 0]
    assert all(torch.tensor(list(scalars[f"{TAG}/{name}"].values())).isfinite().all() for name in ("drift", "peak"))
    assert len(images[TAG]) == 3
    readings = callback.state.history.readings
    report = callback.report(callback.explained, readings)
    assert notes(report.pictures[TAG].maps) == ["NaN"] * 4
    assert [draw(picture).dtype for picture in report.pictures.values()] == [torch.uint8] * 2


def test_maps_of_nan_from_the_start_do_not_stop_the_run(tmp_path):
    model = classifier()
    with torch.no_grad():
        model.backbone[3].bias.fill_(torch.nan)
    probe = make_probe(masks={"object": torch.ones(4, 16, 16, dtype=torch.bool)})
    run = unseen(tmp_path, GradCAM(probe=probe, on_error="raise"))
    run.fit(model, loader(), loader(8, seed=1))
    assert run.callback_metrics[f"{TAG}/nan_maps"] == 4
    assert run.callback_metrics[f"{TAG}/share/object"] == 0


# ------------------------------------------------------------ what cannot be written


def test_a_file_in_the_place_of_the_store_costs_the_store_alone(tmp_path):
    logger = TensorBoardLogger(tmp_path, version="run")
    (tmp_path / "lightning_logs" / "run").mkdir(parents=True)
    (tmp_path / "lightning_logs" / "run" / "xai").write_text("in the way")
    warned(
        tmp_path,
        "the folder of the TensorBoardLogger cannot be used, so the readings go to .*xai",
        GradCAM(),
        logger=logger,
    )
    assert (tmp_path / "lightning_logs" / "run" / "xai").read_text() == "in the way"
    assert len(load_run(tmp_path / "xai" / "version_0").readings["grad_cam"]) == 3
    scalars, images = events(tmp_path)
    assert len(images[TAG]) == len(scalars[f"{TAG}/drift"]) == 3


def test_a_folder_that_vanishes_is_made_again(tmp_path):
    class Tidy(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            for file in tmp_path.rglob("xai/grad_cam/*.npz"):
                file.unlink()

    callback = GradCAM(on_error="raise")
    trainer(tmp_path, Tidy(), callback, max_epochs=3).fit(classifier(), loader(), loader(8, seed=1))
    assert len(list(tmp_path.rglob("xai/grad_cam/*.npz"))) == 1
    assert len(events(tmp_path)[1][TAG]) == 3


def test_a_logger_that_takes_no_pictures_costs_the_pictures_alone(tmp_path):
    def add_image(*args, **kwargs):
        raise OSError("the disk is full")

    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_image = add_image
    warned(
        tmp_path,
        "(?s)TensorBoardLogger took no pictures; they are files in .*OSError: the disk is full",
        GradCAM(),
        logger=logger,
    )
    scalars, images = events(tmp_path)
    assert TAG not in images
    assert len(scalars[f"{TAG}/drift"]) == 3
    assert len(list(tmp_path.rglob("xai/grad_cam/*.npz"))) == 3


def test_a_logger_that_cannot_be_opened_is_said_and_the_run_goes_on(tmp_path):
    def add_text(*args, **kwargs):
        raise OSError("the disk is full")

    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_text = add_text
    warned(tmp_path, "TensorBoardLogger could not be prepared. OSError", GradCAM(probe=make_probe()), logger=logger)
    assert len(events(tmp_path)[1][TAG]) == 3
