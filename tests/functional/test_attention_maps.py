import copy
import warnings
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_xai.functional import (
    attention_distance,
    attention_entropy,
    attention_maps,
    attention_share,
    unused_softmaxes,
)
from lightning_xai.functional.attention import fused
from tests.support.attention_nets import WEIGHINGS, Additive, SelfAttention, Stack, Windows, transformer
from tests.support.hooks import hooks_of
from tests.support.textbook_attention import recorded, textbook


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tokens(length: int = 7) -> Tensor:
    return torch.randn(3, length, 16)


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert list(found) == list(expected)
    for name, maps in found.items():
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps, expected[name], rtol=0, atol=tolerance)


def rows_sum_to_one(maps: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    for weights in maps.values():
        sums = weights.sum(-1)
        assert ((sums - 1).abs().lt(tolerance) | sums.eq(0)).all()


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": torch.arange(7) >= torch.tensor([[7], [5], [3]])},
    "causal": {"attn_mask": torch.ones(7, 7).triu(1).bool(), "is_causal": True},
    "float": {"attn_mask": torch.linspace(-1, 1, 49).view(7, 7)},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention(mask: str, need_weights: bool, batch_first: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, dropout=0.5, batch_first=batch_first)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=need_weights, **MASKS[mask])[0]

    x = tokens() if batch_first else tokens().transpose(0, 1)
    maps = attention_maps(Net(), x)
    torch.manual_seed(0)
    net = Net().eval()
    close(attention_maps(net, x), recorded(net, x))
    assert maps["attention"].shape == (3, 4, 7, 7)
    rows_sum_to_one(maps)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "causal"])
def test_transformer_encoder(mask: str, norm_first: bool, train: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, given = tokens(), {"none": {}, "padding": {"src_key_padding_mask": MASKS["padding"]["key_padding_mask"]}}
    settings = given.get(mask) or ({} if mask == "none" else {"mask": MASKS["causal"]["attn_mask"]})
    expected = recorded(net, x, **settings)
    net.train(train)
    close(attention_maps(net, x, forward=lambda x: net(x, **settings)), expected)
    assert net.training is train


def test_transformer_decoder_with_cross_attention() -> None:
    net = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 32, batch_first=True), 2).eval()
    x, memory = tokens(5), tokens(7)
    maps = attention_maps(net, (x, memory))
    close(maps, recorded(net, x, memory))
    assert maps["layers.0.self_attn"].shape == (3, 4, 5, 5)
    assert maps["layers.0.multihead_attn"].shape == (3, 4, 5, 7)


def test_windows_count_as_samples() -> None:
    net, x = Windows(), torch.randn(3, 8, 8, 8)
    q, k, _ = net.heads(x)
    close(attention_maps(net, x), {"Windows": textbook(q, k, net.bias).detach()})


@pytest.mark.parametrize("weighing", WEIGHINGS)
def test_additive_attention(weighing: str) -> None:
    net, x = Additive(weighing).eval(), torch.randint(0, 20, (3, 5))
    expected = net.states(x)[1].softmax(1).detach().transpose(1, 2)[:, None]
    close(attention_maps(net, x), {"Additive": expected})
    assert unused_softmaxes(net, x) == [("Additive", (3, 3))]  # the class probabilities


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit", "t5", "bart"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
def test_transformers(name: str, attention: str) -> None:
    if attention == "flex_attention" and name in ("gpt2", "t5"):
        pytest.skip("transformers has no working flex attention for it")
    eager, inputs = transformer(name, "eager")
    with torch.no_grad():
        output = eager(**inputs, output_attentions=True)
    keys = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
    expected = [weights for key in keys for weights in (output.get(key) or ())]
    model, _ = transformer(name, attention)
    maps = attention_maps(model, inputs)
    assert len(maps) == len(expected) == (6 if name in ("t5", "bart") else 2)
    found = list(maps.values())
    if len(maps) == 6:  # the decoder's alternate
        found = [*found[:2], found[2], found[4], found[3], found[5]]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    rows_sum_to_one(maps)


@pytest.mark.parametrize("kind", ["bool", "float", "causal", "scale", "gqa", "nothing to see", "one query"])
def test_fused_arguments(kind: str) -> None:
    q, k, v = torch.randn(3, 4, 6, 8), torch.randn(3, 4, 9, 8), torch.randn(3, 4, 9, 5)
    keep = torch.rand(3, 1, 6, 9) > 0.4
    settings: dict[str, Any] = {}
    mask, scale = None, None
    if kind == "bool":
        settings, mask = {"attn_mask": keep}, keep
    elif kind == "float":
        mask = torch.randn(6, 9)
        settings = {"attn_mask": mask}
    elif kind == "causal":
        settings, mask = {"is_causal": True}, torch.ones(6, 9).tril().bool()
    elif kind == "scale":
        settings, scale = {"scale": 0.7}, 0.7
    elif kind == "gqa":
        k, v, settings = k[:, :2], v[:, :2], {"enable_gqa": True}
    elif kind == "nothing to see":
        keep = keep.clone()
        keep[:, :, 2] = False
        settings, mask = {"attn_mask": keep}, keep
    elif kind == "one query":
        q, keep = q[:, :, :1], keep[:, :, :1]
        settings, mask = {"attn_mask": keep}, keep

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, **settings)

    expected = textbook(q, k if kind != "gqa" else k.repeat_interleave(2, 1), mask, scale)
    maps = attention_maps(Net(), tokens())
    close(maps, {"Net": expected})
    if kind == "nothing to see":
        assert (maps["Net"][:, :, 2] == 0).all()
    rows = [0, -1]
    close(attention_maps(Net(), tokens(), queries=rows), {"Net": expected[:, :, rows]})


@pytest.mark.parametrize("fused_kernel", [False, True])
def test_queries_and_head_means(fused_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Stack(fused=fused_kernel, causal=True), tokens()
    whole = attention_maps(net, x)
    some = attention_maps(net, x, queries=[0, 3, -1])
    close(some, {name: maps[:, :, [0, 3, -1]] for name, maps in whole.items()})
    monkeypatch.setitem(fused._CHUNK, "cpu", 3 * 4 * 7 * 2)  # two queries
    close(attention_maps(net, x, heads="mean"), {name: maps.mean(1, keepdim=True) for name, maps in whole.items()})
    with pytest.raises(IndexError, match=r"query 7 is out of range: 'blocks.0' has 7 queries"):
        attention_maps(net, x, queries=[7])


def test_before_dropout_and_as_in_eval() -> None:
    net, x = Stack(fused=False).train(), tokens()
    maps = attention_maps(net, x)
    net.eval()(x)
    close(maps, {f"blocks.{i}": block.weights.detach() for i, block in enumerate(net.blocks)})


@pytest.mark.parametrize("how", ["autocast", "checkpoint", "inference", "compiled", "deep copy"])
@pytest.mark.parametrize("fused_kernel", [False, True])
def test_circumstances(how: str, fused_kernel: bool) -> None:
    net, x = Stack(fused=fused_kernel), tokens()
    expected = attention_maps(net, x)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            maps = attention_maps(net, x)
        close(maps, expected, 0.02)
        rows_sum_to_one(maps, 0.01)
    elif how == "checkpoint":
        net.checkpointed = True
        close(attention_maps(net, x), expected)
    elif how == "inference":
        with torch.inference_mode():
            close(attention_maps(net, x.clone()), expected)
    elif how == "compiled":
        compiled = torch.compile(net, backend="eager")
        compiled(x)
        close(attention_maps(compiled, x), expected)
    else:
        close(attention_maps(copy.deepcopy(net), x), expected)


def test_the_output_is_what_it_was_and_nothing_stays_behind() -> None:
    for net, x in (
        (Stack(fused=True), tokens()),
        (Stack(fused=False), tokens()),
        (Additive(), torch.arange(6).view(2, 3)),
    ):
        net.eval()
        with torch.no_grad():
            expected = net(x)
        outputs: list[Tensor] = []
        attention_maps(net, x, forward=partial(seen, net, outputs))
        assert torch.equal(outputs[0], expected)
        assert hooks_of(net) == {}
        with pytest.raises(RuntimeError, match="boom"):
            attention_maps(net, x, forward=partial(breaks, net))
        assert hooks_of(net) == {}


def seen(net: nn.Module, outputs: list[Tensor], x: Tensor) -> None:
    outputs.append(net(x))


def breaks(net: nn.Module, x: Tensor) -> None:
    net(x)
    raise RuntimeError("boom")


def test_a_second_call_has_a_number() -> None:
    maps = attention_maps(Stack(2, again=True), tokens())
    assert list(maps) == ["blocks.0", "blocks.1", "blocks.0#1"]
    assert not torch.equal(maps["blocks.0"], maps["blocks.0#1"])


def test_layers() -> None:
    net, x = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, batch_first=True), 3), tokens()
    every = attention_maps(net, x)
    assert list(attention_maps(net, x, layers="layers.1.self_attn")) == ["layers.1.self_attn"]
    assert list(attention_maps(net, x, layers=net.layers[2])) == ["layers.2.self_attn"]  # what runs inside of it
    close(attention_maps(net, x, layers=["layers.0.*", "layers.2"]), {k: v for k, v in every.items() if "1" not in k})
    with pytest.raises(ValueError, match=r"no layer 'layers.1.self_atn'. Did you mean 'layers.1.self_attn'"):
        attention_maps(net, x, layers="layers.1.self_atn")
    with pytest.raises(
        ValueError, match=r"no attention runs in the chosen layers.* Attention was seen in: layers.0.self"
    ):
        attention_maps(net, x, layers="layers.0.linear1")


class Custom(nn.Module):
    """An attention that no one can see from outside: exp and a division."""

    def forward(self, x: Tensor) -> Tensor:
        weights = (x @ x.mT).exp()
        return (weights / weights.sum(-1, keepdim=True)) @ x


class BandAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Custom()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).mean(1).softmax(-1)


def test_none_found_and_extract() -> None:
    net, x = nn.Sequential(BandAttention()), tokens() / 4
    with pytest.raises(ValueError) as error:
        attention_maps(net, x)
    for part in ("found no attention", "0 (BandAttention)", "extract=", "0 (3, 16)"):
        assert part in str(error.value)
    extracted = attention_maps(
        net, x, extract={"0.inner": lambda module, args, kwargs, output: (args[0] @ args[0].mT).softmax(-1)}
    )
    close(extracted, {"0.inner": (x @ x.mT).softmax(-1)[:, None]})
    with pytest.raises(ValueError, match=r"no layer '0.iner'. Did you mean '0.inner'"):
        attention_maps(net, x, extract={"0.iner": lambda *_: x})


def test_extract_takes_the_place_of_what_is_seen() -> None:
    net, x = Stack(2), tokens()
    mine = torch.full((3, 1, 7, 7), 1 / 7)
    assert torch.equal(attention_maps(net, x, extract={"blocks.0": lambda *_: mine})["blocks.0"], mine)


def test_gates_are_no_attention() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.attention = nn.Linear(16, 16), SelfAttention()

        def forward(self, x: Tensor) -> Tensor:
            x = self.gate(x).softmax(-1) * x  # weighs, and sums nothing
            return self.attention(x).mean(1).softmax(-1)

    assert list(attention_maps(Gated(), tokens())) == ["attention"]
    assert unused_softmaxes(Gated(), tokens()) == [("Gated", (3, 7, 16)), ("Gated", (3, 16))]


def test_scalars() -> None:
    uniform, sharp = torch.full((2, 3, 9, 9), 1 / 9), torch.eye(9).expand(2, 3, 9, 9)
    assert attention_entropy(uniform) == pytest.approx(1)
    assert attention_entropy(sharp) == 0
    assert attention_entropy(torch.cat([uniform, torch.zeros_like(uniform)])) == pytest.approx(1)  # masked rows
    assert attention_distance(sharp, (3, 3)) == 0
    far = torch.zeros(1, 1, 10, 10)
    far[..., 1 + torch.arange(9), 9 - torch.arange(9)] = 1  # the class token goes before; cells look at their opposites
    opposite = [((8 - 2 * i) // 3, (8 - 2 * i) % 3) for i in range(9)]
    places = [(i // 3, i % 3) for i in range(9)]
    expected = sum(((r - 2 + r) ** 2 + (c - 2 + c) ** 2) ** 0.5 for r, c in places) / 9 / 8**0.5
    assert len(opposite) == 9
    assert attention_distance(far, (3, 3)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="fewer tokens than the 16 cells of a 4 x 4 grid"):
        attention_distance(uniform, (4, 4))
    assert attention_share(uniform, torch.arange(9) < 3) == pytest.approx(1 / 3)
    assert attention_share(sharp, torch.arange(9)[None] < torch.tensor([[3], [0]])) == pytest.approx(1 / 6)


def test_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_maps(Stack(), tokens())


def test_a_sum_along_another_dimension_is_no_attention() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(1) @ torch.ones(16, 4)  # sums to one over dim 1, and is summed over dim 2

    with pytest.raises(ValueError, match=r"weigh no values: Mixed \(3, 7, 16\)"):
        attention_maps(Mixed(), tokens())
