import warnings

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import distributed, nn
from torchmetrics import MeanSquaredError, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_xai.flow.own_step.learn import learn
from lightning_xai.flow.own_step.watch import UnwatchableError, steps_of, watch
from tests.support.in_a_run import in_a_run
from tests.support.odd_projects import Plain
from tests.support.photograph import changed, photograph
from tests.support.projects import PROJECTS, Module, Project, cnn, image, label
from tests.support.scoring import explained, learned, seeded

PLAIN = Project(Plain, lambda i: (image(i), label(i)), None, "", "")


def look(kind, project=PLAIN, samples=6, **settings):
    module, batch = seeded(kind), project.batch(samples)
    own, score = learned(module, project.loader(), batch, **settings)
    return module, batch, own, score


def at_label(module, batch):
    return module(batch[0]).gather(1, batch[1][:, None])[:, 0]


class Metrics(Plain):
    """No loss in its validation, metrics alone; counts and draws in its step."""

    def setup_parts(self):
        self.metrics = MetricCollection({"acc": MulticlassAccuracy(4)})
        self.seen = []
        self.register_buffer("steps", torch.zeros(()))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.steps += 1
        self.seen.append(torch.rand(()))
        self.metrics.update(self(batch[0]).softmax(1), batch[1])
        self.log_dict(self.metrics)


def test_a_metric_says_what_no_loss_does():
    module, batch, own, score = look(Metrics)
    assert (own.task.name, own.task.scale) == ("multiclass", "probabilities")
    torch.testing.assert_close(score, module(batch[0]).log_softmax(1).gather(1, batch[1][:, None])[:, 0])


class Labels(Plain):
    """A metric is given the predicted class."""

    def setup_parts(self):
        self.metric = MulticlassAccuracy(4)

    def validation_step(self, batch, batch_idx):
        self.metric(self(batch[0]).argmax(1), batch[1])


def test_a_metric_of_predicted_classes_leaves_the_guess():
    module, batch, own, score = look(Labels)
    assert (own.task.name, own.task.guessed) == ("multiclass", True)
    torch.testing.assert_close(score, at_label(module, batch))


class Values(Plain):
    def setup_parts(self):
        self.net, self.metric = cnn(1), MeanSquaredError()

    def validation_step(self, batch, batch_idx):
        self.metric(self(batch[0]).squeeze(1), batch[1].float())


def test_a_metric_of_values_is_a_regression():
    module, batch, own, score = look(Values)
    assert own.task.name == "regression"
    torch.testing.assert_close(score, module(batch[0])[:, 0])


class Training(Plain):
    """Its validation says nothing of the output, its training does."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, *rest):
        self(batch[0]).sum()


def test_training_says_what_validation_does_not():
    module, batch, own, score = look(Training)
    assert own.call.step == "training_step"
    torch.testing.assert_close(score, at_label(module, batch))


class Manual(Plain):
    def setup_parts(self):
        self.automatic_optimization = False
        self.behind = []

    validation_step = pl.LightningModule.validation_step

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]) * 2, batch[1])
        self.optimizers().step()
        self.behind.append(loss)


def test_a_manual_step_ends_before_it_steps():
    module, _, own, _ = look(Manual)
    assert own.task.name == "multiclass"
    assert len(module.behind) == 1  # the Trainer's own


def test_a_step_is_watched_on_a_shadow_alone():
    with pytest.raises(UnwatchableError, match="no shadow"):
        watch(seeded(Plain), PLAIN.batch(), "validation_step", lambda watched: False)


class Raising(Plain):
    def step(self, batch):
        if len(batch[0]) == 6:
            raise RuntimeError("six are too many")
        return F.cross_entropy(self(batch[0]), batch[1])


class Silent(Module):
    def step(self, batch):
        return batch[0].mean()


@pytest.mark.parametrize(("kind", "why"), [(Raising, "six are too many"), (Silent, "calls no module")])
def test_every_way_out_is_named_where_nothing_is_learned(kind, why):
    with pytest.raises(ValueError, match=why) as raised:
        look(kind)
    assert all(name in str(raised.value) for name in ("validation_step", "forward=", "inputs=", "probe="))


class Gathering(Plain):
    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        distributed.all_reduce(logits)
        return F.cross_entropy(logits, batch[1])


def test_a_step_that_waits_for_other_processes_is_refused(tmp_path):
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"torch\.distributed .* itself") as raised:
            look(Gathering)
    finally:
        distributed.destroy_process_group()
    assert "forward=" in str(raised.value)


@pytest.mark.parametrize("kind", ["dict batch", "two views", "segmentation", "no forward", "detection"])
def test_nothing_of_the_module_or_the_process_changes(kind):
    project = PROJECTS[kind]
    module, batch = seeded(project.module), project.batch()
    unchanged = photograph(batch)

    def act(shadow, context):
        before = photograph(module, without=[module._trainer])
        own = learn(shadow, batch, context=context)
        explained(own, shadow, batch, context)
        return changed(before, photograph(module, without=[module._trainer]))

    assert in_a_run(module, project.loader(), act) == []
    assert [place for place in changed(unchanged, photograph(batch)) if not place.startswith("random")] == []


def test_metrics_counters_and_random_numbers_are_the_shadows_own():
    module, batch = seeded(Metrics), PLAIN.batch()

    def act(shadow, context):
        before = photograph(module, without=[module._trainer])
        explained(learn(shadow, batch, context=context), shadow, batch, context)
        return changed(before, photograph(module, without=[module._trainer]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics' and Lightning's
        assert in_a_run(module, PLAIN.loader(), act) == []
    assert len(module.seen) == 2


def test_steps_that_take_an_iterator_are_passed_over():
    class Iterating(Plain):
        def training_step(self, dataloader_iter):
            return None

    assert steps_of(Iterating()) == ["validation_step"]


def test_a_batch_alone_is_enough_for_a_step():
    class Alone(Plain):
        def validation_step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

    module, batch, _, score = look(Alone)
    torch.testing.assert_close(score, at_label(module, batch))


class Behind(nn.Module):
    """A loss as a module with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(4))

    def forward(self, logits, labels):
        return F.cross_entropy(logits * self.weights, labels)


def test_a_loss_with_parameters_is_part_of_what_is_explained():
    class Weighted(Plain):
        def setup_parts(self):
            self.criterion = Behind()

        def step(self, batch):
            return self.criterion(self(batch[0]), batch[1])

    module, batch, own, score = look(Weighted)
    assert own.call.repeats_step
    torch.testing.assert_close(score, at_label(module, batch))
