import pytest
import torch
from torch import Tensor, nn

from lightning_xai.functional import attention_maps, attention_rollout, attention_rollout_rows
from tests.support.attention_nets import Stack, Windows, transformer


def by_hand(maps: list[Tensor], fusion: str, discard: float) -> Tensor:
    """Sample by sample and row by row."""
    samples = []
    for sample in range(len(maps[0])):
        rollout = torch.eye(maps[0].shape[-1])
        for layer in maps:
            heads = layer[sample]
            fused = {"mean": heads.mean(0), "max": heads.max(0).values, "min": heads.min(0).values}[fusion].clone()
            for row in fused:
                row[row.argsort()[: int(discard * len(row))]] = 0
            mixed = 0.5 * fused + 0.5 * torch.eye(len(fused))
            rollout = mixed / mixed.sum(-1, keepdim=True) @ rollout
        samples.append(rollout)
    return torch.stack(samples)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard", [0.0, 0.3, 0.9])
def test_rollout(fusion: str, discard: float) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 7, 7).mul(2).softmax(-1) for _ in range(4)]
    rollout = attention_rollout(maps, fusion=fusion, discard=discard)
    torch.testing.assert_close(rollout, by_hand(maps, fusion, discard), rtol=0, atol=1e-6)
    assert torch.equal(
        rollout, attention_rollout({str(i): m for i, m in enumerate(maps)}, fusion=fusion, discard=discard)
    )
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 7))


@pytest.mark.parametrize("fused", [False, True])
def test_rows_agree_with_the_whole(fused: bool) -> None:
    torch.manual_seed(0)
    net, x = Stack(4, fused=fused), torch.randn(3, 7, 16)
    whole = attention_rollout(attention_maps(net, x))
    rows = attention_rollout_rows(net, x, rows=[0, 2, -1])
    torch.testing.assert_close(rows, whole[:, [0, 2, -1]], rtol=0, atol=1e-6)


def test_rows_of_a_padded_batch() -> None:
    """Samples of transformers keep their own rows, whatever the padding."""
    model, inputs = transformer("bert", "sdpa")
    rows = attention_rollout_rows(model, inputs, rows=[0])
    assert (rows[1, 0, 5:] == 0).all()  # padding is seen by no one
    torch.testing.assert_close(rows, attention_rollout(attention_maps(model, inputs))[:, :1], rtol=0, atol=1e-6)


def test_masked_rows_stay_where_they_are() -> None:
    maps = torch.tensor([[0.0, 0.0], [0.5, 0.5]]).view(1, 1, 2, 2)
    assert torch.equal(attention_rollout([maps]), torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]))


def test_errors() -> None:
    square, cross = torch.ones(2, 1, 5, 5) / 5, torch.ones(2, 1, 5, 7) / 7
    with pytest.raises(ValueError, match=r"'b' is \(2, 1, 5, 7\); a rollout needs self-attention"):
        attention_rollout({"a": square, "b": cross})
    with pytest.raises(ValueError, match="no maps"):
        attention_rollout([])
    with pytest.raises(ValueError, match="fusion='median' is unknown"):
        attention_rollout([square], fusion="median")
    with pytest.raises(ValueError, match=r"discard=1.5 is no share"):
        attention_rollout([square], discard=1.5)
    with pytest.raises(IndexError, match="row 7 is out of range: the sequence has 7 tokens"):
        attention_rollout_rows(Stack(), torch.randn(2, 7, 16), rows=[7])
    net = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, batch_first=True), 1)
    with pytest.raises(ValueError, match="Leave out cross-attention"):
        attention_rollout_rows(net, (torch.randn(2, 3, 16), torch.randn(2, 4, 16)), rows=[0])


def test_windows_of_one_layer_roll_out_each() -> None:
    assert attention_rollout(attention_maps(Windows(), torch.randn(2, 8, 8, 8))).shape == (8, 16, 16)
