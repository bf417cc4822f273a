"""What a reading does to a module, to its Trainer and to what the module has at hand: nothing that is still seen."""

import functools
import gc
import weakref
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_xai import GradCAM
from lightning_xai.flow import reader
from tests.support import shadows
from tests.support.classifier import Classifier
from tests.support.data import CLASSES, loader
from tests.support.photograph import changed, photograph
from tests.support.training import NoPictures, trainer

BATCH = 8


class Net(Classifier):
    """No dropout, so that only what `touch` adds tells two runs apart."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.setup_net()

    def setup_net(self) -> None:
        pass

    def touch(self, image: Tensor) -> Any:
        return 0

    def forward(self, image: Tensor) -> Tensor:
        beside = self.touch(image)
        return super().forward(image) + beside


class Cached(Net):
    """What ruff advises in the place of a cache of the class."""

    def setup_net(self) -> None:
        self.calls = 0
        self.scale = functools.lru_cache(maxsize=2)(self.scaled)

    def scaled(self, total: float) -> float:
        self.calls += 1
        return self.calls / 100

    def touch(self, image: Tensor) -> float:
        return self.scale(float(image.sum()))


class Mapped(Net, dict):
    __hash__ = Net.__hash__

    def touch(self, image: Tensor) -> float:
        self["calls"] = self.get("calls", 0) + 1
        return self["calls"] / 100


class Renormed(Net):
    """Rows of a plain parameter are scaled down where they are, by a function."""

    def setup_net(self) -> None:
        self.table = nn.Parameter(torch.ones(3, CLASSES))

    def touch(self, image: Tensor) -> Tensor:
        row = 0 if len(image) == BATCH else 1  # that of the probe
        return nn.functional.embedding(torch.tensor([row]), self.table, max_norm=0.05)


class Experiment:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def add_scalar(self, tag: str, value: float) -> None:
        self.sent.append((tag, value))


class Kept(NoPictures):
    def __init__(self) -> None:
        super().__init__()
        self.own = Experiment()

    @property
    def experiment(self) -> Experiment:
        return self.own

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        own = {name: float(value) for name, value in metrics.items() if not name.startswith("xai/")}
        if own.keys() != {"epoch"}:
            self.own.sent.append((step, own))


class Sends(Net):
    """Logs past Lightning, to the logger's own experiment."""

    def touch(self, image: Tensor) -> float:
        self.logger.experiment.add_scalar("brightness", float(image.mean()))
        return 0


class Logs(Net):
    def touch(self, image: Tensor) -> float:
        self.log("brightness", image.mean(), on_step=False, on_epoch=True, prog_bar=True, batch_size=len(image))
        self.log_dict({"largest": image.max()}, on_step=False, on_epoch=True, batch_size=len(image))
        return 0


class Stops(Net):
    def touch(self, image: Tensor) -> float:
        self.calls = getattr(self, "calls", 0) + 1
        self.trainer.should_stop = self.calls > 7
        return 0


class Gathers(Net):
    def touch(self, image: Tensor) -> float:
        self.seen = getattr(self, "seen", 0) + len(self.all_gather(image))
        return self.seen / 1000


class Places(Net):
    """Carries a state in a list, and counts in a dict that modules are the keys of."""

    def setup_net(self) -> None:
        self.state, self.counts = [torch.zeros(())], {self.head: 0}

    def touch(self, image: Tensor) -> Any:
        self.counts[self.head] += 1
        self.state[0] = torch.tanh(self.state[0] + image.detach().mean() + self.counts[self.head])
        return self.state[0]


KINDS = [Cached, Mapped, Renormed, Sends, Logs, Stops, Gathers, Places]


def loaders() -> list[Any]:
    return [loader(2 * BATCH, batch_size=BATCH), loader(BATCH, seed=1, batch_size=BATCH)]


def trained(folder: Any, make: Any, *callbacks: pl.Callback) -> dict[str, Any]:
    """What a run leaves."""
    pl.seed_everything(0, verbose=False)
    model, logger = make(), Kept()
    fits = trainer(folder, *callbacks, logger=logger, max_epochs=3)
    fits.fit(model, *loaders())
    metrics = {name: float(value) for name, value in fits.callback_metrics.items() if not name.startswith("xai/")}
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    return {"weights": weights, "metrics": metrics, "epochs": fits.current_epoch, "sent": logger.own.sent}


def explains(**settings: Any) -> GradCAM:
    return GradCAM(layers="backbone", probe_size=4, background=False, **{"on_error": "raise", **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same(tmp_path: Any, kind: Any) -> None:
    callback = explains()
    assert trained(tmp_path, kind) == trained(tmp_path, kind, callback)
    assert callback.state.history.moments


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_shadow_it_would_not_be(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    shadows.take_away(monkeypatch)
    assert trained(tmp_path, kind) != trained(tmp_path, kind, explains())


# ------------------------------------------------------------ all that can be reached, by measuring alone


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Places that a measurement changed: of the module, of what its Trainer has counted and of its logger."""
    found: list[str] = []
    measure = reader.measure

    def watched(explanation: Any, trainer: Any, module: Any) -> Any:
        def look() -> dict[str, str]:
            told = [trainer.callback_metrics, trainer.progress_bar_metrics, trainer.logged_metrics, trainer.should_stop]
            return photograph(module, dict(trainer._results), told, trainer.loggers, without=[trainer])

        before = look()
        try:
            return measure(explanation, trainer, module)
        finally:
            found.extend(changed(before, look()))

    monkeypatch.setattr(reader, "measure", watched)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_can_be_reached_is_changed(tmp_path: Any, places: list[str], kind: Any) -> None:
    trained(tmp_path, kind, explains())
    assert places == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_guard_alone_would_change_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, places: list[str], kind: Any
) -> None:
    shadows.take_away(monkeypatch)
    trained(tmp_path, kind, explains())
    assert places != []


# ------------------------------------------------------------ never kept


class Remembered(Net):
    """A cache of the class holds every module that it was asked for."""

    @functools.cache  # noqa: B019
    def scale(self, size: int) -> float:
        return size / 100

    def touch(self, image: Tensor) -> float:
        return self.scale(len(image))


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """All that the shadows of a test own."""
    return shadows.watch(monkeypatch)


def alive(tensors: list[weakref.ref[Tensor]]) -> int:
    gc.collect()
    return sum(ref() is not None for ref in tensors)


class After(pl.Callback):
    """Looks behind all explanations what is still there of the shadows."""

    def __init__(self, tensors: list[weakref.ref[Tensor]]) -> None:
        self.tensors, self.left = tensors, 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:  # to collect garbage takes a second
            self.left += alive(self.tensors)


def fails(model: nn.Module, inputs: Tensor) -> Tensor:
    model(inputs)
    raise ArithmeticError("in the pass")


@pytest.mark.parametrize("kind", [Net, Remembered])
@pytest.mark.parametrize("forward", [None, fails], ids=["", "an error"])
def test_no_tensor_of_a_shadow_is_left(
    tmp_path: Any, tensors: list[weakref.ref[Tensor]], kind: Any, forward: Any
) -> None:
    after, callbacks = After(tensors), [explains(on_error="warn", forward=forward, name=name) for name in "ab"]
    if forward is None:
        trained(tmp_path, kind, *callbacks, after)
    else:
        with pytest.warns(RuntimeWarning, match="in the pass"):
            trained(tmp_path, kind, *callbacks, after)
    assert tensors and alive(tensors) == after.left == 0


def test_no_tensor_of_a_shadow_is_left_after_an_interrupt(tmp_path: Any, tensors: list[weakref.ref[Tensor]]) -> None:
    def interrupted(model: nn.Module, inputs: Tensor) -> Tensor:
        model(inputs)
        raise KeyboardInterrupt

    model = Remembered()
    fits = trainer(tmp_path, explains(forward=interrupted), logger=False)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fits.fit(model, *loaders())
    assert tensors and alive(tensors) == 0
    assert all(parameter.requires_grad for parameter in model.parameters())


# ------------------------------------------------------------ a forward= over the live module

LIVE: Any = None


class Counts(Net):
    def touch(self, image: Tensor) -> float:
        self.calls = getattr(self, "calls", 0) + 1
        return self.calls / 100


def by_global(model: nn.Module, inputs: Tensor) -> Tensor:
    return LIVE(inputs)


def test_a_forward_over_a_global_module_runs_on_the_shadow(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Net:
        monkeypatch.setitem(globals(), "LIVE", Counts())
        return LIVE

    plain, calls = trained(tmp_path, make), LIVE.calls
    assert trained(tmp_path, make, explains(forward=by_global)) == plain
    assert LIVE.calls == calls


def test_a_module_that_a_forward_finds_elsewhere_keeps_what_it_has(tmp_path: Any) -> None:
    """What is set on a shadow in the pass may be the user's own."""
    teacher = nn.Linear(2, CLASSES)

    class Taught(Net):
        def touch(self, image: Tensor) -> Tensor:
            if len(image) < BATCH:  # in a reading alone
                self.teacher = teacher
            return teacher(torch.zeros(1, 2)).detach()

    trained(tmp_path, Taught, explains())
    assert teacher.weight.shape == (CLASSES, 2)
