"""What holds of every method on the field: on every net, in every mode around it, and that it leaves no trace."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xai.functional import integrated_gradients
from lightning_xai.functional.field import gauss_legendre, generator
from lightning_xai.functional.passes.explained import place_of
from lightning_xai.tensors import replace_at
from tests.support.attention_nets import transformer
from tests.support.attributions import (
    ALL,
    METHODS,
    Checkpointed,
    Segmented,
    Two,
    case,
    explained,
    mlp,
    seeded,
)
from tests.support.nets import Plain, Text
from tests.support.photograph import changed, photograph

exactly = partial(assert_close, rtol=0, atol=0)
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def each_pair(*names):
    """Of nets and methods; recurrent nets have no LRP."""
    pairs = [(net, method) for net in names for method in METHODS if (net, method) != ("lstm", "lrp")]
    values = [pytest.param(net, METHODS[method], id=f"{net}-{method}") for net, method in pairs]
    return pytest.mark.parametrize(("name", "method"), values)


@each_pair(*ALL)
def test_it_is_of_the_shape_of_what_is_explained(name, method):
    model, inputs = case(name)
    before = copy.deepcopy(inputs)
    whole = method(model, inputs)
    assert whole.dtype == torch.float32
    assert whole.shape == explained(model, inputs)[0].shape
    assert whole.isfinite().all()
    assert whole.any()
    assert_close(method(model, inputs, batch_size=3), whole, rtol=1e-4, atol=1e-6)
    exactly(inputs, before)


@each_pair("conv", "lstm", "writes into its input", "tokens")
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_modes_around_it_do_not_matter(name, around, method):
    model, inputs = case(name)
    expected = method(model, inputs, 1)
    with around():
        exactly(method(model, inputs.clone(), 1), expected)
    exactly(method(copy.deepcopy(model).requires_grad_(False), inputs, 1), expected)


@each_pair("conv", "residual", "lstm", "tokens")
def test_nothing_is_left_behind(name, method):
    model, inputs = case(name)
    model(inputs).sum().backward()
    before = photograph(model, inputs)
    method(model, inputs, 1)
    with pytest.raises(IndexError):
        method(model, inputs, 99)
    assert changed(before, photograph(model, inputs)) == []


@each_method
def test_several_targets_are_each_alone(method):
    for name in ("conv", "tokens"):
        model, inputs = case(name)
        both = method(model, inputs, torch.tensor([[0, 2]] * 5))
        assert both.shape == (5, 2, *explained(model, inputs)[0].shape[1:])
        for index, target in enumerate((0, 2)):
            assert_close(both[:, index], method(model, inputs, target), rtol=1e-4, atol=1e-6)


@each_method
def test_classes_are_those_of_the_samples_as_they_are(method):
    """On the way from zero the net answers otherwise."""
    model, x = seeded(mlp), 3 * torch.randn(16, 6)
    with torch.no_grad():
        classes = model(x).argmax(1)
        assert (model(0.2 * x).argmax(1) != classes).any()
    exactly(method(model, x, "predicted"), method(model, x, classes))


@each_method
def test_labels_in_the_inputs_are_repeated_with_their_samples(method):
    """Where the forward is the step itself."""
    model, x, labels = seeded(mlp), torch.randn(5, 6), torch.arange(5) % 4

    def step(batch):
        assert len(batch[0]) == len(batch[1])
        output = model(batch[0])
        return torch.stack([output, output], 2).gather(1, batch[1].view(-1, 1, 1).expand(-1, 1, 2))[:, 0, :1]

    found = method(model, (x, labels), lambda output: output[:, 0], forward=step, batch_size=7)
    assert_close(found, method(model, x, labels), rtol=1e-4, atol=1e-6)


@each_method
def test_forward_is_used_in_place_of_the_call(method):
    model, inputs = case("conv")
    scaled = method(model, inputs, lambda o: o[:, 1], forward=lambda x: -4 * model(x))
    sign = 1 if method is METHODS["saliency"] else -1
    assert_close(scaled, sign * 4 * method(model, inputs, 1), rtol=1e-5, atol=1e-6)


@each_method
def test_segmentation_and_several_labels(method):
    model, x = seeded(Segmented), torch.randn(3, 3, 9, 9)
    found = method(model, x, lambda output: output["out"][:, 2].mean((1, 2)))
    assert found.shape == x.shape
    corner = method(model, x, lambda output: output["out"][:, 2, 0, 0])
    assert corner[:, :, :2, :2].any()
    assert not corner[:, :, 2:, 2:].any()
    several = method(*case("conv"), lambda output: output.sigmoid()[:, [0, 3]])
    assert several.shape == (5, 2, 3, 15, 11)


@each_method
def test_a_compiled_model(method):
    torch._dynamo.reset()
    for name in ("conv", "tokens"):
        model, inputs = case(name)
        expected = method(model, inputs, 1)
        compiled = torch.compile(model.eval(), backend="eager")
        compiled(inputs)
        exactly(method(compiled, inputs, 1), expected)
    torch._dynamo.reset()


@each_method
def test_a_block_that_runs_again(method):
    x = torch.randn(5, 3, 15, 11)
    exactly(method(seeded(Checkpointed), x, 1), method(seeded(Plain), x, 1))


@each_method
def test_bfloat16(method):
    model, x = seeded(partial(mlp, smooth=True)), torch.randn(5, 6)
    expected = method(model, x, 1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(model, x, 1)
    half = method(copy.deepcopy(model).bfloat16(), x.bfloat16(), 1)
    for other in (mixed, half):
        assert other.dtype == torch.float32
        assert_close(other, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(mixed, expected)


def test_places_and_weights_of_half_precision():
    """A straight line has one gradient, and what is summed of it is the whole."""
    net, x = nn.Linear(6, 2).bfloat16(), torch.randn(5, 6).bfloat16()
    found = integrated_gradients(net, x, 1)
    assert_close(found, x.float() * net.weight[1].detach().float(), rtol=1e-5, atol=1e-6)


@each_method
def test_the_defaults_of_the_process_change_nothing(other_defaults, method):
    cases = [case("conv"), case("tokens")]
    expected = [method(*each) for each in cases]
    with other_defaults():
        exactly([method(*each) for each in cases], expected)


@each_method
@pytest.mark.parametrize("name", ["bert", "t5"])
def test_language_models(name, method):
    model, inputs = transformer(name, "sdpa")
    found = method(model, inputs, lambda output: output.last_hidden_state[:, -1, 0], of="input_ids")
    assert found.shape == (3, 7, 32)
    assert found.any()


# ------------------------------------------------------------ which input


@each_method
def test_of_names_the_input_or_says_its_place(method):
    model, (image, numbers) = case("two inputs")
    first, second = (method(model, (image, numbers), 1, of=place) for place in (0, 1))
    exactly(first, method(model, (image, numbers), 1))
    assert second.shape == numbers.shape
    # the model as a function of the numbers alone
    beside = lambda x: model(image[:1].expand(len(x), -1, -1, -1), x)  # noqa: E731
    one = method(model, (image[:1], numbers[:1]), 1, of=1)
    assert_close(one, method(model, numbers[:1], 1, forward=beside), rtol=1e-4, atol=1e-6)
    named = {"image": image, "numbers": numbers}
    exactly(method(model, named, 1, of="numbers"), second)


def test_of_takes_token_ids_too():
    class Both(Text):
        def forward(self, x: Tensor, ids: Tensor) -> Tensor:
            return super().forward(ids) + x.mean(1, keepdim=True)

    model, ids, x = seeded(Both), torch.randint(0, 20, (3, 4)), torch.randn(3, 2)
    for method in METHODS.values():
        assert method(model, (x, ids), 1).shape == (3, 2)
        found = method(model, (x, ids), 1, of=1)
        assert_close(found, method(seeded(Text), ids, 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "of", "error", "text"),
    [
        (
            {"image": torch.ones(2, 3), "ids": None},
            "imag",
            ValueError,
            "of='imag' is none.*Did you mean 'image'.*'ids'",
        ),
        ((torch.ones(2, 3), torch.ones(2)), 2, ValueError, "of=2 is none of the inputs. There are 0, 1"),
        (torch.ones(2, 3), "x", ValueError, "of='x' is none of the inputs. There are 0"),
        ((torch.ones(2, 3), [torch.ones(2)]), 1, TypeError, "of=1 is a list; expected a tensor"),
        ((torch.ones(2, 3), torch.ones(2) > 0), 1, TypeError, r"of=1 is bool \(2,\); expected a tensor of floating"),
        ((torch.ones(2, 3), torch.ones(5, 3)), 1, ValueError, r"of=1 has the shape \(5, 3\) for 2 samples"),
    ],
)
def test_of_that_is_none_of_the_inputs(inputs, of, error, text):
    with pytest.raises(error, match=text):
        METHODS["saliency"](mlp(), inputs, of=of)


def test_the_place_counts_the_tensors_before():
    x = torch.ones(2)
    inputs = ([x, {"a": x, "b": "no tensor"}], x, x)
    assert place_of(inputs, 2) == 3
    replaced = replace_at(inputs, 3, -x)
    assert replaced[0] is inputs[0]
    assert replaced[1] is x
    exactly(replaced[2], -x)


@each_method
def test_scores_that_do_not_depend_on_it(method):
    class Ignores(Two):
        def forward(self, image, numbers):
            return self.numbers(numbers)

    inputs = (torch.randn(2, 3, 8, 8), torch.randn(2, 5))
    with pytest.raises(ValueError, match=r"do not depend on the first floating-point input, \(\d, 3, 8, 8\).*of="):
        method(Ignores(), inputs, 1)
    # a graph is there, but not to what is explained
    with pytest.raises(ValueError, match="do not depend on the input that of= names, "):
        method(Ignores(), (inputs[1], inputs[0]), 1, of=1, forward=lambda both: mine(both[0]))


def mine(x):
    return x @ torch.ones(5, 3, requires_grad=True)


def test_inputs_without_a_gradient():
    images = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8)
    for method in METHODS.values():
        with pytest.raises(TypeError, match=r"uint8 \(2, 3, 9, 9\).*no gradient.*no token ids.*images.float\(\)"):
            method(Plain(), images)


# ------------------------------------------------------------ the parts


@pytest.mark.parametrize("steps", [1, 2, 5, 32, 100])
def test_the_places_of_gauss_and_legendre(steps):
    numpy = pytest.importorskip("numpy")
    places, weights = gauss_legendre(steps)
    theirs = numpy.polynomial.legendre.leggauss(steps)
    assert_close(places, (torch.tensor(theirs[0]) + 1) / 2, rtol=0, atol=1e-12)
    assert_close(weights, torch.tensor(theirs[1]) / 2, rtol=0, atol=1e-12)


def test_a_stream_belongs_to_its_place():
    draws = [torch.rand(4, generator=generator(*place)) for place in [(0, 1), (0, 1, 0), (1, 0), (0, 1)]]
    exactly(draws[0], draws[3])
    assert len({tuple(draw.tolist()) for draw in draws}) == 3


@pytest.mark.parametrize("name", ["smooth_grad", "expected_gradients"])
def test_chunks_draw_what_the_whole_draws(name):
    model, inputs = case("conv")
    method = METHODS[name]
    whole = method(model, inputs, 1)
    parts = [method(model, inputs[rows], 1, positions=range(5)[rows]) for rows in (slice(0, 2), slice(2, 5))]
    assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(method(model, inputs[2:], 1), whole[2:], rtol=1e-2)
    assert not torch.equal(method(model, inputs, 1, seed=1), whole)
    with pytest.raises(ValueError, match="2 positions for 5 samples"):
        method(model, inputs, 1, positions=[0, 1])


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.sizes = mlp(), []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.net(x)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("saliency", [4, 1]),
        ("input_x_gradient", [4, 1]),
        ("lrp", [4, 1]),
        # the samples once, for their classes, then three of each
        *((name, [4, 1, 4, 4, 4, 3]) for name in ("smooth_grad", "integrated_gradients", "expected_gradients")),
    ],
)
def test_how_often_the_model_runs(name, sizes):
    model = Counting()
    METHODS[name](model, torch.randn(5, 6), batch_size=4)
    assert model.sizes == sizes
