"""What modules do in their forward stays out of training: each trap in a real Trainer, with all callbacks at once."""

import gc
import warnings
from functools import cache

import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.callbacks import EarlyStopping, ModelPruning
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import TCAV, AttentionMaps, Concept, GradCAM, Probe, Saliency
from tests.support import shadows
from tests.support.hooks import hooks_of
from tests.support.messages import lines_with
from tests.support.photograph import changed, photograph
from tests.support.training import NoPictures
from tests.support.traps import Trapped, trap

SIZE, CLASSES = 16, 4


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pictures = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    pictures[torch.arange(count), labels % 3] += 1
    return TensorDataset(pictures, labels)


def loader(count=16, seed=0, **settings):
    return DataLoader(images(count, seed), 8, **settings)


class Net(Trapped):
    """Convolutions, one attention over the cells, a head; and what a trap does beside it."""

    def layers(self):
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        beside = self.touch(x)
        cells = self.features(x).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(cells, cells, cells, need_weights=False)
        return self.head((cells + mixed).mean(1)) + beside


class Lit(pl.LightningModule):
    def __init__(self, net=None):
        super().__init__()
        self.net = Net() if net is None else net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class Kept(NoPictures):
    """What Lightning logs, but for the explanations' own."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def log_metrics(self, metrics, step=None):
        own = {name: float(value) for name, value in metrics.items() if not name.startswith("xai/")}
        if own.keys() - {"epoch"}:
            self.seen.append((step, own))

    def log_text(self, text):
        self.seen.append(text)


def everyone(**settings):
    concepts = [Concept("bright", images(8, 7).tensors[0] + 1), Concept("dark", images(8, 8).tensors[0] - 1)]
    return [
        GradCAM(layers="net.features", probe_size=4, **settings),
        AttentionMaps(probe_size=4, **settings),
        Saliency(probe_size=4, **settings),
        TCAV(concepts=concepts, layers="net.features", classes=[0, 1], random_sets=3, probe_per_class=2, **settings),
    ]


def trained(folder, make, callbacks=(), *others, max_epochs=2, validates=True, **settings):
    """Everything that a run leaves: weights, buffers, metrics, what was logged, when it stopped."""
    pl.seed_everything(3, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, and of lazy parts
        model, logger = make(), Kept()
    fits = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=max_epochs,
        logger=logger,
        log_every_n_steps=1,
        callbacks=[*callbacks, *others],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **settings,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        fits.fit(model, loader(shuffle=True), loader(8, 1) if validates else None)
    metrics = {name: float(value) for name, value in fits.callback_metrics.items() if not name.startswith("xai/")}
    optimizer = [[t.clone() for t in s.values() if torch.is_tensor(t)] for s in fits.optimizers[0].state.values()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if "never_ran" not in name}
    return {
        "state": state,
        "optimizer": optimizer,
        "logged": logger.seen,
        "metrics": metrics,
        "epoch": fits.current_epoch,
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def differing(a, b):
    return [key for key in a if not same(a[key], b[key])]


def net(setup=None, touch=None):
    return lambda: Lit(trap(Net, setup, touch))


def count(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls / 100


def carry(self, x):
    self.state = torch.tanh(x.mean()) if self.state is None else torch.tanh(self.state.detach() + x.mean())
    return self.state


class LogsInForward(Lit):
    def forward(self, x):
        output = self.net(x)
        self.log("active", output.mean(), on_step=False, on_epoch=True, batch_size=len(x))
        self.log_dict({"largest": output.max()}, batch_size=len(x))
        return output


class SpeaksInForward(Lit):
    """Does to its Trainer and loggers what a user may."""

    def forward(self, x):
        self.logger.log_text("a forward")
        self.print("a forward")
        if not torch.is_grad_enabled() and not self.trainer.sanity_checking and not self.trainer.validating:
            self.trainer.should_stop = False
        optimizer = self.optimizers()
        assert optimizer.param_groups[0]["lr"] > 0
        assert self.all_gather(x).shape == x.shape
        return self.net(x)


class StopsAfterMany(Lit):
    """Stops the run after so many forwards of its own: a reading's do not count."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 5:
            self.trainer.should_stop = True
        return self.net(x)


class StepsInForward(Lit):
    def forward(self, x):
        output = self.net(x)
        if torch.is_grad_enabled() and not self.training:  # in a reading alone
            self.toggle_optimizer(self.optimizers())
            self.manual_backward(output.sum())
            self.clip_gradients(self.optimizers(), 0.1)
            self.optimizers().step()
            self.optimizers().zero_grad()
        return output


class WithMetric(Lit):
    def __init__(self):
        super().__init__()
        self.mean = torchmetrics.MeanMetric()

    def forward(self, x):
        output = self.net(x)
        self.mean.update(output.detach().abs())
        return output

    def on_train_epoch_end(self):
        self.log("mean", self.mean)


class Counted(Lit):
    """A module of Lightning inside another, with a count of its own."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        self.print("a forward")
        return self.net(x) * (1 + self.calls / 100)


class Scripted(Net):
    def setup(self):
        self.extra = torch.jit.script(nn.Linear(8, 8))


def compiled():
    class Unlogged(Lit):
        log = torch.compiler.disable(pl.LightningModule.log)

    return torch.compile(Unlogged(), backend="eager")


def clamped(self, x):
    with torch.no_grad():
        self.head.weight.clamp_(-0.2, 0.2)
        self.head.bias.mul_(0.99)
    return 0


TRAPS = {
    "a counter": net(touch=count),
    "a list": net(lambda self: setattr(self, "seen", []), lambda self, x: self.seen.append(1) or len(self.seen) / 100),
    "state that is carried on": net(lambda self: setattr(self, "state", None), carry),
    "a tensor that is written to": net(
        lambda self: setattr(self, "kept", torch.zeros(1)), lambda self, x: self.kept.add_(0.01).clone()
    ),
    "a generator of its own": net(
        lambda self: setattr(self, "rng", torch.Generator().manual_seed(3)),
        lambda self, x: 0.1 * torch.randn(len(x), CLASSES, generator=self.rng),
    ),
    "an embedding that is renormed": net(
        lambda self: setattr(self, "embed", nn.Embedding(3, CLASSES, max_norm=0.05)),
        lambda self, x: self.embed((x[:, 0, 0, 0] > 0).long()),
    ),
    "weights that the forward clamps": net(touch=clamped),
    "an expanded buffer": net(
        lambda self: self.register_buffer("mask", torch.ones(1).expand(CLASSES)), lambda self, x: self.mask
    ),
    "a metric in the forward": WithMetric,
    "logs in the forward": LogsInForward,
    "speaks in the forward": SpeaksInForward,
    "stops the run in the forward": StopsAfterMany,
    "steps in the forward": StepsInForward,
    "lazy parts": net(lambda self: setattr(self, "never_ran", nn.LazyLinear(3))),
    "TorchScript": lambda: Lit(Scripted()),
}
LASTING = ("a counter", "a list", "state that is carried on", "a tensor that is written to", "a generator of its own",
           "weights that the forward clamps", "a metric in the forward",
           "logs in the forward", "stops the run in the forward")  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What a run of a trap leaves without callbacks: made once for all that is compared with it."""
    folder = tmp_path_factory.mktemp("plain")
    return cache(lambda name, **settings: trained(folder, TRAPS[name], **settings))


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("validates", [True, False], ids=["", "no validation"])
def test_training_is_the_same(tmp_path, plain, name, validates):
    callbacks = everyone(on_error="raise")[: 4 if validates else 3]
    explained = trained(tmp_path, TRAPS[name], callbacks, validates=validates)
    assert differing(plain(name, validates=validates), explained) == []
    assert all(callback.state.history.moments for callback in callbacks)


@pytest.mark.parametrize("name", LASTING)
def test_without_the_shadow_it_would_not_be(tmp_path, plain, monkeypatch, name):
    shadows.take_away(monkeypatch)
    # of the maps alone: other callbacks may add further differences
    explained = trained(tmp_path, TRAPS[name], [GradCAM(layers="net.features", probe_size=4)])
    assert differing(plain(name, validates=True), explained)


def test_modules_of_lightning_inside_one_another_are_silent(tmp_path):
    def callbacks():
        return [GradCAM(layers="net.net.features", probe_size=4, on_error="raise")]

    runs = [trained(tmp_path, lambda: Lit(Counted()), callbacks) for callbacks in ([], callbacks())]
    assert differing(*runs) == []


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_of_lightning(tmp_path):
    torch._dynamo.reset()
    plain = trained(tmp_path, compiled)
    torch._dynamo.reset()
    callbacks = everyone(on_error="raise")
    assert differing(plain, trained(tmp_path, compiled, callbacks)) == []
    assert all(len(callback.state.history.moments) == 2 for callback in callbacks)


def test_pruning_by_a_weight_that_the_last_forward_left(tmp_path):
    def pruning():
        class Pruned(ModelPruning):
            def setup(self, trainer, pl_module, stage):
                self._parameters_to_prune = [(pl_module.net.head, "weight")]
                super().setup(trainer, pl_module, stage)

        return Pruned("l1_unstructured", amount=0.3)

    runs = [
        trained(tmp_path, Lit, callbacks, pruning(), validates=False)
        for callbacks in ([], [GradCAM(layers="net.features", probe_size=4, on_error="raise")])
    ]
    assert differing(*runs) == []


def test_early_stopping_acts_on_the_user_s_values_alone(tmp_path):
    def run(*callbacks):
        return trained(tmp_path, LogsInForward, callbacks, EarlyStopping("active", patience=1), max_epochs=8)

    assert differing(run(), run(*everyone(on_error="raise"))) == []


class Watching(pl.Callback):
    """A user's callback between ours: whatever the first reading does, it finds the module as it was."""

    def __init__(self):
        self.before = self.found = None

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            now = photograph(pl_module.net)
            self.found = None if self.before is None else changed(self.before, now)
            self.before = None


class Before(pl.Callback):
    def __init__(self, watching):
        self.watching = watching

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.watching.before = photograph(pl_module.net)


@pytest.mark.parametrize(
    "name", ["a counter", "a list", "a tensor that is written to", "weights that the forward clamps"]
)
def test_nothing_that_can_be_reached_from_the_module_is_changed(tmp_path, name):
    watching = Watching()
    trained(tmp_path, TRAPS[name], [Before(watching), *everyone(on_error="raise"), watching])
    assert watching.found == []


def test_a_datamodule_s_transfer_hooks_run_on_a_copy(tmp_path):
    class Data(pl.LightningDataModule):
        seen = 0

        def train_dataloader(self):
            return loader()

        val_dataloader = train_dataloader

        def on_after_batch_transfer(self, batch, dataloader_idx):
            self.seen += 1
            return batch[0] + self.seen / 100, batch[1]

    def seen(*callbacks):
        pl.seed_everything(3, verbose=False)
        data = Data()
        fits = pl.Trainer(
            accelerator="cpu", max_epochs=2, callbacks=list(callbacks), logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip
        model = Lit()
        fits.fit(model, datamodule=data)
        return data.seen, [parameter.detach().clone() for parameter in model.parameters()]

    probe = Probe(*images(4, 5).tensors)
    assert same(seen(), seen(GradCAM(probe=probe, layers="net.features", on_error="raise")))


class Raises:
    """A forward= that works in the first reading alone, whatever has been changed by then."""

    def __init__(self, error):
        self.error, self.readings = error, 0

    def __call__(self, model, inputs):
        output = model(inputs)
        self.readings += 1
        if self.readings > 1:
            raise self.error
        return output


@pytest.mark.parametrize("error", [ArithmeticError("broken"), torch.OutOfMemoryError("full")], ids=["error", "memory"])
def test_a_pass_that_raises_changes_nothing_and_is_told_once(tmp_path, plain, error):
    callback = GradCAM(layers="net.features", probe_size=4, forward=Raises(error))
    with pytest.warns(RuntimeWarning, match=str(error)) as caught:
        explained = trained(tmp_path, TRAPS["a counter"], [callback], max_epochs=3)
    assert differing(plain("a counter", max_epochs=3), explained) == []
    assert len([w for w in caught if "Training goes on" in str(w.message)]) == 1
    assert len(callback.state.history.moments) == 1


def test_an_interrupt_in_the_pass_ends_the_run_and_changes_nothing(tmp_path):
    callback = GradCAM(layers="net.features", probe_size=4, forward=Raises(KeyboardInterrupt()))
    models = []

    def make():
        models.append(Lit())
        return models[-1]

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(tmp_path, make, [callback], max_epochs=5)
    assert all(p.requires_grad for p in models[0].parameters())
    assert hooks_of(models[0]) == {}


@pytest.mark.parametrize("how", ["a bound method", "a closure"])
def test_a_forward_that_holds_the_live_module_runs_on_the_shadow(tmp_path, how):
    def run(explains):
        models = []

        def make():
            models.append(TRAPS["a counter"]())
            return models[-1]

        class Late(pl.Callback):
            """forward= can name the module only once there is one."""

            def setup(self, trainer, pl_module, stage):
                module = pl_module
                forwards = {"a bound method": module.net.forward, "a closure": lambda model, inputs: module.net(inputs)}
                chosen = forwards[how]
                cam.forward = chosen if how == "a closure" else (lambda model, inputs, run=chosen: run(inputs))

        cam = GradCAM(
            layers="net.features", probe_size=4, on_error="raise", forward=lambda model, inputs: model(inputs)
        )
        found = trained(tmp_path, make, [Late(), cam] if explains else [])
        return found, models[0].net.calls

    (plain, calls), (explained, as_many) = run(False), run(True)
    assert differing(plain, explained) == []
    assert calls == as_many


def test_a_forward_that_writes_to_its_input_is_shown_the_same_samples_each_time(tmp_path):
    class Writes(Net):
        def forward(self, x):
            return super().forward(x.sub_(0.5).mul_(2))

    class Plain(Net):
        def forward(self, x):
            return super().forward(2 * (x - 0.5))

    found = []
    for kind in (Writes, Plain):
        callbacks = everyone(on_error="raise")
        trained(tmp_path, lambda kind=kind: Lit(kind()), callbacks, max_epochs=3)
        found.append([callback.state.logged for callback in callbacks])
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


def test_no_shadow_is_kept(tmp_path, monkeypatch):
    class After(pl.Callback):
        left = 0

        def on_validation_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                gc.collect()
                self.left += sum(ref() is not None for ref in own)

    own, after = shadows.watch(monkeypatch), After()
    trained(tmp_path, Lit, [*everyone(on_error="raise"), after])
    assert len(own) >= 8 * len(list(Lit().parameters()))
    assert after.left == 0


def test_a_model_that_writes_to_its_parameters_is_said_so_once(tmp_path, caplog):
    caplog.set_level("INFO")
    trained(tmp_path, TRAPS["weights that the forward clamps"], everyone(on_error="raise"), max_epochs=3)
    (line,) = lines_with(caplog, "writes to its parameters")
    assert "each reading runs on a copy of them" in line


def test_a_part_that_cannot_be_copied_is_named_once(tmp_path, caplog):
    caplog.set_level("INFO")
    trained(tmp_path, TRAPS["TorchScript"], everyone(on_error="raise"))
    (line,) = lines_with(caplog, "cannot be copied")
    assert "'net.extra' cannot be copied (TorchScript)" in line
