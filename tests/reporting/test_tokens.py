"""Which tokens there are, and which of them say nothing."""

import pytest
import torch

from lightning_xai import Probe
from lightning_xai.reporting.tokens import is_special, unpadded_tokens


@pytest.mark.parametrize("token", ["[CLS]", "<s>", "</s>", "<pad>", "<|endoftext|>", "[sep]"])
def test_special_tokens(token):
    assert is_special(token)
    assert not any(map(is_special, ["cls", "[", "<", "[UNK]", "good", "s>"]))


def test_tokens_are_placed_by_position_or_by_what_is_real():
    real = torch.tensor([[False, True, True]])
    ids = torch.ones(1, 3, dtype=torch.long)
    for tokens in (["[PAD]", "a", "b"], ["a", "b"]):
        assert unpadded_tokens(Probe(ids, tokens=[tokens]), real) == [([1, 2], ["a", "b"])]
