"""Training with the callback is bit-identical to training without it."""

import random
import warnings
from functools import cache, partial

import numpy
import pytest
import pytorch_lightning as pl
import torch

from lightning_xai import GradCAM
from tests.support.classifier import Augmented, Classifier, classifier
from tests.support.data import Samples, loader
from tests.support.probes import make_probe
from tests.support.recorder import Recorder, assert_same, recording, same
from tests.support.training import seeded, trainer


class FrozenNorm(Classifier):
    """One BatchNorm stays in eval mode, with frozen parameters, while the rest trains."""

    def on_train_epoch_start(self):
        self.backbone[1].eval().requires_grad_(False)


class Counting(Classifier):
    """Every forward, in eval mode too, writes a buffer that its output depends on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image):
        self.calls += 1
        return super().forward(image) * (1 + self.calls / 100)


class WithUnused(Classifier):
    """Holds a layer that no forward runs."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Conv2d(3, 3, 1)


class Unlogged(Classifier):
    """The compiler cannot trace Lightning's logging."""

    log = torch.compiler.disable(pl.LightningModule.log)


class Scheduled(Classifier):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)]


class Failing:
    """A forward that works until the second reading."""

    def __init__(self):
        self.calls = 0

    def __call__(self, model, inputs):
        self.calls += 1
        output = model(inputs + torch.rand(1))
        if self.calls > 4:
            raise ArithmeticError("the explanation broke")
        return output


RUNS = {
    "plain": {"make": lambda: classifier(dropout=0.0)},
    "dropout": {},
    "momentum and a schedule": {"make": partial(seeded, Scheduled)},
    "accumulation over epoch ends": {"accumulate_grad_batches": 3},
    "validation in mid-accumulation": {"accumulate_grad_batches": 3, "val_check_interval": 2},
    "two validations an epoch": {"val_check_interval": 0.5, "train": {"count": 24}},
    "bf16": {"precision": "bf16-mixed"},
    "bf16, in mid-accumulation": {
        "precision": "bf16-mixed",
        "accumulate_grad_batches": 3,
        "val_check_interval": 2,
    },
    "no validation": {"validation": {}},
    "no validation, bf16, accumulation": {"validation": {}, "precision": "bf16-mixed", "accumulate_grad_batches": 3},
    "frozen BatchNorm": {"make": partial(seeded, FrozenNorm)},
    "frozen BatchNorm, no validation": {"make": partial(seeded, FrozenNorm), "validation": {}},
    "random transfer hook": {"make": partial(seeded, Augmented)},
    "random transfer hook, no validation": {"make": partial(seeded, Augmented), "validation": {}},
    "buffer that every forward writes": {"make": partial(seeded, Counting)},
    "buffer that every forward writes, no validation": {"make": partial(seeded, Counting), "validation": {}},
    "gradient clipping": {"gradient_clip_val": 0.1},
    "shuffled validation": {"validation": {"count": 10, "seed": 1, "shuffle": True}},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without callbacks, by its name: made once for all that is compared with it."""
    folder = tmp_path_factory.mktemp("plain")
    return cache(lambda name: recording(folder, **RUNS[name]))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("probe", ["captured", "given"])
@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
def test_training_is_the_same(tmp_path, plain, name, probe):
    callback = GradCAM(probe_size=4, on_error="raise", probe=make_probe(6) if probe == "given" else None)
    assert_same(plain(name), recording(tmp_path, callback, **RUNS[name]))
    assert len(callback.state.history.moments) == 2


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_give_the_same_batches(tmp_path, persistent):
    workers = {"num_workers": 2, "persistent_workers": persistent}
    settings = {"train": workers, "validation": {"seed": 1, **workers}}
    callback = GradCAM(probe_size=4, on_error="raise")
    assert_same(recording(tmp_path, **settings), recording(tmp_path, callback, **settings, logger=False))


@pytest.mark.parametrize("variant", ["score_cam", "ablation_cam", "eigen_cam"])
def test_every_kind_of_variant_leaves_training_alone(tmp_path, plain, variant):
    callback = GradCAM(probe_size=4, variant=variant, layers=["backbone.0", "backbone.4"], on_error="raise")
    assert_same(plain("dropout"), recording(tmp_path, callback))


def test_several_callbacks_and_their_pictures_leave_training_alone(tmp_path, plain):
    callbacks = [
        GradCAM(probe_size=4, on_error="raise"),
        GradCAM(probe_size=2, variant="score_cam", on_error="raise"),
        GradCAM(probe=make_probe(6), variant="eigen_cam", on_error="raise"),
        GradCAM(name="mine", layers="backbone.*", target="predicted", on_error="raise"),
    ]
    name = "validation in mid-accumulation"
    assert_same(plain(name), recording(tmp_path, *callbacks, **RUNS[name], logger=False))


@pytest.mark.parametrize("settings", [{}, {"validation": {}, "accumulate_grad_batches": 3}], ids=["", "no validation"])
@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (lambda: GradCAM(probe_size=4, forward=Failing()), "the explanation broke"),
        (lambda: GradCAM(probe_size=4, layers="unused"), "'unused' did not run"),
        (lambda: GradCAM(probe_size=4, target=99), "target 99 of sample 0 is out of range"),
        (lambda: GradCAM(probe_size=4, labels=lambda batch: batch[5]), "no probe could be taken"),
    ],
    ids=["forward", "layer", "target", "labels"],
)
def test_an_explanation_that_raises_leaves_training_alone(tmp_path, settings, callback, text):
    plain = recording(tmp_path, make=partial(seeded, WithUnused), max_epochs=3, **settings)
    with pytest.warns(RuntimeWarning, match=text) as caught:
        explained = recording(tmp_path, callback(), make=partial(seeded, WithUnused), max_epochs=3, **settings)
    assert_same(plain, explained)
    assert len([warning for warning in caught if warning.category is RuntimeWarning]) == 1


def compiled(how):
    model = seeded(Unlogged)
    if how == "not":
        return model
    if how == "whole":
        return torch.compile(model, backend="eager")
    if how == "in place":
        model.compile(backend="eager")
    else:
        model.backbone = torch.compile(model.backbone, backend="eager")
    return model


@pytest.mark.parametrize("how", ["whole", "in place", "a part"])
def test_a_compiled_model_trains_the_same(tmp_path, how):
    callback, eager = (GradCAM(probe_size=4, on_error="raise") for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's, about Lightning's own code
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        plain = recording(tmp_path, make=lambda: compiled(how), max_epochs=3)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        explained = recording(tmp_path, callback, make=lambda: compiled(how), max_epochs=3)
    assert_same(plain, explained)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0
    recording(tmp_path, eager, make=lambda: compiled("not"), max_epochs=3)
    assert callback.layer_names == eager.layer_names == {"auto": "backbone"}
    for one, other in zip(callback.state.history.readings, eager.state.history.readings, strict=True):
        assert torch.equal(one.measured.rows["maps/auto"], other.measured.rows["maps/auto"])


@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_gives_the_same_metrics_and_leaves_the_module(tmp_path, stage, inference_mode):
    def evaluated(*callbacks):
        model = seeded(FrozenNorm)
        model.train().backbone[1].eval()
        model(Samples().images).sum().backward()
        recorder = Recorder()
        evaluates = trainer(tmp_path, *callbacks, recorder, logger=False, inference_mode=inference_mode)
        (metrics,) = getattr(evaluates, stage)(model, loader(), verbose=False)
        recorder.record("after", model)
        return recorder.seen, metrics

    captured = GradCAM(probe_size=4, on_error="raise")
    other = GradCAM(probe=make_probe(6), name="other", on_error="raise")
    (plain, metrics), (explained, more) = evaluated(), evaluated(captured, other)
    assert_same(plain, explained)
    assert metrics.items() <= more.items()
    assert {"xai/grad_cam/auto/drift", "xai/other/auto/drift"} <= more.keys()


class Careless(pl.Callback):
    """Does one thing, at the end of each validation, that no callback may do."""

    def __init__(self, act):
        self.act = act

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            with torch.enable_grad():
                self.act(pl_module)


def forward(model):
    return model(Samples(4).images)


CARELESS = {
    "torch RNG": lambda model: torch.randn(1),
    "numpy RNG": lambda model: numpy.random.rand(1),  # noqa: NPY002
    "python RNG": lambda model: random.random(),
    "gradients": lambda model: forward(model).sum().backward(),
    "buffers": lambda model: (model.train(), forward(model), model.eval()),
    "training flags": lambda model: model.head.train(),
    "requires_grad": lambda model: model.head.requires_grad_(False),
    "hooks": lambda model: model.head.register_forward_hook(lambda *args: None),
}


@pytest.mark.parametrize("act", CARELESS.values(), ids=CARELESS.keys())
def test_the_comparison_sees_what_a_careless_callback_does(tmp_path, plain, request, act):
    expected, careless = plain("dropout"), recording(tmp_path, Careless(act))
    what = request.node.callspec.id
    found = [name for name in expected if not same(expected[name], careless[name])]
    assert found[0].endswith(f"validation end: {what}")


@pytest.mark.parametrize("act", ["torch RNG", "gradients", "buffers"])
def test_a_careless_callback_changes_what_is_trained(tmp_path, plain, act):
    name = "validation in mid-accumulation"
    expected, careless = plain(name), recording(tmp_path, Careless(CARELESS[act]), **RUNS[name])
    part = "buffers" if act == "buffers" else "weights"
    (last,) = (name for name in expected if "after fit" in name and name.endswith(part))
    assert not same(expected[last], careless[last])
