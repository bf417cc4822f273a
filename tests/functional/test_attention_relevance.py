from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_xai.functional import attention_relevance
from lightning_xai.functional.attention import fused
from tests.support.attention_nets import Additive, Stack, Windows, transformer


def positive(score: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """A' of each layer: the mean over heads of (gradient * A)+."""
    gradients = torch.autograd.grad(score, weights)
    return [(g * a).clamp(min=0).mean(1).detach() for g, a in zip(gradients, weights, strict=True)]


def chained(layers: list[Tensor]) -> Tensor:
    relevance = torch.eye(layers[0].shape[-1]).expand(len(layers[0]), -1, -1)
    for layer in layers:
        relevance = relevance + layer @ relevance
    return relevance


def normalised(relevance: Tensor) -> Tensor:
    identity = torch.eye(relevance.shape[-1])
    added = relevance - identity
    return (added / added.sum(-1, keepdim=True)).nan_to_num(0) + identity


def encoder_and_decoder(encoder: list[Tensor], own: list[Tensor], cross: list[Tensor]) -> Tensor:
    """Rules 6, 10 and 11 of the paper, as its authors' code writes them."""
    source = chained(encoder)
    target = torch.eye(own[0].shape[-1]).expand(len(own[0]), -1, -1)
    between = torch.zeros(len(own[0]), own[0].shape[-1], source.shape[-1])
    for self_attention, cross_attention in zip(own, cross, strict=True):
        between, target = between + self_attention @ between, target + self_attention @ target
        between = between + normalised(target).mT @ cross_attention @ normalised(source)
    return between


@pytest.fixture(params=[None, 60], ids=["whole", "chunks"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setitem(fused._CHUNK, "cpu", request.param)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit", "t5", "bart"])
def test_transformers(name: str, attention: str, chunk: None) -> None:
    eager, inputs = transformer(name, "eager")
    target: Callable[[Any], Tensor] = lambda output: 30 * output.last_hidden_state[:, -1, 3]  # noqa: E731
    output = eager(**inputs, output_attentions=True)
    score = target(output).sum()
    if name in ("t5", "bart"):
        keys = ("encoder_attentions", "decoder_attentions", "cross_attentions")
        layers = positive(score, [weights for key in keys for weights in output[key]])
        expected = encoder_and_decoder(layers[:2], layers[2:4], layers[4:])
    else:
        expected = chained(positive(score, list(output.attentions)))
    model, _ = transformer(name, attention)
    relevance = attention_relevance(model, inputs, target)
    assert (expected - torch.eye(expected.shape[-1])).abs().max() > 1e-3
    torch.testing.assert_close(relevance, expected, rtol=1e-6, atol=1e-6)
    rows = attention_relevance(model, inputs, target, rows=[0, -1])
    torch.testing.assert_close(rows, expected[:, [0, -1]], rtol=1e-6, atol=1e-6)
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("settings", [{}, {"fused": False}, {"causal": True}, {"checkpointed": True}])
def test_plain_stack(settings: dict[str, bool], chunk: None) -> None:
    torch.manual_seed(0)
    net, x = Stack(fused=False, causal=settings.get("causal", False)).eval(), 3 * torch.randn(4, 7, 16)
    score = net(x).gather(1, torch.tensor([[0], [1], [2], [1]])).sum()
    weights: list[Any] = [block.weights for block in net.blocks]
    expected = chained(positive(score, weights))
    ours = Stack(**settings)
    ours.load_state_dict(net.state_dict())
    relevance = attention_relevance(ours, x, torch.tensor([0, 1, 2, 1]))
    torch.testing.assert_close(relevance, expected, rtol=1e-6, atol=1e-6)
    assert relevance.dtype == torch.float32
    with torch.inference_mode():
        again = attention_relevance(ours, x.clone(), torch.tensor([0, 1, 2, 1]), rows=[0])
    torch.testing.assert_close(again, expected[:, :1], rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention_relevance(ours, x, torch.tensor([0, 1, 2, 1]))
    torch.testing.assert_close(rough, expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights: bool, batch_first: bool) -> None:
    """Against the same weights in the plain stack."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.MultiheadAttention(16, 4, batch_first=batch_first) for _ in range(3))
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x if batch_first else x.transpose(0, 1)
            for layer in self.layers:
                x = x + layer(x, x, x, need_weights=need_weights)[0]
            return self.head((x if batch_first else x.transpose(0, 1))[:, 0])

    class Same(Stack):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.head = net.head
            for block, layer in zip(self.blocks, net.layers, strict=True):
                block.qkv.weight, block.qkv.bias, block.out = layer.in_proj_weight, layer.in_proj_bias, layer.out_proj

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block.out(block(x))
            return self.head(x[:, 0])

    torch.manual_seed(0)
    net, x = Net(), 3 * torch.randn(4, 7, 16)
    expected = attention_relevance(Same(net), x, 1)
    torch.testing.assert_close(attention_relevance(net, x, 1), expected, rtol=1e-6, atol=1e-6)


def test_a_transformer_whose_source_and_target_are_as_long() -> None:
    """Cross-attention is told from self-attention by what its keys were made of, not by its shape."""
    torch.manual_seed(0)
    net = nn.Transformer(16, 4, 2, 2, 32, batch_first=True)
    source, target = torch.randn(3, 6, 16), torch.randn(3, 6, 16)
    relevance = attention_relevance(net, (source, target), lambda output: output[:, 0, 3])
    shorter = attention_relevance(net, (source, target[:, :5]), lambda output: output[:, 0, 3])
    assert relevance.shape == (3, 6, 6)
    assert shorter.shape == (3, 5, 6)
    assert (relevance.diagonal(dim1=1, dim2=2) < 1).all()  # no identity: nothing of the source is the target's own


def test_additive_attention() -> None:
    torch.manual_seed(0)
    net, x = Additive(), torch.randint(0, 20, (3, 5))
    states, scores = net.states(x)
    weights = scores.softmax(1).detach().requires_grad_()
    probability = net.head((weights * states.detach()).sum(1)).softmax(-1)[:, 1].sum()
    (gradient,) = torch.autograd.grad(probability, weights)
    expected = (gradient * weights).clamp(min=0).mT
    torch.testing.assert_close(attention_relevance(net, x, 1), expected.detach())


def test_no_weights_outlive_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused._CHUNK, "cpu", 2 * 4 * 128 * 8)
    saved: list[int] = []
    net, x = Stack(), torch.randn(2, 128, 16)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        attention_relevance(net, x, 1, rows=[0])
        assert max(saved) < 2 * 128 * 128
        attention_relevance(Stack(fused=False), x, 1, rows=[0])
        assert max(saved) == 2 * 4 * 128 * 128  # what it would be


def test_errors() -> None:
    net, x = Stack(), torch.randn(3, 7, 16)
    with pytest.raises(ValueError, match="depend on no attention"):
        attention_relevance(nn.Linear(16, 3), torch.randn(3, 16), 1)
    with pytest.raises(ValueError, match="depend on no attention"):
        attention_relevance(net, x, lambda output: output.detach()[:, 0])
    with pytest.raises(ValueError, match=r"shape \(3, 2\); expected one score a sample, \(3,\)"):
        attention_relevance(net, x, torch.zeros(3, 2).long())
    with pytest.raises(IndexError, match="row 7 is out of range"):
        attention_relevance(net, x, 1, rows=[7])

    class Pooled(Stack):
        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)[:, :-1]
            return self.head(x[:, 0])

    with pytest.raises(ValueError, match=r"attention in 'blocks.1' is \(3, 6, 6\).* where \(3, 7, 7\)"):
        attention_relevance(Pooled(), x, 1)


def test_windows_of_one_size_in_all_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"attention in 'Windows' is \(12, 16, 16\).* where \(3, 16, 16\).*windows"):
        attention_relevance(Windows(), torch.randn(3, 8, 8, 8), lambda output: output[:, 0])
