"""What Saliency logs of images, signals, texts and tables, against the function on the weights of each epoch."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import Probe, Saliency, load_run
from lightning_xai.compare.earlier import revive
from lightning_xai.functional import saliency
from lightning_xai.functional.metrics.localization import drift, mask_share
from lightning_xai.render import draw
from lightning_xai.report import Filmstrip, Grid, Tokens, Traces
from tests.support import attention_classifiers, texts
from tests.support.classifier import Classifier, classifier
from tests.support.data import loader
from tests.support.fitted import Reports, fit_reports
from tests.support.probes import make_masks, make_probe
from tests.support.recorder import assert_same, recording
from tests.support.training import trainer

TAG = "xai/saliency/input"


class Signals(Classifier):
    """A convolution along the time of (N, 2, 40)."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv1d(2, 6, 5), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4))


class Steps(Classifier):
    """An LSTM over (N, 9, 2)."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.LSTM(2, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.backbone(x)[0][:, -1])


class Table(Classifier):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Sequential(nn.Linear(5, 8), nn.ReLU()), nn.Linear(8, 4)


def data(*shape, count=8):
    torch.manual_seed(len(shape))
    return DataLoader(TensorDataset(torch.randn(count, *shape), torch.arange(count) % 4), 4)


def rows(callback, key="maps/input"):
    return [reading.measured.rows[key] for reading in callback.state.history.readings]


def test_images(tmp_path):
    probe = make_probe(class_names=["a", "b", "c", "d"], masks=make_masks())
    callback = Saliency(probe=probe, on_error="raise")
    reports, models = fit_reports(tmp_path, callback)
    assert len(reports) == 2
    for report, model, maps in zip(reports, models, rows(callback), strict=True):
        expected = saliency(model, probe.inputs, probe.targets).amax(1)
        assert_close(maps, expected, rtol=1e-3, atol=1e-6)  # kept as float16
        grid, strip = report.pictures[TAG], report.pictures[f"{TAG}/filmstrip"]
        assert isinstance(grid, Grid) and isinstance(strip, Filmstrip)
        assert grid.maps.shape == (4, 16, 16) and grid.title.startswith("Saliency, epoch")
        assert draw(strip).dtype == torch.uint8
        assert report.scalars[f"{TAG}/share/mark"] == pytest.approx(
            float(mask_share(expected, probe.masks["mark"]).mean()), rel=1e-3
        )
        assert report.scalars[f"{TAG}/peak"] == pytest.approx(float(expected.max()), rel=1e-3)
        assert len(report.tables[f"{TAG}/samples"]) == 4
    assert reports[1].scalars[f"{TAG}/drift"] == pytest.approx(float(drift(*reversed(rows(callback))).mean()), abs=1e-3)


def test_the_answers_are_those_of_the_whole_chunk(tmp_path):
    callback = Saliency(probe_size=40, batch_size=40, on_error="raise")
    fit_reports(tmp_path, callback, validation=DataLoader(TensorDataset(*data(3, 16, 16, count=48).dataset.tensors), 8))
    assert rows(callback)[-1].shape == (40, 16, 16)
    assert len(rows(callback, "prediction")[-1]) == 40


@pytest.mark.parametrize(("make", "shape"), [(Signals, (2, 40)), (Steps, (9, 2))], ids=["conv", "lstm"])
def test_signals_are_strips(tmp_path, make, shape):
    batches = data(*shape)
    callback = Saliency(probe_size=4, on_error="raise")
    reports, models = fit_reports(tmp_path, callback, make(), batches, batches)
    probe, length = callback.explained, max(shape)
    picture = reports[-1].pictures[TAG]
    assert isinstance(picture, Traces) and picture.maps.shape == (4, length)
    expected = saliency(models[-1], probe.inputs, probe.targets).amax(1 if make is Signals else 2)
    assert_close(rows(callback)[-1], expected, rtol=1e-3, atol=1e-6)
    assert draw(picture).dtype == torch.uint8


def test_a_table_has_a_cell_a_column(tmp_path):
    batches = data(5)
    callback = Saliency(probe_size=4, on_error="raise")
    reports, models = fit_reports(tmp_path, callback, Table(), batches, batches)
    expected = saliency(models[-1], callback.explained.inputs, callback.explained.targets)
    assert_close(rows(callback)[-1], expected, rtol=1e-3, atol=1e-6)
    assert isinstance(reports[-1].pictures[TAG], Traces)


@pytest.mark.parametrize("padding", [True, False], ids=["with padding", "without"])
def test_texts_are_tokens(tmp_path, padding):
    ids, labels = texts.texts()
    words = [[word for word in texts.decode(row) if padding or word != "[PAD]"] for row in ids]
    callback = Saliency(probe=Probe(ids, labels, tokens=words), on_error="raise")
    batches = texts.text_loader()
    reports, _ = fit_reports(tmp_path, callback, attention_classifiers.Reader(), batches, batches)
    picture = reports[-1].pictures[TAG]
    assert isinstance(picture, Tokens)
    assert [list(tokens) for tokens in picture.tokens] == [texts.decode(row[row > 0]) for row in ids]
    assert [weights.shape[0] for weights in picture.weights] == [2] * 8
    for kept, row in zip(rows(callback)[-1], ids, strict=True):
        assert kept[row > 0].gt(0).all()
    assert draw(picture).dtype == torch.uint8


def test_of_token_ids_the_norm_is_taken(tmp_path):
    batches = texts.text_loader()
    callback = Saliency(probe_size=4, on_error="raise")
    model = attention_classifiers.Reader()
    reports, _ = fit_reports(tmp_path, callback, model, batches, batches, max_epochs=1)
    found = saliency(model, callback.explained.inputs, callback.explained.targets).norm(dim=2)
    assert_close(rows(callback)[-1], found, rtol=1e-2, atol=1e-4)
    assert isinstance(reports[-1].pictures[TAG], Traces)  # nobody said what the tokens are


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 3, "val_check_interval": 2}], ids=["", "within"])
def test_training_is_the_same(tmp_path, settings):
    callback = Saliency(probe_size=4, on_error="raise")
    assert_same(recording(tmp_path, **settings), recording(tmp_path, callback, **settings))
    assert len(callback.state.history.moments) == 2


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_every_precision_and_inference_mode(tmp_path, stage, precision):
    model, callback = classifier(), Saliency(probe=make_probe(), on_error="raise")
    expected = saliency(copy.deepcopy(model), make_probe().inputs, make_probe().targets).amax(1)
    kept = Reports()
    run = trainer(tmp_path, callback, precision=precision, logger=kept)
    getattr(run, stage)(model, loader(8), verbose=False)
    (report,) = kept.reports
    assert_close(report.pictures[TAG].maps.float(), expected, rtol=0.05, atol=0.1 * float(expected.max()))


def test_a_model_without_anything_to_differentiate_by_says_the_way_out(tmp_path):
    class Whole(Classifier):
        def forward(self, image):
            return super().forward(image.float())

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    batches = DataLoader(TensorDataset(images, torch.arange(8) % 4), 4)
    with pytest.warns(RuntimeWarning, match=r"uint8 \(4, 3, 16, 16\).*images.float\(\)"):
        fit_reports(tmp_path, Saliency(probe_size=4), Whole(), batches, batches)
    forward = {"forward": lambda model, inputs: Classifier.forward(model, inputs)}
    callback = Saliency(probe=Probe(images[:4].float(), torch.arange(4)), on_error="raise", **forward)
    fit_reports(tmp_path, callback, Whole(), batches, batches)
    assert len(callback.state.history.moments) == 2


def test_its_scalars_are_known_before_the_first_reading():
    tags = Saliency(probe=make_probe(masks=make_masks())).tags(make_probe(masks=make_masks()))
    assert {f"{TAG}/drift", f"{TAG}/peak", f"{TAG}/share/mark"} <= set(tags)


def test_a_stored_run_opens(tmp_path):
    callback = Saliency(probe_size=4, on_error="raise")
    fit_reports(tmp_path, callback, classifier(), logger=False)
    run = load_run(tmp_path)
    readings = run.readings["saliency"]
    assert [reading.epoch for reading in readings] == [0, 1]
    (entry,) = callback.state.history.store.manifest["callbacks"].values()
    again = revive(entry)
    assert isinstance(again, Saliency)
    assert set(again.report(run.probes["saliency"], readings).pictures) == {TAG, f"{TAG}/filmstrip"}
