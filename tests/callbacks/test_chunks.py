"""A probe in chunks: what is measured of its parts is what is measured of the whole, and memory that runs out."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import TCAV, AttentionMaps, Concept, GradCAM, Probe, Saliency
from lightning_xai.functional.grad_cam import VARIANTS
from tests.support.attention_classifiers import Attending, Encoder
from tests.support.classifier import classifier
from tests.support.data import SIZE, Samples, loader
from tests.support.recorder import assert_same, recording
from tests.support.texts import text_loader
from tests.support.training import NoPictures, trainer


def concepts():
    random = torch.Generator().manual_seed(5)
    return [Concept(name, torch.randn(8, 3, SIZE, SIZE, generator=random)) for name in ("one", "other")]


def images():
    random = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(24, 3, SIZE, SIZE, generator=random), torch.arange(24) % 3), 6)


MADE = {
    **{variant: lambda variant=variant, **s: GradCAM(variant=variant, probe_size=8, **s) for variant in VARIANTS},
    "layers": lambda **s: GradCAM(layers=["features.0", "features.2"], probe_size=8, **s),
    "attention": lambda **s: AttentionMaps(matrices="attention", probe_size=8, **s),
    "concepts": lambda **s: TCAV(
        concepts=concepts(), layers="features.1", classes=[0, 2], probe_per_class=4, random_sets=3, **s
    ),
    "saliency": lambda **s: Saliency(probe_size=8, **s),
}


def last(callback):
    return callback.state.history.readings[-1].measured


def compared(folder, make, model, data, **settings):
    """The last measurement of a run in chunks of 3, and whole; and the scalars of both."""
    whole, parts = (make(name=name, batch_size=size, on_error="raise") for name, size in (("whole", 32), ("parts", 3)))
    run = trainer(folder, whole, parts, logger=NoPictures(), num_sanity_val_steps=0, **settings)
    run.fit(model, data, data)
    scalars = {
        name: {
            key.removeprefix(f"xai/{name}/"): float(value)
            for key, value in run.callback_metrics.items()
            if key.startswith(f"xai/{name}/")
        }
        for name in ("whole", "parts")
    }
    return last(whole), last(parts), scalars["whole"], scalars["parts"]


def assert_alike(whole, parts, scalars, others):
    assert whole.rows.keys() == parts.rows.keys() and whole.kept.keys() == parts.kept.keys()
    for one, other in ((whole.rows, parts.rows), (whole.shared, parts.shared), (whole.kept, parts.kept)):
        for key, tensor in one.items():
            # in float16 in a history: a step of it, where 1e-6 falls on the other side
            assert_close(other[key], tensor, rtol=1.1e-3 if tensor.dtype == torch.float32 else 0, atol=1e-6)
    assert others == pytest.approx(scalars, rel=1e-5, abs=1e-6, nan_ok=True)
    assert scalars


@pytest.mark.parametrize("name", MADE)
def test_parts_are_the_whole(tmp_path, name):
    torch.manual_seed(0)
    assert_alike(*compared(tmp_path, MADE[name], Attending(), images()))


@pytest.mark.parametrize("make", [AttentionMaps, Saliency])
def test_parts_of_texts_are_the_whole(tmp_path, make):
    torch.manual_seed(0)
    data = text_loader(mapping=True)
    assert_alike(*compared(tmp_path, lambda **s: make(probe_size=8, **s), Encoder(), data))


def test_parts_are_at_most_a_batch_and_even(tmp_path):
    seen = Seen()
    callback = Saliency(probe_size=10, batch_size=4, forward=seen, on_error="raise")
    trainer(tmp_path, callback, logger=NoPictures(), max_epochs=1).fit(classifier(), loader(), loader(12, seed=1))
    assert seen.sizes == [3, 4, 3]


# ------------------------------------------------------------ memory that runs out


class Seen:
    """A forward that memory suffices for where there are at most so many samples."""

    def __init__(self, at_most=100):
        self.at_most, self.sizes = at_most, []

    def __call__(self, model, inputs):
        if len(inputs) > self.at_most:
            raise torch.OutOfMemoryError("there is no memory for so many")
        self.sizes.append(len(inputs))
        return model(inputs)


def callbacks(at_most):
    return [
        Saliency(probe_size=8, forward=Seen(at_most)),
        GradCAM(probe_size=8, forward=Seen(at_most), layers="backbone.3"),
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["saliency", "grad_cam"])
def test_where_memory_runs_out_the_chunk_is_halved(tmp_path, index, caplog):
    callback, whole = callbacks(2)[index], callbacks(100)[index]
    callback.on_error = "raise"
    plain = recording(tmp_path)
    with caplog.at_level("INFO"):
        assert_same(plain, recording(tmp_path, callback))
    assert "memory ran out with 8 samples at a time, so 4 are tried: batch_size= sets it" in caplog.text
    assert max(callback.forward.sizes) == 2
    assert len(callback.state.history.moments) == 2
    recording(tmp_path, whole)
    for key, tensor in last(whole).rows.items():
        assert_close(last(callback).rows[key], tensor, rtol=1.1e-3, atol=1e-6)


@pytest.mark.parametrize("index", [0, 1], ids=["saliency", "grad_cam"])
def test_where_memory_is_never_enough_training_goes_on(tmp_path, index):
    callback = callbacks(0)[index]
    plain = recording(tmp_path)
    with pytest.warns(RuntimeWarning, match="no memory for so many") as caught:
        assert_same(plain, recording(tmp_path, callback))
    assert len([warning for warning in caught if warning.category is RuntimeWarning]) == 1
    assert callback.state.history.moments == []


# ------------------------------------------------------------ large probes


def test_a_large_probe_is_counted_whole_and_drawn_in_part(tmp_path):
    probe = Probe(Samples(512).images, Samples(512).labels)
    callback = GradCAM(probe=probe, on_error="raise", layers="backbone.0")
    kept = []
    callback_report = callback.report
    callback.report = lambda probe, history: kept.append(callback_report(probe, history)) or kept[-1]
    run = trainer(tmp_path, callback, logger=NoPictures())
    run.fit(classifier(), loader(), loader(8, seed=1))
    grid, strip = (kept[-1].pictures[f"xai/grad_cam/backbone.0{part}"] for part in ("", "/filmstrip"))
    assert grid.maps.shape[0] == strip.maps.shape[0] == len(kept[-1].tables["xai/grad_cam/backbone.0/samples"]) == 8
    assert last(callback).rows["maps/backbone.0"].shape[0] == 512
    peak = last(callback).rows["maps/backbone.0"].max()
    assert float(run.callback_metrics["xai/grad_cam/backbone.0/peak"]) == pytest.approx(float(peak), rel=1e-3)
    files = list((callback.state.history.store.folder / "grad_cam").iterdir())
    assert len(files) >= 2
    assert max(file.stat().st_size for file in files) <= 2 * 2**20


def test_of_maps_that_take_more_than_two_mebibytes_the_first_are_stored(tmp_path):
    images = torch.randn(300, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    callback = Saliency(probe=Probe(images, torch.arange(300) % 4), on_error="raise")
    run = trainer(tmp_path, callback, logger=NoPictures(), max_epochs=1)
    run.fit(classifier(), loader(), loader(8, seed=1))
    assert last(callback).rows["maps/input"].shape[0] == 300
    (file,) = (callback.state.history.store.folder / "saliency").iterdir()
    assert 1.9 * 2**20 < file.stat().st_size < 2.1 * 2**20
