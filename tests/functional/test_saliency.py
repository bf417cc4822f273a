"""Saliency against autograd by hand, finite differences, captum, and a truth that was planted."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lightning_xai.functional import saliency
from lightning_xai.functional.passes.explained import channel_dimension
from tests.support.attention_nets import Additive, Stack, transformer
from tests.support.attributions import CASES, TARGETS, Sequence, Two, case, mlp, seeded
from tests.support.hooks import hooks_of
from tests.support.nets import ChannelsLast, Plain, Text

exactly = partial(assert_close, rtol=0, atol=0)


def by_hand(model, inputs, targets):
    """One sample at a time, on a copy of the model."""
    model, found = copy.deepcopy(model).eval(), []
    several = isinstance(inputs, tuple)
    for i in range(len(inputs[0] if several else inputs)):
        one = [t[i : i + 1].clone() for t in (inputs if several else (inputs,))]
        one[0].requires_grad_()
        output = model(*([one[0].clone(), *one[1:]]))
        if callable(targets):
            score = targets(output)[0]
        else:
            chosen = {"predicted": output[0].argmax()}.get(targets) if isinstance(targets, str) else targets
            score = output[0, chosen[i] if isinstance(chosen, Tensor) and chosen.ndim else chosen]
        score.backward()
        found.append(one[0].grad.abs())
    return torch.cat(found)


@pytest.mark.parametrize("targets", TARGETS, ids=["labels", "class", "predicted", "callable"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_gradient_by_hand(name, targets):
    model, inputs = case(name)
    before = copy.deepcopy(inputs)
    for batch_size in (2, 32):
        found = saliency(model, inputs, targets, batch_size=batch_size)
        assert found.dtype == torch.float32
        assert_close(found, by_hand(model, inputs, targets), rtol=1e-5, atol=1e-7)
    exactly(inputs, before)


def test_it_is_the_slope_of_the_score():
    model, x, step = seeded(partial(mlp, smooth=True)).double(), torch.randn(3, 6, dtype=torch.double), 1e-6
    with torch.no_grad():
        slopes = [(model(x + step * e)[:, 1] - model(x - step * e)[:, 1]) / (2 * step) for e in torch.eye(6).double()]
    assert_close(saliency(model, x, 1).double(), torch.stack(slopes, 1).abs(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"writes into its input", "two inputs"}))
def test_it_is_captum_s(name):
    captum = pytest.importorskip("captum.attr")
    model, inputs = case(name)
    theirs = captum.Saliency(model.eval()).attribute(inputs.clone().requires_grad_(), target=TARGETS[0])
    assert_close(saliency(model, inputs, TARGETS[0]), theirs, rtol=1e-6, atol=1e-6)


def test_several_targets_come_from_one_forward():
    model, x = case("conv")
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    both = saliency(model, x, torch.tensor([[0, 3]] * 5))
    assert both.shape == (5, 2, *x.shape[1:])
    assert len(calls) == 1
    for index, target in enumerate((0, 3)):
        assert_close(both[:, index], saliency(model, x, target))


# ------------------------------------------------------------ token ids


@pytest.mark.parametrize("make", [Text, Additive], ids=["transformer", "lstm"])
def test_of_token_ids_it_is_the_embedding_s(make):
    model, ids = seeded(make), torch.randint(0, 20, (5, 7))
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    kept = []
    # the textbook: the gradient that the embedding's output retains
    handle = embedding.register_forward_hook(lambda m, a, output: (kept.append(output), output.retain_grad())[0])
    model.eval()(ids)[:, 1].sum().backward()
    handle.remove()
    assert kept[0].grad.shape == (5, 7, 8)
    for batch_size in (2, 32):
        assert_close(saliency(model, ids, 1, batch_size=batch_size), kept[0].grad.abs(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "bart"])
def test_of_language_models_it_is_the_gradient_at_the_words(name):
    model, inputs = transformer(name, "sdpa")
    words = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    score = lambda output: output.last_hidden_state[:, -1].sum(-1)  # noqa: E731
    scaled = getattr(getattr(model, "encoder", None), "embed_scale", 1.0)
    embedded = {**inputs, "inputs_embeds": words * (scaled if name == "bart" else 1.0)}
    del embedded["input_ids"]
    score(model(**embedded)).sum().backward()
    found = saliency(model, inputs, score)
    assert found.shape == (3, 7, 32)
    assert_close(found, words.grad.abs(), rtol=1e-4, atol=1e-6)


def test_padding_that_is_masked_says_nothing():
    model, inputs = transformer("bert", "sdpa")
    for mask in (inputs["attention_mask"], inputs["attention_mask"].float()):
        found = saliency(model, {**inputs, "attention_mask": mask}, lambda output: output.last_hidden_state[:, 0, 0])
        assert found.shape == (3, 7, 32)
        assert not found[1, 5:].any()
        assert found[1, :5].any()


def test_an_embedding_that_is_asked_twice_counts_twice():
    class Twice(Text):
        def forward(self, x):
            return self.head(self.embed(x).mean(1) + 2 * self.embed(input=x).square().mean(1))

    model, ids = seeded(Twice), torch.randint(0, 20, (3, 4))
    leaf = model.embed(ids).detach().requires_grad_()
    model.head(leaf.mean(1) + 2 * leaf.square().mean(1))[:, 0].sum().backward()
    assert_close(saliency(model, ids, 0), leaf.grad.abs())


def test_what_an_embedding_returns_may_be_written_to():
    class Scaled(Text):
        def forward(self, x):
            words = self.embed(x)
            words *= 3
            return self.head(words.mean(1))

    model, ids = seeded(Scaled), torch.randint(0, 20, (3, 4))
    assert_close(saliency(model, ids, 1), (0.75 * model.head.weight[1]).abs().detach().expand(3, 4, 8))


def test_a_frozen_embedding_may_be_read_without_grad():
    class Frozen(Text):
        def forward(self, x):
            with torch.no_grad():
                words = self.embed(x)
            return self.head(self.norm(self.blocks(words)).mean(1))

    ids = torch.randint(0, 20, (3, 4))
    exactly(saliency(seeded(Frozen), ids, 0), saliency(seeded(Text), ids, 0))


def test_an_embedding_in_a_block_that_runs_again():
    class Again(Text):
        def forward(self, x):
            start = checkpoint(lambda ids: self.blocks(self.embed(ids)), x, use_reentrant=False)
            return self.head(self.norm(start).mean(1))

    ids = torch.randint(0, 20, (3, 4))
    assert_close(saliency(seeded(Again), ids, 0), saliency(seeded(Text), ids, 0))


# ------------------------------------------------------------ what is around it


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ["conv", "lstm", "writes into its input"])
def test_the_modes_around_it_do_not_matter(name, around):
    model, inputs = case(name)
    expected = saliency(model, inputs, 1)
    with around():
        exactly(saliency(model, inputs.clone(), 1), expected)
    exactly(saliency(model, inputs.clone().requires_grad_(), 1), expected)
    exactly(saliency(copy.deepcopy(model).requires_grad_(False), inputs, 1), expected)


def test_bfloat16():
    model, inputs = seeded(partial(mlp, smooth=True)), torch.randn(5, 6)
    expected = saliency(model, inputs, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = saliency(model, inputs, 1)
    half = saliency(model.bfloat16(), inputs.bfloat16(), 1)
    for other in (found, half):
        assert other.dtype == torch.float32
        assert_close(other, expected, rtol=0.05, atol=0.02)
    assert not torch.equal(found, expected)


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_the_defaults_of_the_process_change_nothing(other_defaults, name):
    model, inputs = case(name)
    ids = torch.randint(0, 20, (3, 4))
    text = seeded(Text)

    def found():
        return [saliency(model, inputs, target) for target in (1, "predicted", TARGETS[0])] + [saliency(text, ids)]

    expected = found()
    with other_defaults():
        exactly(found(), expected)


def test_a_compiled_model():
    model, inputs = case("conv")
    expected = saliency(model, inputs, 1)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    compiled(inputs)
    exactly(saliency(compiled, inputs, 1), expected)
    text, ids = seeded(Text).eval(), torch.randint(0, 20, (3, 4))
    expected = saliency(text, ids, 1)
    compiled = torch.compile(text, backend="eager")
    compiled(ids)
    exactly(saliency(compiled, ids, 1), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["conv", "residual"])
def test_the_model_is_left_as_it_was(name):
    model, inputs = case(name)
    model(inputs).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    saliency(model, inputs, 1)
    exactly(dict(model.state_dict()), dict(before))
    exactly([p.grad for p in model.parameters()], gradients)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert hooks_of(model) == {}


def test_no_hook_stays_on_an_embedding():
    text = seeded(Text)
    saliency(text, torch.randint(0, 20, (3, 4)))
    with pytest.raises(IndexError):
        saliency(text, torch.randint(0, 20, (3, 4)), 99)
    assert hooks_of(text) == {}


def test_forward_is_used_in_place_of_the_call():
    model, inputs = case("conv")
    exactly(saliency(model, inputs, 1, forward=lambda x: -4 * model(x)), 4 * saliency(model, inputs, 1))
    raw = (inputs * 20 + 128).clamp(0, 255).to(torch.uint8)
    assert saliency(model, raw.float(), 1, forward=lambda x: model(x / 255)).any()


# ------------------------------------------------------------ what cannot be


class Detached(Plain):
    def forward(self, x):
        return super().forward(x.detach())


class WithoutGrad(Plain):
    def forward(self, x):
        with torch.no_grad():
            x = self.act(self.first(x))
        return self.head(self.last(x).flatten(2).mean(2))


class Ignores(Two):
    def forward(self, image, numbers):
        return self.numbers(numbers)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (Detached, torch.randn(2, 3, 15, 11)),
        (WithoutGrad, torch.randn(2, 3, 15, 11)),
        (Ignores, (torch.randn(2, 3, 8, 8), torch.randn(2, 5))),
    ],
    ids=["detached", "without grad", "ignored"],
)
def test_scores_that_do_not_depend_on_the_input(make, inputs):
    with pytest.raises(ValueError, match=r"do not depend on the first floating-point input, \(2, 3, .*detach\(\)"):
        saliency(make(), inputs, 1)


def test_inputs_without_a_gradient():
    images = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"uint8 \(2, 3, 9, 9\).*no gradient.*no token ids.*images.float\(\)"):
        saliency(Plain(), images)
    with pytest.raises(TypeError, match=r"int64 \(2, 6\).*no nn.Embedding that the token ids"):
        saliency(mlp(), torch.ones(2, 6, dtype=torch.long), forward=lambda x: x)


def test_ids_that_are_changed_before_the_embedding():
    class Shifted(Text):
        def forward(self, x):
            return super().forward(x + 1)

    with pytest.raises(TypeError, match=r"\(2, 4\) go into no nn.Embedding as they are; the model has 'embed'"):
        saliency(Shifted(), torch.randint(0, 9, (2, 4)))


@pytest.mark.parametrize(
    ("targets", "error", "text"),
    [
        (9, IndexError, "target 9 of sample 0 is out of range"),
        (torch.tensor([1, 2]), ValueError, r"shape \(2,\) for 5 samples|2 targets|for 5"),
        ("label", ValueError, "targets='label' is unknown"),
        (lambda output: output.sum(), ValueError, "one score a sample"),
        (lambda output: output[:2, 0], ValueError, "2 scores for 5 samples"),
    ],
)
def test_targets_that_do_not_fit(targets, error, text):
    model, inputs = case("conv")
    with pytest.raises(error, match=text):
        saliency(model, inputs, targets)


# ------------------------------------------------------------ the channels


class Transposed(nn.Module):
    """A convolution over (N, L, C)."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x.mT).mean(2))


class Grey(nn.Module):
    """Images (N, H, W) without channels."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x[:, None]).mean((2, 3)))


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(54, 3)

    def forward(self, x):
        return self.head(x.flatten(1))


class Beside(nn.Module):
    """Numbers beside a signal, which are read first."""

    def __init__(self):
        super().__init__()
        self.numbers, self.signal = nn.Linear(5, 3), Plain(classes=3, dimensions=1)

    def forward(self, signal, numbers):
        return self.numbers(numbers) + self.signal(signal)


class Bare(nn.Module):
    def forward(self, x):
        return x.mean(2)


@pytest.mark.parametrize(
    ("make", "inputs", "expected"),
    [
        (Plain, torch.randn(2, 3, 15, 11), 1),
        (ChannelsLast, torch.randn(2, 3, 12, 8), 1),
        (partial(Plain, dimensions=1), torch.randn(2, 3, 21), 1),
        (partial(Plain, dimensions=3), torch.randn(2, 3, 9, 9, 9), 1),
        (Sequence, torch.randn(2, 9, 6), 2),
        (Sequence, torch.randn(2, 6, 6), 2),
        (Stack, torch.randn(2, 5, 16), 2),
        (Transposed, torch.randn(2, 9, 6), 2),
        (Grey, torch.randn(2, 9, 9), None),
        (Flat, torch.randn(2, 9, 6), None),
        (Flat, torch.randn(2, 3, 3, 6), 1),
        (Beside, (torch.randn(2, 3, 21), torch.randn(2, 5)), 1),
        (Bare, torch.randn(2, 9, 6), 1),
        (mlp, torch.randn(2, 6), None),
        (Text, torch.randint(0, 20, (2, 4)), 2),
        (Two, (torch.randn(2, 3, 12, 12), torch.randn(2, 5)), 1),
    ],
)
def test_where_the_channels_are(make, inputs, expected):
    assert channel_dimension(make(), inputs) == expected


# ------------------------------------------------------------ a truth that was planted


def test_only_what_counts_is_salient():
    class Corner(nn.Module):
        def forward(self, x):
            corner = x[:, 1, :3, :3].square().sum((1, 2))
            return torch.stack([corner, -corner], 1)

    found = saliency(Corner(), torch.rand(4, 3, 8, 8) + 0.5, 0)
    assert (found[:, 1, :3, :3] > 0).all()
    assert float(found.sum()) == pytest.approx(float(found[:, 1, :3, :3].sum()))
