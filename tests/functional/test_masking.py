"""What occlusion, KernelSHAP, LIME and feature importance share: what is masked, by what, and what is around it."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional import feature_importance, kernel_shap, lime, occlusion
from lightning_xai.functional.masks import masking
from lightning_xai.functional.masks.features import in_cells, one_each
from tests.support.attention_nets import transformer
from tests.support.masked_cases import CASES, TARGETS, Game, Two, explained, mlp, output_of, places, prepared
from tests.support.nets import Plain, Text

exactly = partial(assert_close, rtol=0, atol=0)
METHODS = {
    "occlusion": occlusion,
    "kernel_shap": kernel_shap,
    "lime": partial(lime, masks=70),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


# ------------------------------------------------------------ features


@pytest.mark.parametrize(
    ("sample", "channels", "cells"),
    [((3, 8, 8), 1, 4), ((3, 7, 5), 1, 3), ((9, 6), 2, 4), ((3, 21), 1, 5), ((7, 9), None, 2), ((2, 5, 6, 7), 1, 2)],
)
def test_cells(sample, channels, cells):
    features = in_cells(sample, None if channels is None else channels - len(sample) - 1, cells)
    expected = places(torch.Size(sample), cells, channels)
    assert features.number == len(expected)
    for index, place in enumerate(expected):
        one_hot = torch.eye(features.number)[index]
        spread = features.spread(one_hot, sample)
        exactly(spread > 0, place)
        assert float(spread.sum()) == pytest.approx(1, abs=1e-6)


def test_columns_and_tokens_are_features():
    assert one_each(5).index.tolist() == in_cells((5,), None, 8).index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cells", [0, -1, 12])
def test_cells_that_do_not_fit(cells):
    model, inputs, *_ = prepared("conv")
    for method in METHODS.values():
        with pytest.raises(ValueError, match=rf"cells={cells} along each axis does not fit 15 x 11 .*give 1 to 11"):
            method(model, inputs, cells=cells)


@every_method
@pytest.mark.parametrize("name", CASES)
def test_results_have_the_shape_of_the_input(name, method):
    model, inputs, cells, _ = prepared(name)
    found = method(model, inputs, cells=cells)
    assert found.dtype == torch.float32
    assert found.shape == explained(inputs).shape


# ------------------------------------------------------------ baselines


def slow_mean(name, x):
    """Of each sample and channel; of a table, of the column."""
    if name == "table":
        return x.mean(0).expand_as(x)
    found = torch.zeros_like(x)
    for row in range(len(x)):
        if name == "lstm":
            for channel in range(x.shape[2]):
                found[row, :, channel] = x[row, :, channel].mean()
        else:
            for channel in range(x.shape[1]):
                found[row, channel] = x[row, channel].mean()
    return found


@pytest.mark.parametrize("name", ["conv", "lstm", "signal", "table", "two inputs"])
def test_the_mean(name):
    model, inputs, cells, _ = prepared(name)
    expected = occlusion(model, inputs, 1, cells=cells, baseline=slow_mean(name, explained(inputs)))
    assert_close(occlusion(model, inputs, 1, cells=cells, baseline="mean"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["conv", "lstm", "signal", "volume"])
def test_blurred_is_what_is_finer_than_a_cell_gone(name):
    model, inputs, cells, channels = prepared(name)
    with masking(model, inputs, 1, cells=cells, baseline="blur") as masked:
        blurred = masked.absent[0]
    assert blurred.shape == inputs.shape
    # what does not vary stays, a coarse slope nearly, and noise within the cells goes
    for steady in (torch.ones_like(inputs), inputs.mean(list(range(1, inputs.ndim)), keepdim=True).expand_as(inputs)):
        with masking(model, steady, 1, cells=cells, baseline="blur") as masked:
            assert_close(masked.absent[0], steady)
    axis = 1 if channels == 2 else inputs.ndim - 1
    slope = torch.linspace(-1, 1, inputs.shape[axis]).view([-1 if a == axis else 1 for a in range(inputs.ndim)])
    with masking(model, slope.expand_as(inputs), 1, cells=cells, baseline="blur") as masked:
        assert (masked.absent[0] - slope).abs().max() < 1.2 / cells
    assert blurred.std() < 0.7 * inputs.std()


def test_baselines_of_one_sample_and_of_all():
    model, x, cells, _ = prepared("conv")
    zero = occlusion(model, x, 1, cells=cells)
    for baseline in ("zero", 0, 0.0, torch.zeros(3, 15, 11), torch.zeros(1, 3, 15, 11), torch.zeros_like(x)):
        exactly(occlusion(model, x, 1, cells=cells, baseline=baseline), zero)
    constant = occlusion(model, x, 1, cells=cells, baseline=0.25)
    exactly(constant, occlusion(model, x, 1, cells=cells, baseline=torch.full_like(x, 0.25)))
    own = torch.randn_like(x)
    for row in range(len(x)):
        alone = occlusion(model, x[row : row + 1], 1, cells=cells, baseline=own[row])
        assert_close(occlusion(model, x, 1, cells=cells, baseline=own)[row], alone[0], rtol=1e-4, atol=1e-6)
    assert not occlusion(model, x, 1, cells=cells, baseline=x).any()


@every_method
@pytest.mark.parametrize(
    ("baseline", "text"),
    [
        (
            torch.zeros(3, 15, 10),
            r"baseline has the shape \(3, 15, 10\); expected .* \(3, 15, 11\), .*\(4, 3, 15, 11\)",
        ),
        (torch.zeros(2, 3, 15, 11), r"baseline has the shape \(2, 3, 15, 11\)"),
        ("blurr", "baseline='blurr' is unknown. Did you mean 'blur'"),
        ("black", "baseline='black' is unknown. Give 'zero', 'mean', 'blur', a number"),
    ],
)
def test_baselines_that_do_not_fit(method, baseline, text):
    model, x, cells, _ = prepared("conv")
    with pytest.raises(ValueError, match=text):
        method(model, x, cells=cells, baseline=baseline)


def test_columns_have_no_neighbours():
    with pytest.raises(ValueError, match="baseline='blur' needs neighbours"):
        occlusion(mlp(), torch.randn(3, 6), baseline="blur")


# ------------------------------------------------------------ token ids


@pytest.mark.parametrize("name", ["words", "words of an lstm", "bert"])
def test_a_neutral_token_stands_for_those_that_are_away(name):
    model, inputs, *_ = prepared(name)
    ids = explained(inputs)
    for baseline in (3, torch.full((7,), 3), torch.full_like(ids, 3)):
        found = occlusion(model, inputs, TARGETS, baseline=baseline)
        for row, target in enumerate(TARGETS):
            game = Game(name, row, int(target), torch.full((7,), 3))
            everyone = range(7)
            expected = [game(everyone) - game(p for p in everyone if p != lost) for lost in everyone]
            assert_close(found[row], torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_padding_that_the_mask_hides_counts_nothing():
    model, inputs, *_ = prepared("bert")
    for method in (occlusion, kernel_shap):
        found = method(model, inputs, 1)
        assert found[1, 5:].abs().max() < 1e-6 < found[1, :5].abs().min()


@pytest.mark.parametrize("name", ["gpt2", "t5", "bart", "llama"])
def test_language_models(name):
    model, inputs = transformer(name, "sdpa")
    score = lambda output: output.last_hidden_state[:, -1].sum(-1)  # noqa: E731
    found = occlusion(model, inputs, score)
    assert found.shape == (3, 7)
    assert found[0].all()


@pytest.mark.parametrize("baseline", ["mean", "blur", 0.5, torch.zeros(7)])
def test_what_token_ids_cannot_be_replaced_by(baseline):
    model, ids, *_ = prepared("words")
    with pytest.raises(ValueError, match=r"nothing that token ids \(4, 7\) can be replaced by"):
        occlusion(model, ids, baseline=baseline)


def test_ids_that_are_changed_before_the_embedding():
    class Shifted(Text):
        def forward(self, x):
            return super().forward(x + 1)

    ids = torch.randint(0, 9, (2, 4))
    with pytest.raises(TypeError, match=r"\(2, 4\) go into no nn.Embedding as they are.*baseline= the id"):
        occlusion(Shifted(), ids)
    assert occlusion(Shifted(), ids, baseline=0).any()


def test_no_hook_stays():
    model, ids, *_ = prepared("words")
    occlusion(model, ids)
    with pytest.raises(IndexError):
        occlusion(model, ids, 99)
    assert not any(module._forward_hooks for module in model.modules())


# ------------------------------------------------------------ which input


def test_of_names_the_input():
    torch.manual_seed(0)
    model, image, numbers = Two().eval(), torch.randn(4, 3, 12, 12), torch.randn(4, 5)

    def by_name(inputs):
        return model(inputs["image"], inputs["numbers"])

    mapping = {"image": image, "numbers": numbers}
    for method in METHODS.values():
        first = method(model, (image, numbers), 1, cells=2)
        exactly(method(model, (image, numbers), 1, of=0, cells=2), first)
        exactly(method(model, mapping, 1, of="image", cells=2), first)
        second = method(model, (image, numbers), 1, of=1)
        assert second.shape == (4, 5)
        exactly(method(model, mapping, 1, of="numbers", forward=by_name), second)
        # one sample at a time, the image a constant
        alone = [
            method(model, n[None], 1, forward=lambda n, i=i: model(i.expand(len(n), -1, -1, -1), n))
            for i, n in zip(image, numbers, strict=True)
        ]
        assert_close(second, torch.cat(alone), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("of", "error", "text"),
    [
        ("imag", ValueError, r"of='imag' is none of the inputs. Did you mean 'image'\? There are 'image', 'flags'"),
        (1, ValueError, "of=1 is none of the inputs. There are 'image', 'flags'"),
        ("flags", TypeError, r"of='flags' is bool \(4, 2, 2\); expected a floating-point tensor, or token ids"),
    ],
)
def test_inputs_that_are_not_there(of, error, text):
    inputs = {"image": torch.randn(4, 3, 15, 11), "flags": torch.zeros(4, 2, 2, dtype=torch.bool)}
    with pytest.raises(error, match=text):
        occlusion(Plain(), inputs, of=of, forward=lambda inputs: None)


def test_nothing_to_mask():
    with pytest.raises(TypeError, match=r"\(uint8 \(2, 3, 9, 9\)\) hold neither .*images.float\(\)"):
        occlusion(Plain(), torch.zeros(2, 3, 9, 9, dtype=torch.uint8))


# ------------------------------------------------------------ classes


def test_the_classes_are_those_of_the_samples_as_they_are():
    model, x = mlp(), 3 * torch.randn(30, 6)
    predicted = output_of(model.eval(), x).argmax(1)
    alone = output_of(model, x * (torch.arange(6) != 0)).argmax(1)
    assert (predicted != alone).any()
    for method in METHODS.values():
        exactly(method(model, x), method(model, x, predicted))


@every_method
def test_several_targets_take_no_more_forwards(method):
    model, x, cells, _ = prepared("conv")
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    found = [method(model, x, target, cells=cells) for target in (0, 3)]
    alone = len(calls)
    both = method(model, x, torch.tensor([[0, 3]] * 4), cells=cells)
    assert both.shape == (4, 2, 3, 15, 11)
    assert len(calls) - alone == alone // 2
    exactly(both, torch.stack(found, 1))


@every_method
def test_a_callable_target(method):
    model, x, cells, _ = prepared("conv")
    found = method(model, x, lambda output: output[:, 0] - 2 * output[:, 1], cells=cells)
    assert_close(found, method(model, x, 0, cells=cells) - 2 * method(model, x, 1, cells=cells), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "error", "text"),
    [
        (9, IndexError, "target 9 of sample 0 is out of range"),
        (torch.tensor([1, 2]), ValueError, r"shape \(2,\)"),
        ("label", ValueError, "targets='label' is unknown"),
        (lambda output: output[:2, 0], ValueError, "2 scores for 3 samples"),
    ],
)
def test_targets_that_do_not_fit(targets, error, text):
    model, x, cells, _ = prepared("conv")
    with pytest.raises(error, match=text):
        occlusion(model, x, targets, cells=cells, batch_size=3)


# ------------------------------------------------------------ what is around it


@every_method
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ["conv", "lstm", "words", "writes into its input", "writes into its signal"])
def test_the_modes_around_it_do_not_matter(name, around, method):
    model, inputs, cells, _ = prepared(name)
    expected = method(model, inputs, 1, cells=cells)
    with around():
        exactly(method(model, inputs.clone(), 1, cells=cells), expected)
        if inputs.is_floating_point():
            exactly(method(model, inputs.clone(), 1, cells=cells, baseline=torch.zeros_like(inputs)), expected)
    assert not expected.requires_grad


def test_a_background_made_under_inference_mode():
    model, x = mlp(), torch.randn(4, 6)
    expected = feature_importance(model, x, 1, background=x[:3])
    with torch.inference_mode():
        exactly(feature_importance(model, x.clone(), 1, background=x[:3].clone()), expected)
        feature_importance(model, x.clone(), 1, background=3)


@every_method
@pytest.mark.parametrize("name", ["conv", "words"])
def test_the_defaults_of_the_process_change_nothing(other_defaults, name, method):
    model, inputs, cells, _ = prepared(name)
    baselines = [None, "mean", "blur", 0.5] if name == "conv" else [None, 3]
    expected = [method(model, inputs, 1, cells=cells, baseline=baseline) for baseline in baselines]
    with other_defaults():
        exactly([method(model, inputs, 1, cells=cells, baseline=baseline) for baseline in baselines], expected)


@every_method
@pytest.mark.parametrize("name", ["residual", "words"])
def test_nothing_is_left_behind(name, method):
    model, inputs, cells, _ = prepared(name)
    model.train()
    before, stream = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    method(model, inputs, 1, cells=cells)
    exactly(dict(model.state_dict()), dict(before))
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream)


@every_method
def test_bfloat16(method):
    model, x = mlp(smooth=True), torch.randn(5, 6)
    expected = method(model, x, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = method(model, x, 1)
    half = method(copy.deepcopy(model).bfloat16(), x.bfloat16(), 1, baseline="mean")
    assert found.dtype == half.dtype == torch.float32
    assert_close(found, expected, rtol=0.1, atol=0.02)
    assert_close(half, method(model, x, 1, baseline="mean"), rtol=0.1, atol=0.03)


def test_scores_in_bfloat16_are_averaged_in_more_digits():
    model, x, background = mlp().bfloat16(), torch.randn(2, 6).bfloat16(), torch.randn(50, 6).bfloat16()
    with masking(model, x, 1, background=background) as masked:
        found = masked.scores(torch.zeros(1, 6))
    exactly(found, output_of(model, background)[:, 1].double().mean().expand(1, 2))


def test_a_compiled_model():
    for name in ("conv", "words"):
        model, inputs, cells, _ = prepared(name)
        expected = kernel_shap(model, inputs, 1, cells=cells)
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager")
        compiled(inputs)
        exactly(kernel_shap(compiled, inputs, 1, cells=cells), expected)
    torch._dynamo.reset()


@every_method
def test_a_score_that_is_no_number_says_so(method):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0, torch.nan, 1.0) * x

    found = method(Broken(), torch.tensor([[1.0, 2, 3, 4, 5, 6], [-1.0, 2, 3, 4, 5, 6]]), 1)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


def test_forward_is_used_in_place_of_the_call():
    model, x, cells, _ = prepared("conv")
    found = occlusion(model, x, 1, cells=cells, forward=lambda x: -4 * model(x))
    assert_close(found, -4 * occlusion(model, x, 1, cells=cells))
