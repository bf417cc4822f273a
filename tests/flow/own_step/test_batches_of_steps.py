"""Batches of every structure reach the model as the step feeds them."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import default_collate

from lightning_xai.flow.own_step.learn import learn
from lightning_xai.functional.passes.guard import inspecting
from lightning_xai.samples import select
from tests.support.in_a_run import in_a_run
from tests.support.projects import CLASSES, Module, Project, at_label, cnn, image, label
from tests.support.scoring import explained, seeded


@dataclass
class Fields:
    x: Tensor
    y: Tensor
    path: tuple[str, ...] = ()


class OfDict(Module):
    def forward(self, batch):
        return self.net(batch["image"])

    def step(self, batch):
        return F.cross_entropy(self(batch), batch["label"])


class OfTuple(Module):
    def forward(self, batch):
        x, _ = batch
        return self.net(x)

    def step(self, batch):
        return F.cross_entropy(self(batch), batch[1])


class Beside(Module):
    def forward(self, x, beside=None):
        return self.net(x)

    def step(self, batch):
        return F.cross_entropy(self(*batch[0]), batch[1])


class OfFields(Module):
    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        return F.cross_entropy(self(batch.x), batch.y)


class Cycled(Module):
    def forward(self, x):
        return self.net(x)

    def step(self, batch):
        return sum(F.cross_entropy(self(x), y) for x, y in batch.values())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, packed):
        return self.head(self.rnn(packed)[1][-1])


class OfPacked(Module):
    def setup_parts(self):
        self.net = Recurrent()

    def step(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])


class Squeezed(Module):
    """A head that ends in .squeeze(), as those of two classes do."""

    def setup_parts(self):
        self.net = cnn(1)

    def forward(self, x):
        return self.net(x).squeeze()

    def step(self, batch):
        x, y = batch
        return F.binary_cross_entropy_with_logits(self(x), (y % 2).float())


def sample(index):
    return image(index), label(index)


def beside(other):
    def collate(samples):
        x, y = default_collate(samples)
        return (x, other(len(y))), y

    return collate


def cycled(samples):
    return {name: list(default_collate(samples)) for name in "ab"}


def packed(samples):
    parts = [x.flatten()[: 4 + 3 * index % 7, None] for index, (x, _) in enumerate(samples)]
    return pack_sequence(parts, enforce_sorted=False), torch.tensor([y for _, y in samples])


def fields_of(samples):
    x, y = default_collate(samples)
    return Fields(x, y, ("a.png",) * len(samples))


KINDS = {
    "forward(batch) of a dict": (OfDict, lambda s: dict(zip(("image", "label"), default_collate(s), strict=True))),
    "forward(batch) of a tuple": (OfTuple, None),
    "(x, None)": (Beside, beside(lambda n: None)),
    "(x, 3)": (Beside, beside(lambda n: 3)),
    "(x, names)": (Beside, beside(lambda n: ["a.png"] * n)),
    "a dataclass": (OfFields, fields_of),
    "batches of two loaders": (Cycled, cycled),
    "packed sequences": (OfPacked, packed),
}


def by_hand(module, batch):
    if isinstance(batch, dict):
        x, y = batch["a"] if "a" in batch else batch.values()
    else:
        x, y = (batch.x, batch.y) if isinstance(batch, Fields) else batch
    return at_label(module.net(x[0] if isinstance(x, tuple) and not isinstance(x, PackedSequence) else x), y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_that_of_the_step_whole_and_in_parts(kind):
    make, collate = KINDS[kind]
    project = Project(make, sample, None, "multiclass", "", collate)
    module, batch = seeded(make), project.batch()

    def look(shadow, context):
        own = learn(shadow, batch, context=context)
        parts = [explained(own, shadow, select(batch, rows, 6), context).detach() for rows in ([0], [1, 2], [3, 4, 5])]
        return own, explained(own, shadow, batch, context).detach(), torch.cat(parts)

    own, whole, parts = in_a_run(module, project.loader(), look)
    assert own.task.name == "multiclass"
    with torch.no_grad():
        torch.testing.assert_close(whole, by_hand(module, batch))
    torch.testing.assert_close(parts, whole)


def test_a_sample_alone_may_be_squeezed():
    project = Project(Squeezed, sample, None, "binary", "")
    module, batch = seeded(Squeezed), project.batch()

    def look(shadow, context):
        own = learn(shadow, batch, context=context)
        with inspecting(shadow):
            inputs = own.samples(shadow, batch, context).inputs
            outputs = [own.output(shadow, inputs[row : row + 1], context) for row in range(6)]
        return torch.cat([own.table(output, None) for output in outputs])

    table = in_a_run(module, project.loader(), look)
    with torch.no_grad():
        torch.testing.assert_close(table, module.net(batch[0]))
