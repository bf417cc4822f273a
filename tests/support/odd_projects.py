"""Modules whose steps say little or something else of their output than its shape suggests."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from tests.support.projects import CLASSES, SIZE, Module, cnn, features


class Plain(Module):
    def forward(self, x):
        return self.net(x)


class InfoNCE(Plain):
    def step(self, batch):
        one, other = (F.normalize(self(view)) for view in batch[0])
        return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(one), device=one.device))


class NTXent(Plain):
    """Of 2N views, each with its partner among all others."""

    def step(self, batch):
        z = F.normalize(self(torch.cat(batch[0])))
        n = len(z) // 2
        logits = (z @ z.T).masked_fill(torch.eye(2 * n, dtype=torch.bool), -1e9)
        return F.cross_entropy(logits, torch.arange(2 * n).roll(n))


class Queue(Plain):
    """Momentum contrast: the partner is in the first column, others from a queue."""

    def setup_parts(self):
        self.register_buffer("queue", F.normalize(torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(0))))

    def step(self, batch):
        one, other = (F.normalize(self(view)) for view in batch[0])
        logits = torch.cat([(one * other).sum(1, keepdim=True), one @ self.queue.T], 1)
        return F.cross_entropy(logits, torch.zeros(len(one), dtype=torch.long))


class Masked(InfoNCE):
    """Some samples have no partner, which the batch says."""

    def step(self, batch):
        one, other = (F.normalize(self(view)) for view in batch[0])
        partners = torch.where(batch[1] >= 0, torch.arange(len(one)), -100)
        return F.cross_entropy(one @ other.T / 0.1, partners.type_as(batch[1]))


class Supervised(Plain):
    """Contrast by labels: a matrix of which samples are of one class."""

    def step(self, batch):
        (one, other), y, _ = batch
        logits = F.normalize(self(one)) @ F.normalize(self(other)).T
        return F.binary_cross_entropy_with_logits(logits, (y[:, None] == y[None]).float())


class Rotation(Plain):
    """Predicts by how much the step itself has turned each image."""

    def step(self, batch):
        x = torch.cat([batch[0].rot90(k, (2, 3)) for k in range(4)])
        return F.cross_entropy(self(x), torch.arange(4).repeat_interleave(len(batch[0])))


class Focal(Plain):
    def step(self, batch):
        x, y = batch
        log_share = self(x).log_softmax(1).gather(1, y[:, None])[:, 0]
        return -((1 - log_share.exp()) ** 2 * log_share).mean()


class Dice(Plain):
    def setup_parts(self):
        self.net = nn.Conv2d(3, CLASSES, 3, padding=1)

    def step(self, batch):
        share = self(batch["image"]).softmax(1)
        there = F.one_hot(batch["mask"].clamp_max(CLASSES - 1), CLASSES).movedim(3, 1)
        return 1 - (2 * (share * there).sum() + 1) / (share.sum() + there.sum() + 1)


class Divergence(Plain):
    def step(self, batch):
        x, shares = batch
        return F.kl_div(self(x).log_softmax(1), shares, reduction="batchmean")


class Distillation(Plain):
    """The teacher is asked first; its answer and the labels are both learned."""

    def setup_parts(self):
        self.teacher = cnn().requires_grad_(False)

    def step(self, batch):
        x, y = batch
        taught, own = self.teacher(x), self.net(x)
        return (
            F.kl_div(own.log_softmax(1), taught.softmax(1), reduction="batchmean")
            + F.mse_loss(own, taught)
            + F.cross_entropy(own, y)
        )


class VAE(Plain):
    def setup_parts(self):
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 8))
        self.decoder = nn.Linear(4, 3 * SIZE**2)

    def forward(self, x):
        mean, spread = self.net(x).chunk(2, 1)
        return self.decoder(mean + spread.exp() * torch.randn_like(mean)).view_as(x), mean

    def step(self, batch):
        made, mean = self(batch[0])
        return F.mse_loss(made, batch[0]) + mean.square().mean()


class Denoising(Plain):
    def setup_parts(self):
        self.net = nn.Conv2d(3, 3, 3, padding=1)

    def step(self, batch):
        noise = torch.randn_like(batch[0])
        return F.mse_loss(self(batch[0] + noise), noise)


class Queries(Module):
    """A detector whose step matches its queries to the boxes, as DETR does."""

    def setup_parts(self):
        self.net, self.head = features(), nn.Linear(8, 3 * 2)

    def step(self, batch):
        images, targets = batch
        logits = self.head(self.net(torch.stack(images)).mean((2, 3))).view(-1, 3, 2)
        wanted = torch.zeros(logits.shape[:2], dtype=torch.long)
        for row, target in enumerate(targets):
            wanted[row, : len(target["labels"])] = target["labels"]
        return F.cross_entropy(logits.transpose(1, 2), wanted)


class Auxiliary(Module):
    """The loss of an early head comes first; the main head's counts."""

    def setup_parts(self):
        self.net, self.early, self.rest = features(), nn.Linear(8, CLASSES), nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        pooled = self.net(x).mean((2, 3))
        return {"main": self.head(self.rest(pooled)), "early": self.early(pooled)}

    def step(self, batch):
        x, y = batch
        out = self(x)
        return 0.4 * F.cross_entropy(out["early"], y) + F.cross_entropy(out["main"], y)


class TwoTasks(Auxiliary):
    """A class and a number of the same features."""

    def setup_parts(self):
        super().setup_parts()
        self.early = nn.Linear(8, 1)

    def step(self, batch):
        x, y = batch
        out = self(x)
        return F.mse_loss(out["early"][:, 0], y.float()) + F.cross_entropy(out["main"], y)


class Adversarial(Plain):
    """Real and made images; its target says which is which."""

    def __init__(self):
        super().__init__(cnn(1))
        self.automatic_optimization = False
        self.after = []

    validation_step = pl.LightningModule.validation_step

    def training_step(self, batch, batch_idx):
        loss = F.binary_cross_entropy_with_logits(self(batch[0]), torch.ones(len(batch[0]), 1))
        self.manual_backward(loss)
        self.after.append(loss)


class Centred(Module):
    """Takes the mean of the batch away between its encoder and its head."""

    def setup_parts(self):
        self.net, self.head = features(), nn.Linear(8, CLASSES)

    def step(self, batch):
        pooled = self.net(batch[0]).mean((2, 3))
        return F.cross_entropy(self.head(pooled - pooled.mean(0)), batch[1])


class Frozen(Module):
    """Its encoder is run without a graph."""

    def setup_parts(self):
        self.net, self.head = features(), nn.Linear(8, CLASSES).requires_grad_(False)

    def step(self, batch):
        with torch.no_grad():
            return F.cross_entropy(self.head(self.net(batch[0]).mean((2, 3))), batch[1])


class Normalising(Plain):
    """A module with buffers, and none that is trained, comes before the model."""

    def setup_parts(self):
        self.normalise = nn.BatchNorm2d(3, affine=False)

    def step(self, batch):
        return F.cross_entropy(self(self.normalise(batch[0])), batch[1])


class Ending(Plain):
    """Ends in probabilities, and leaves traces behind its loss and before it."""

    def setup_parts(self):
        self.before, self.behind = [], []

    def forward(self, x):
        return self.net(x).softmax(1)

    def step(self, batch):
        self.before.append(1)
        try:
            loss = F.nll_loss(self(batch[0]).log(), batch[1])
        except Exception:
            loss = 0
        self.behind.append(loss)
        return loss


class Sigmoid(Plain):
    def setup_parts(self):
        self.net = cnn(1)

    def forward(self, x):
        return self.net(x).sigmoid().squeeze(1)

    def step(self, batch):
        return F.binary_cross_entropy(self(batch[0]), (batch[1] % 2).float())
