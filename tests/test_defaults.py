"""The process's default dtype and device change nothing that this package makes."""

import ast
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_xai
from lightning_xai import TCAV, AttentionMaps, Concept, GradCAM, Probe, Saliency
from lightning_xai.compare.agreement import agreement
from lightning_xai.concept import drawn
from lightning_xai.example_sources.indexed import random_sets
from lightning_xai.flow.display import with_display_of
from lightning_xai.functional.activations import activations
from lightning_xai.functional.attention_maps import attention_maps
from lightning_xai.functional.attention_relevance import attention_relevance
from lightning_xai.functional.attention_rollout import attention_rollout, attention_rollout_rows
from lightning_xai.functional.concepts.solver import LOSSES
from lightning_xai.functional.fit_cavs import POOLS, fit_cavs
from lightning_xai.functional.grad_cam import VARIANTS, grad_cam
from lightning_xai.functional.last_spatial_layer import last_spatial_layer
from lightning_xai.functional.metrics import attention as attention_scalars
from lightning_xai.functional.metrics import localization, significance
from lightning_xai.functional.tcav import tcav
from lightning_xai.reading import Measured, Reading
from lightning_xai.render import colormap, draw
from lightning_xai.report import Curve, Curves, Filmstrip, Grid, Matrix, Overlay, Tokens, Traces
from lightning_xai.reporting.heatmaps import heatmap_pictures
from lightning_xai.store import load_run
from tests.support import texts
from tests.support.attention_classifiers import Attending, Encoder, Reader, Translator
from tests.support.defaults import FACTORIES, default_dtype
from tests.support.nets import Deep, Plain, ViT
from tests.support.training import seeded, trainer

PACKAGE = Path(lightning_xai.__file__).parent
WHOLE = {"arange", "randint", "randperm", "tril_indices", "triu_indices"}  # of no dtype but int64, unless told
identical = partial(assert_close, rtol=0, atol=0, equal_nan=True)


# what is written: also what no test runs


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_tensor_is_made_with_its_dtype_and_device(path):
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if name.startswith("torch.") and name.removeprefix("torch.") in FACTORIES:
            asked = {"device"} if name.removeprefix("torch.") in WHOLE else {"dtype", "device"}
            told = {keyword.arg for keyword in call.keywords}
            missing = set() if None in told else asked - told  # None: **settings, which the other tests see
            assert not missing, f"line {call.lineno}: {ast.unparse(call)} leaves {missing} to the process"


# functions


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "layer"), [(Plain, None), (Deep, "target")])
def test_grad_cam(other_defaults, variant, kind, layer):
    model, images = seeded(kind).eval(), torch.randn(3, 3, 12, 12)
    targets = [1, "predicted", torch.tensor([[0, 1], [2, 3], [4, 0]])]

    def maps():
        return [grad_cam(model, images, target, layer=layer, variant=variant) for target in targets]

    expected = maps()
    with other_defaults():
        identical(maps(), expected)
        assert last_spatial_layer(model, images) == last_spatial_layer(model, images, 1)


def attended(model, inputs, square=True):
    model.eval()
    each = attention_maps(model, inputs)
    found: list[Any] = [each, attention_maps(model, inputs, queries=[0, -1])]
    found.append(attention_maps(model, inputs, heads="mean"))
    found += [attention_relevance(model, inputs), attention_relevance(model, inputs, 1, rows=[0])]
    if square:
        found += [attention_rollout(each, discard=0.2), attention_rollout_rows(model, inputs, rows=[0, -1])]
        for maps in each.values():
            found.append(attention_scalars.attention_entropy(maps))
            found.append(attention_scalars.attention_distance(maps, (maps.shape[-1], 1)))
            found.append(attention_scalars.attention_share(maps, torch.arange(maps.shape[-1]) == 1))
    return found


@pytest.mark.parametrize("kind", [ViT, Encoder, Translator, Reader])
def test_attention(other_defaults, kind):
    model, ids = seeded(kind), texts.texts(3)[0]
    mapping = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    inputs = torch.randn(3, 3, 16, 16) if kind is ViT else ids if kind is Reader else mapping
    run = partial(attended, model, inputs, kind in (ViT, Encoder))
    expected = run()
    with other_defaults():
        identical(run(), expected)


@pytest.mark.parametrize(("classifier", "pool"), [*zip(LOSSES, (*POOLS, None), strict=True)])
def test_concepts(other_defaults, classifier, pool):
    model, probes, targets = seeded(Deep).eval(), torch.randn(6, 3, 12, 12), torch.tensor([3, 1, 1, 3, 3, 1])
    sets = [torch.randn(8, 3, 12, 12) + 0.3 * (i == 0) for i in range(21)]

    def scores():
        for function in vars(significance).values():
            getattr(function, "cache_clear", lambda: None)()
        first, *others = [activations(model, part, "target")["target"] for part in sets]
        cavs = fit_cavs({"concept": first}, others, classifier=classifier, pool=pool)
        tests = [asdict(tcav(model, probes, targets, cavs, layer="target", test=test)) for test in significance.TESTS]
        return [cavs.vectors, cavs.null_vectors, cavs.accuracy, cavs.separation, cavs.cosines, *tests]

    expected = scores()
    with other_defaults():
        found = scores()
    for part, other in zip(found, expected, strict=True):
        if isinstance(part, dict):
            assert part.pop("names") == other.pop("names")
        identical(part, other)


def test_numbers_of_maps(other_defaults):
    maps, earlier = torch.rand(4, 5, 6), torch.rand(4, 5, 6)
    maps[1], maps[2, 0, 0] = 0, torch.nan
    mask = torch.rand(4, 20, 24) > 0.7

    def numbers():
        of_masks = (localization.mask_share, localization.mask_lift, localization.pointing_game)
        drifts = [localization.drift(maps), localization.drift(maps, earlier), agreement(maps, earlier[:, :3])]
        return [*drifts, *(function(maps, mask) for function in of_masks)]

    expected = numbers()
    with other_defaults():
        identical(numbers(), expected)


# pictures and data


class Rows(Dataset):
    """A table: numbers instead of tensors."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"height": 0.1 * index, "age": index}


def pictures():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 300, 30, 3), dtype=torch.uint8, generator=random)
    maps = torch.rand(2, 3, 5, 6, generator=random)
    maps[0, 1], maps[1, 2, 0, 0] = 0, torch.nan
    curves = [Curve(name, [0.1, 0.4], [-0.1, -0.2], [0.2, 0.2], [False, True]) for name in "ab"]
    words, captions = [["[CLS]", "good"], ["a", "bad", "film"]], ["label a\npred b 80%", "label b"]
    return [
        Overlay(images[0], maps[0, 0], 0.7),
        Grid(images, maps[:, 0], captions, None, "grid"),
        Filmstrip(images, maps, captions, ["epoch 0", "epoch 1", "epoch 2"], 0.9, "strip"),
        Traces(torch.rand(2, 2, 40, generator=random), maps[:, 0, 0], captions, None, "traces"),
        Traces(None, maps[:, 0, 0], captions, 0.5, "traces"),
        Tokens(words, [maps[0, :2, 0, :2], maps[0, :2, 0, :3]], captions, ["epoch 0", "epoch 1"], None, "tokens"),
        Matrix(list(maps[..., :5]), [[*"abcde"]] * 2, [[*"abcde"]] * 2, captions, "matrix"),
        Curves({"class 0": curves}, [0, 1], "epoch", "effect", "curves", "note"),
    ]


def test_pictures(other_defaults):
    expected = [draw(picture) for picture in pictures()]
    again = pictures()
    colormap.table.cache_clear()
    with other_defaults():
        identical([draw(picture) for picture in again], expected)


def test_slices_of_a_volume(other_defaults):
    maps = torch.zeros(2, 300, 2, 2)
    maps[0, 257], maps[1, 3] = 1, 1
    probe = Probe(torch.arange(600.0).view(1, 1, 600, 1, 1).expand(2, 1, 600, 8, 8) / 600, mean=[0.0], std=[1.0])
    answers = {"prediction": torch.zeros(2, dtype=torch.long), "confidence": torch.ones(2)}
    readings = [Reading(0, 0, Measured({"maps": maps, **answers}))]
    expected = heatmap_pictures("maps", "volume", probe, readings, None)[""].images
    assert expected[:, 0, 0, 0].tolist() == [round(515 / 600 * 255), round(7 / 600 * 255)]
    with other_defaults():
        identical(heatmap_pictures("maps", "volume", probe, readings, None)[""].images, expected)


@pytest.mark.parametrize("kind", ["stripes", "checks", "noise", "red"])
def test_drawn_concepts(other_defaults, kind):
    expected = drawn(kind, 3, (8, 9))
    with other_defaults():
        identical(drawn(kind, 3, (8, 9)), expected)


def test_probe_and_concept(other_defaults, tmp_path):
    from PIL import Image

    for name in ("one", "two"):
        Image.effect_mandelbrot((20, 16), (-2, -1, 1, 1), 20).save(tmp_path / f"{name}.png")
    samples = [(image, number % 3, 0.1 * number) for number, image in enumerate(torch.randn(6, 3, 8, 8))]
    numbers = torch.arange(5.0)
    normalize = type("Normalize", (), {"mean": [0.485, 0.456, 0.406], "std": (0.229, 0.224, 0.225)})()
    data = type("Data", (), {"transform": normalize, "classes": ["a", "b", "c"]})()

    def made():
        probe = with_display_of(Probe.from_dataset(samples, [4, 1, 2]), data)
        probe.save(tmp_path / "probe.pt")
        loaded = Probe.load(tmp_path / "probe.pt")
        folder = Concept.from_folder(tmp_path, like=probe).examples
        rows = Concept("rows", Rows()).examples
        sets = random_sets(Rows(), 2, 2, seed=0) + random_sets(numbers, 2, 2, seed=0)
        parts = [loaded.inputs, loaded.targets, probe[1:].inputs, probe.images(), probe.mean, probe.std]
        return [probe.fingerprint.encode().hex(), *parts, folder, rows, sets]

    name, *expected = made()
    with other_defaults():
        other, *found = made()
    assert name == other
    identical(found, expected)


# callbacks in a run


class Texts(Encoder):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def image_run(dtype=torch.float32):
    """Model, data and callbacks; all of float32 where the process's default is another."""
    model = seeded(Attending).to(dtype)
    random = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, 16, 16, dtype=torch.float32, generator=random).to(dtype)
    masks = {"object": images[:4, 0] > 0.5}
    probe = Probe(images[:4], torch.arange(4) % 3, masks=masks, mean=[0.4], std=[0.3])
    quiet = {"on_error": "raise", "background": False}
    callbacks = [
        GradCAM(layers="features.2", probe=probe, **quiet),
        GradCAM(variant="ablation_cam", name="ablation", probe_size=3, **quiet),
        AttentionMaps(probe_size=3, matrices="attention", **quiet),
        Saliency(probe_size=3, **quiet),
        TCAV(
            concepts=[Concept("red", drawn("red", 4, (16, 16)).to(dtype)), Concept("own", images[:5])],
            **{"layers": "features.1", "classes": [0, 2], "random_sets": 3, "probe_per_class": 2, **quiet},
        ),
    ]
    return model, DataLoader(TensorDataset(images, torch.arange(12) % 3), 4), callbacks


def text_run():
    loader = texts.text_loader(mapping=True)
    return (
        seeded(Texts),
        loader,
        [
            AttentionMaps(probe_size=4, decode=texts.decode, on_error="raise", background=False),
            Saliency(probe_size=4, on_error="raise", background=False),
        ],
    )


def logged(folder, made, **settings):
    """What a run leaves: its readings, its pictures and its metrics."""
    model, loader, callbacks = made
    fitted = trainer(folder, *callbacks, logger=False, **settings)
    fitted.fit(model, loader, loader)
    readings = {name: [r.measured for r in found] for name, found in load_run(folder).readings.items()}
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
    metrics = {key: float(value) for key, value in fitted.callback_metrics.items() if key.startswith("xai/")}
    return {n: [(dict(m.rows), dict(m.shared)) for m in found] for n, found in readings.items()}, files, metrics


@pytest.fixture(scope="module", params=[image_run, text_run])
def plain_run(request, tmp_path_factory):
    """What makes a run, and what it leaves where nobody has changed the defaults."""
    return request.param, logged(tmp_path_factory.mktemp("plain"), request.param())


def test_a_run(other_defaults, plain_run, tmp_path):
    made, (expected, pictures, metrics) = plain_run
    run = made()
    with other_defaults():
        found, drawn_again, numbers = logged(tmp_path, run)
    identical(found, expected)
    assert drawn_again == pictures and len(pictures) > 0
    assert numbers == pytest.approx(metrics, nan_ok=True)


@pytest.mark.parametrize("plain_run", [image_run], indirect=True)
@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16, torch.float16, "64-true", "bf16-true"])
def test_a_run_whose_model_and_data_are_of_the_default_dtype(plain_run, tmp_path, precision):
    _, (expected, pictures, metrics) = plain_run
    if isinstance(precision, str):  # Lightning changes the default around the forward
        found, drawn_again, numbers = logged(tmp_path, image_run(), precision=precision)
    else:
        run = image_run(precision)
        with default_dtype(precision):
            found, drawn_again, numbers = logged(tmp_path, run)
    assert drawn_again.keys() == pictures.keys() and numbers.keys() == metrics.keys()
    for name, readings in expected.items():
        for (rows, shared), (other_rows, other_shared) in zip(readings, found[name], strict=True):
            for part, other in ((rows, other_rows), (shared, other_shared)):
                assert part.keys() == other.keys()
                assert all((t.dtype, t.shape) == (other[key].dtype, other[key].shape) for key, t in part.items())
                assert all(tensor.isfinite().all() for tensor in other.values())
                if precision in (torch.float64, "64-true"):
                    assert_close(other, part, rtol=1e-3, atol=1e-4)
