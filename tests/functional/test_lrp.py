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
from tests.support.attention_nets import transformer
from tests.support.attributions import ALL, Two, case, explained, mlp, seeded
from tests.support.nets import ViT
from tests.support.photograph import changed, photograph

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


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, groups=8)),
            *(nn.Flatten(), nn.Linear(72, 3)),
        )

    def parts(self):
        return list(self)


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"epsilon_plus_flat"}))
def test_groups_and_inputs_of_both_signs(rule):
    net, x, targets = seeded(Grouped).double(), torch.randn(3, 4, 5, 5).double(), torch.tensor([0, 2, 1])
    expected = textbook_lrp.relevance(net, x, targets, rule, 1e-3)
    found = lrp(net, x, targets, rule=rule, epsilon=1e-3)
    assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("style", ["functions", "in place"])
def test_spellings_of_a_net_are_bit_identical(style, rule):
    x = small_images()
    expected = lrp(seeded(partial(Residual, "modules")), x, 1, rule=rule)
    exactly(lrp(seeded(partial(Residual, style)), x, 1, rule=rule), expected)


@pytest.mark.parametrize("rule", ["epsilon", "alpha2_beta1"])
def test_spellings_of_a_matrix_product_are_one_layer(rule):
    net, x = seeded(mlp), torch.randn(4, 6)
    net[2].bias = None
    first, second = net[0], net[2]
    settings = {"rule": rule, "epsilon": 0.1}
    expected = lrp(net, x, 1, **settings)
    for product in (
        lambda h: F.linear(h, weight=second.weight),
        lambda h: h @ second.weight.T,
        lambda h: torch.matmul(h, second.weight.T),
        lambda h: h.mm(second.weight.T),
    ):
        forward = lambda x, product=product: product(torch.addmm(first.bias, x, first.weight.T).relu())  # noqa: E731
        assert_close(lrp(net, x, 1, **settings, forward=forward), expected, rtol=1e-5, atol=1e-7)


def test_of_relus_lrp_zero_is_input_x_gradient():
    for net, x in ((seeded(Vgg), torch.randn(3, 2, 10, 10)), (seeded(Residual), small_images())):
        expected = input_x_gradient(net, x, 1)
        assert_close(lrp(net, x, 1, rule="zero"), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_captum_s():
    captum = pytest.importorskip("captum.attr")
    net, x = seeded(Vgg), torch.randn(3, 2, 10, 10)

    class Flattened(nn.Module):
        """Captum has no rule for the module that flattens."""

        def __init__(self) -> None:
            super().__init__()
            layers = copy.deepcopy(list(net))
            self.first, self.last = nn.Sequential(*layers[:5]), nn.Sequential(*layers[6:])

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).flatten(1))

    theirs = captum.LRP(Flattened().eval()).attribute(x.clone().requires_grad_(), target=1).detach()
    found = lrp(net, x, 1, rule="epsilon", epsilon=1e-9)
    assert_close(found, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


# ------------------------------------------------------------ what it sums to


@pytest.mark.parametrize("rule", RULES)
def test_without_biases_it_sums_to_the_score(rule):
    net, x = seeded(partial(Vgg, bias=False)).double(), torch.randn(3, 2, 10, 10).double()
    found = lrp(net, x, 1, rule=rule, epsilon=1e-9)
    with torch.no_grad():
        score = net(x)[:, 1].float()
    assert_close(found.flatten(1).sum(1), score, rtol=1e-4, atol=1e-5)
    assert_close(bias_share(net, x, 1, found), torch.zeros(3), rtol=0, atol=1e-4)


def test_the_bias_share_is_what_lacks():
    net, x = nn.Linear(2, 2), torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    net.weight.data, net.bias.data = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([1.0, -1.0])
    found = lrp(net, x, 0)
    assert_close(found, x)
    assert_close(bias_share(net, x, 0, found), torch.tensor([1 / 4, 1 / 5]))
    both = torch.tensor([[0, 1]] * 2)
    assert_close(bias_share(net, x, both, lrp(net, x, both)), torch.tensor([[1 / 4, -1.0], [1 / 5, -1 / 5]]))
    with pytest.raises(ValueError, match=r"attributions have the shape \(2,\)"):
        bias_share(net, x, 0, torch.zeros(2))


def test_flat_reaches_inputs_of_zero_and_ignores_their_scale():
    net, x = seeded(Vgg), torch.randn(3, 2, 10, 10).relu()
    found = lrp(net, x, 1, rule="epsilon_plus_flat")
    assert found[x == 0].any()
    mean, deviation = torch.tensor([0.4, -0.3]).view(2, 1, 1), torch.tensor([0.5, 2.0]).view(2, 1, 1)
    raw = x * deviation + mean
    inside = lrp(net, raw, 1, rule="epsilon_plus_flat", forward=lambda x: net((x - mean) / deviation))
    assert_close(inside, found, rtol=0, atol=1e-4 * float(found.abs().max()))
    both = torch.cat([2 * x[:, :1], 3 * x[:, :1]], 1)
    doubled = lambda x: net(x * torch.tensor([2.0, 3.0]).view(2, 1, 1))  # noqa: E731
    grey = lrp(net, x[:, :1], 1, rule="epsilon_plus_flat", forward=doubled)
    assert_close(grey, lrp(net, both, 1, rule="epsilon_plus_flat").sum(1, keepdim=True), rtol=1e-4, atol=1e-7)
    moved = lrp(net, x.permute(0, 2, 3, 1), 1, rule="epsilon_plus_flat", forward=lambda x: net(x.permute(0, 3, 1, 2)))
    exactly(moved, found.permute(0, 2, 3, 1).contiguous())


# ------------------------------------------------------------ what has no weights


class Of(nn.Module):
    """A function of (N, D) without weights; its score is the sum."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "function",
    [
        F.gelu,
        partial(F.gelu, approximate="tanh"),
        F.silu,
        partial(F.silu, inplace=True),
        torch.tanh,
        Tensor.tanh_,
        *(F.mish, F.hardswish, F.relu6, F.elu, F.selu, F.softsign, nn.GELU(), nn.ReLU6(True), F.leaky_relu, F.relu),
    ],
)
def test_activations_pass_relevance_on_as_it_is(function):
    x = torch.cat([torch.randn(4, 5) * 4, torch.zeros(1, 5)])
    found = lrp(Of(function), x, 1)
    assert_close(found, function(x.clone()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "function", [lambda a, b: a * b, torch.mul, Tensor.mul_, lambda a, b: (a[:, None] @ b[:, :, None])[:, 0]]
)
def test_factors_share_a_product(function):
    x = torch.randn(4, 6)
    halves = x[:, :3] * x[:, 3:] / 2
    found = lrp(Of(lambda x: function(x[:, :3].clone(), x[:, 3:])), x, 1)
    assert_close(found, torch.cat([halves, halves], 1), rtol=1e-5, atol=1e-6)


def test_three_factors_and_constants():
    x = torch.randn(4, 6)
    found = lrp(Of(lambda x: torch.einsum("ni,ni,ni->ni", x[:, :2], x[:, 2:4], x[:, 4:])), x, 1)
    third = x[:, :2] * x[:, 2:4] * x[:, 4:] / 3
    assert_close(found, torch.cat([third] * 3, 1), rtol=1e-5, atol=1e-6)
    assert_close(lrp(Of(lambda x: x * torch.full((6,), 3.0) * 2), x, 1), 6 * x)
    added = lrp(Of(lambda x: torch.baddbmm(x[:, :1, None], x[:, None, :2], x[:, 2:4, None])), x, 1)
    assert_close(added[:, 0], x[:, 0] + x[:, 0] * x[:, 2] / 2)
    assert_close(added[:, 3], x[:, 1] * x[:, 3] / 2)


def test_what_divides_is_a_scale():
    x = torch.rand(4, 6) + 0.5
    for function in (
        lambda x: x / x.std(1, keepdim=True),
        lambda x: x.div(x.std(1, keepdim=True)),
        lambda x: x * x.std(1, keepdim=True).square().rsqrt(),
    ):
        assert_close(lrp(Of(function), x, 1), x / x.std(1, keepdim=True), rtol=1e-4, atol=1e-5)


def linear_shares(x: Tensor, matrix: Tensor) -> Tensor:
    """Of the sum of what a matrix (N, D, D) makes of x (N, D)."""
    return x * matrix.sum(1)


@pytest.mark.parametrize("norm", ["layer", "rms", "by hand", "group", "instance"])
def test_normalisations_are_linear_for_a_fixed_deviation(norm):
    x, weight = torch.randn(4, 6, dtype=torch.double), torch.rand(6, dtype=torch.double)
    centre = torch.eye(6).double() - 1 / 6
    if norm in ("layer", "rms", "by hand"):
        functions = {
            "layer": lambda x: F.layer_norm(x, (6,), weight, torch.ones(6).double()),
            "rms": lambda x: F.rms_norm(x, (6,), weight, 1e-5),
            "by hand": lambda x: weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)),
        }
        centred = centre if norm == "layer" else torch.eye(6).double()
        deviation = ((x @ centred).square().mean(1) + 1e-5).sqrt()
        matrix = weight[:, None] * centred / deviation[:, None, None]
        found = lrp(Of(functions[norm]), x, 1)
    else:
        channels, weight = (2, weight[:2]) if norm == "group" else (1, weight[:1])
        function = F.group_norm if norm == "group" else F.instance_norm
        settings = {"num_groups": 1} if norm == "group" else {}
        deviation = ((x @ centre).square().mean(1) + 1e-5).sqrt()
        matrix = weight.repeat_interleave(6 // channels)[:, None] * centre / deviation[:, None, None]
        found = lrp(Of(lambda x: function(x.view(4, channels, -1), weight=weight, **settings)), x, 1)
    assert_close(found.double(), linear_shares(x, matrix), rtol=1e-4, atol=1e-6)


class OneHead(nn.Module):
    """One head over (N, L, D), three ways to write it."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style, self.attention = style, nn.MultiheadAttention(4, 1, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "module":
            out = self.attention(x, x, x, need_weights=False)[0]
        elif self.style == "module with weights":
            out = self.attention(x, x, x)[0]
        else:
            q, k, v = F.linear(x, self.attention.in_proj_weight).chunk(3, -1)
            if self.style == "fused":
                out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
            else:
                out = (q @ k.mT / math.sqrt(4)).softmax(-1) @ v
            out = self.attention.out_proj(out)
        return out.sum(1)


def attention_by_the_book(model: OneHead, x: Tensor, target: int) -> Tensor:
    """AttnLRP's rules for one sample (L, D), sum by sum."""
    wq, wk, wv = model.attention.in_proj_weight.detach().double().chunk(3)
    wo = model.attention.out_proj.weight.detach().double()
    q, k, v = x @ wq.T, x @ wk.T, x @ wv.T
    s = q @ k.T / math.sqrt(4)
    a = s.softmax(-1)
    o = a @ v
    length, width = x.shape
    r_o = o * wo[target]  # epsilon rule of the output's layer; its relevance is its value
    r_a, r_v = torch.zeros_like(a), torch.zeros_like(v)
    for i in range(length):
        for j in range(length):
            for d in range(width):
                part = a[i, j] * v[j, d] / o[i, d] * r_o[i, d] / 2
                r_a[i, j] += part
                r_v[j, d] += part
    r_s = torch.stack([s[i] * (r_a[i] - a[i] * r_a[i].sum()) for i in range(length)])
    r_q, r_k = torch.zeros_like(q), torch.zeros_like(k)
    for i in range(length):
        for j in range(length):
            for d in range(width):
                part = q[i, d] * k[j, d] / math.sqrt(4) / s[i, j] * r_s[i, j] / 2
                r_q[i, d] += part
                r_k[j, d] += part
    total = torch.zeros_like(x)
    for weight, z, r in ((wq, q, r_q), (wk, k, r_k), (wv, v, r_v)):
        total += x * ((r / z) @ weight)
    return total


@pytest.mark.parametrize("style", ["module", "module with weights", "fused", "by hand"])
def test_attention_is_two_products_and_a_softmax(style):
    model, x = seeded(partial(OneHead, style)), torch.randn(2, 5, 4)
    expected = torch.stack([attention_by_the_book(model, sample.double(), 2) for sample in x]).float()
    assert_close(lrp(model, x, 2, epsilon=1e-9), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_attention_to_what_is_constant():
    memory = torch.randn(2, 1, 5, 4)
    attend = lambda x: F.scaled_dot_product_attention(x.view(2, 1, 3, 4), memory, value=memory)  # noqa: E731
    model, x = Of(attend), torch.randn(2, 12)
    # nothing to share with: queries take what the gradient of softmax gives them
    assert_close(lrp(model, x, 1), input_x_gradient(model, x, 1), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ BatchNorm


class Normed(nn.Module):
    def __init__(self, first: nn.Module, between=lambda x: x) -> None:
        super().__init__()
        self.first, self.between = first, between
        self.norm = (nn.BatchNorm2d if isinstance(first, (nn.Conv2d, nn.ConvTranspose2d)) else nn.BatchNorm1d)(5)
        self.norm.running_mean.copy_(torch.randn(5))
        self.norm.running_var.copy_(torch.rand(5) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.between(self.first(x))).flatten(2 if x.ndim > 2 else 1).sum(-1).view(len(x), -1)


def test_batch_norm_is_merged_where_it_follows_a_layer_alone():
    x = torch.randn(3, 6)
    net = seeded(lambda: Normed(nn.Linear(6, 5)))
    scale = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    one = nn.Linear(6, 5)
    one.weight.data, one.bias.data = (
        (net.first.weight * scale[:, None]).data,
        ((net.first.bias - net.norm.running_mean) * scale).data,
    )
    merged = nn.Sequential(one, nn.Flatten(0))
    settings = {"rule": "alpha2_beta1", "epsilon": 0.1}
    score = lambda output: output.view(3, -1).sum(1)  # noqa: E731
    expected = lrp(merged, x, score, **settings)
    assert_close(lrp(net, x, score, **settings), expected, rtol=1e-4, atol=1e-6)
    assert_close(
        lrp(net, x, score, rule="epsilon", epsilon=0.1),
        lrp(merged, x, score, rule="epsilon", epsilon=0.1),
        rtol=1e-4,
        atol=1e-6,
    )
    # written to in between: another tensor under the same name
    between = seeded(lambda: Normed(nn.Linear(6, 5), F.relu_))
    apart = seeded(lambda: Normed(nn.Linear(6, 5), F.relu))
    exactly(lrp(between, x, score, **settings), lrp(apart, x, score, **settings))
    assert not torch.allclose(lrp(between, x, score, **settings), expected, rtol=0.01)


@pytest.mark.parametrize("rule", ["epsilon_plus", "epsilon", "alpha2_beta1"])
@pytest.mark.parametrize(
    ("first", "x"),
    [(nn.ConvTranspose2d(3, 5, 2), torch.randn(3, 3, 4, 4)), (nn.Linear(6, 5), torch.randn(3, 5, 6))],
    ids=["transposed", "sequence"],
)
def test_batch_norm_over_other_channels_is_affine(first, x, rule):
    net = seeded(lambda: Normed(first))
    mean, variance, shape = net.norm.running_mean, net.norm.running_var + net.norm.eps, (5, *[1] * (x.ndim - 2))

    def apart(x):
        return ((first(x) - mean.view(shape)) / variance.sqrt().view(shape)).flatten(1)

    score = lambda output: output.flatten(1).sum(1)  # noqa: E731
    expected = lrp(net, x, score, rule=rule, forward=apart)
    assert_close(lrp(net, x, score, rule=rule), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_batch_norm_without_running_numbers_is_left_alone():
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False))
    for rule in ("epsilon", "alpha1_beta0"):
        assert lrp(net, torch.randn(4, 6), 1, rule=rule).isfinite().all()


def test_what_runs_without_grad_is_a_constant():
    def gated(x):
        with torch.no_grad():
            gate = torch.tanh(x * x) @ torch.ones(3, 3)
        return x * gate

    x = torch.randn(4, 3)
    assert_close(lrp(Of(gated), x, 1), gated(x))


# ------------------------------------------------------------ nets of every kind


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"epsilon_plus_flat"}))
@pytest.mark.parametrize("name", WITHOUT_RECURRENCE)
def test_every_rule_takes_every_net(name, rule):
    model, inputs = case(name)
    found = lrp(model, inputs, 1, rule=rule)
    assert found.shape == explained(model, inputs)[0].shape
    assert found.isfinite().all()
    assert found.any()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "bart"])
def test_language_models(name):
    model, inputs = transformer(name, "sdpa")
    eager, _ = transformer(name, "eager")
    score = lambda output: output.last_hidden_state[:, -1, 0]  # noqa: E731
    found = lrp(model, inputs, score)
    assert found.shape == (3, 7, 32)
    assert found.isfinite().all()
    # attention that is written out has the same rules as the kernel
    assert_close(lrp(eager, inputs, score), found, rtol=0, atol=1e-3 * float(found.abs().max()))
    if name == "bert":
        assert not lrp(model, inputs, lambda output: output.last_hidden_state[:, 0, 0])[1, 5:].any()


@pytest.mark.parametrize("rule", ["epsilon_plus", "epsilon_plus_flat", "alpha2_beta1"])
def test_blocks_that_run_again(rule):
    class Again(Residual):
        def forward(self, x):
            x = checkpoint(lambda x: self.blocks(self.relu(self.norm(self.stem(x)))), x, use_reentrant=False)
            return self.head(self.flat(self.pool(x)))

    for targets in (1, torch.tensor([[0, 2]] * 3)):
        expected = lrp(seeded(Residual), small_images(), targets, rule=rule)
        exactly(lrp(seeded(Again), small_images(), targets, rule=rule), expected)


@pytest.mark.parametrize("rule", ["epsilon_plus", "alpha2_beta1"])
def test_attention_that_runs_again(rule):
    class Again(ViT):
        def forward(self, x):
            x = self.patches(x).flatten(2).mT
            x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.head(self.norm(x)[:, 0])

    x = torch.randn(2, 3, 16, 16)
    exactly(lrp(seeded(Again), x, 1, rule=rule), lrp(seeded(ViT), x, 1, rule=rule))


def test_rules_divide_in_single_precision_under_autocast():
    net, x = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Flatten()), small_images().relu()
    with torch.autocast("cpu", torch.bfloat16):
        found = lrp(net, x, lambda output: output.sum(1))
        score = net(x).double()
    assert found.dtype == torch.float32
    # where something positive arrives all of it is shared, however coarse it is itself
    assert_close(found.flatten(1).sum(1).double(), score.sum(1).detach(), rtol=1e-4, atol=1e-5)
    net = seeded(Residual)
    expected = lrp(net, small_images(), 1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = lrp(net, small_images(), 1)
    assert not torch.equal(mixed, expected)
    assert torch.corrcoef(torch.stack([mixed.flatten(), expected.flatten()]))[0, 1] > 0.98


def test_several_targets_in_one_forward():
    net, x = seeded(Residual), small_images()
    both = lrp(net, x, torch.tensor([[0, 2]] * 3))
    for index, target in enumerate((0, 2)):
        assert_close(both[:, index], lrp(net, x, target), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_left_behind(rule):
    net, x = seeded(Residual), small_images()
    before = photograph(net, x)
    lrp(net, x, 1, rule=rule)
    assert changed(before, photograph(net, x)) == []


def test_a_compiled_model():
    net, x = seeded(Residual).eval(), small_images()
    expected = lrp(net, x, 1)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    exactly(lrp(compiled, x, 1), expected)
    torch._dynamo.reset()


# ------------------------------------------------------------ what cannot be


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell])
def test_recurrent_layers_are_refused(layer):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer(6, 5)

        def forward(self, x):
            found = self.layer(x)
            return (found[0] if isinstance(found, tuple) else found).flatten(1)

    with pytest.raises(ValueError, match=r"recurrent layer \(\w+\).*no rule.*integrated_gradients"):
        lrp(Recurrent(), torch.randn(3, 6), 1)
    assert not lrp(Recurrent(), torch.randn(3, 6), 1, forward=lambda x: x).isnan().any()


def test_a_recurrent_layer_beside_the_input_is_none_of_its_business():
    class Beside(Two):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 4)

        def forward(self, image, numbers):
            return self.image(image) + self.lstm(numbers)[0]

    inputs = (torch.randn(2, 3, 12, 12), torch.randn(2, 5))
    assert lrp(seeded(Beside), inputs, 1).any()
    with pytest.raises(ValueError, match="recurrent"):
        lrp(seeded(Beside), inputs, 1, of=1)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_convolutions_that_are_not_seen_are_not_passed_over():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = torch.jit.trace(nn.Conv2d(2, 4, 3), small_images())

        def forward(self, x):
            return self.part(x).mean((2, 3))

    with pytest.raises(ValueError, match=r"1 convolutions are not called by.*TorchScript.*'epsilon'"):
        lrp(Part(), small_images(), 1)
    assert lrp(Part(), small_images(), 1, rule="epsilon").any()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rule": "epsilon_pluss"}, r"no rule 'epsilon_pluss'. Did you mean 'epsilon_plus'.*alpha2_beta1"),
        ({"epsilon": 0}, "epsilon=0 has to be positive; rule='zero' has none"),
    ],
)
def test_settings_that_do_not_fit(settings, text):
    with pytest.raises(ValueError, match=text):
        lrp(seeded(Vgg), torch.randn(2, 2, 10, 10), 1, **settings)


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        (lambda net, x: net(x) + x.flatten(1)[:, :3], "goes past it to later ones, as by a residual connection"),
        (lambda net, x: net(x.tanh()), "passes an activation or a normalisation before it: .*'epsilon_plus'"),
        (lambda net, x: net(x.sigmoid()), "passes Sigmoid before it"),
        (lambda net, x: net(x * x), "passes Mul before it"),
    ],
)
def test_what_cannot_be_spread_evenly(forward, text):
    net, x = seeded(Vgg), torch.randn(2, 2, 10, 10)
    with pytest.raises(ValueError, match=text):
        lrp(net, x, 1, rule="epsilon_plus_flat", forward=partial(forward, net))
