"""LRP against the papers' matrices, spellings of one net, captum, and what it has to sum to."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lightning_xai.functional import bias_share, input_x_gradient, lrp
from tests.support import textbook_lrp
from tests.support.attributions import ALL, CASES, Segmented, Two, case, explained, mlp, seeded
from tests.support.photograph import changed, photograph

from .attention_models import transformer
from .nets import Plain, Text, ViT

exactly = partial(assert_close, rtol=0, atol=0)
RULES = list(textbook_lrp.RULES)
WITHOUT_RECURRENCE = sorted(set(ALL) - {"lstm"})


class Vgg(nn.Sequential):
    def __init__(self, bias: bool = True) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3, 1, 1, bias=bias), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, 2, bias=bias), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(24, 8, bias=bias), nn.ReLU(), nn.Linear(8, 3, bias=bias)),
        )

    def parts(self):
        return list(self)


class Block(nn.Module):
    """Spelled with modules, with functions, or in place, as `style` says."""

    def __init__(self, channels: int, out: int, stride: int, style: str) -> None:
        super().__init__()
        self.style = style
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out)
        self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU(style == "in place")

    def parts(self):
        return [[[self.conv1, self.bn1, nn.ReLU(), self.conv2, self.bn2], list(self.down)], nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "functions":
            out = F.relu(_norm(self.bn1, _conv(self.conv1, x)))
            out = torch.add(_norm(self.bn2, _conv(self.conv2, out)), _norm(self.down[1], _conv(self.down[0], x)))
            return torch.relu(out)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.style == "in place":
            out += self.down(x)
        else:
            out = out + self.down(x)
        return self.relu(out)


def _conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, bias=conv.bias, stride=conv.stride, padding=conv.padding)


def _norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class Residual(nn.Module):
    def __init__(self, style: str = "modules") -> None:
        super().__init__()
        self.stem, self.norm, self.relu = nn.Conv2d(2, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.blocks = nn.Sequential(Block(4, 5, 1, style), Block(5, 6, 2, style))
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        random = torch.Generator().manual_seed(3)
        for norm in (module for module in self.modules() if isinstance(module, nn.BatchNorm2d)):
            for values in (norm.weight.data, norm.running_var):
                values.copy_(torch.rand(values.shape, generator=random) + 0.5)
            for values in (norm.bias.data, norm.running_mean):
                values.copy_(torch.randn(values.shape, generator=random) * 0.3)

    def parts(self):
        blocks = [part for block in self.blocks for part in block.parts()]
        return [self.stem, self.norm, self.relu, *blocks, self.pool, self.flat, self.head]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.pool(self.blocks(self.relu(self.norm(self.stem(x)))))))


def small_images(samples: int = 3) -> Tensor:
    return torch.randn(samples, 2, 9, 7, generator=torch.Generator().manual_seed(2))


# ------------------------------------------------------------ by the book


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("make", [Vgg, Residual])
def test_it_is_the_book_s_layer_by_layer(make, rule, epsilon):
    net = seeded(make).eval()
    x, targets = (torch.randn(3, 2, 10, 10) if make is Vgg else small_images()), torch.tensor([0, 2, 1])
    expected = textbook_lrp.relevance(copy.deepcopy(net).double(), x, targets, rule, epsilon)
    exact = lrp(copy.deepcopy(net).double(), x.double(), targets, rule=rule, epsilon=epsilon)
    assert_close(exact, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    found = lrp(net.train(), x, targets, rule=rule, epsilon=epsilon, batch_size=2)
    assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
