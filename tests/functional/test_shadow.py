"""A shadow answers as its model does, and what runs on it leaves the model as it was."""

import pytest
import torch

from lightning_xai.functional.shadow import shadow
from tests.support.photograph import changes, photograph

from .holdings import HOLDING
from .traps import CHANGING

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
MODELS = {**CHANGING, **HOLDING}


def warmed(make):
    """A model in training after its first step."""
    torch.manual_seed(0)
    model = make()
    model(X)
    return model


def outputs(model, times=3):
    """Of a few forwards in a row."""
    torch.manual_seed(1)
    with torch.no_grad():
        return [model(X) for _ in range(times)]


@pytest.mark.filterwarnings("ignore:.*(prototype|beta state|deprecated)")  # odd tensors' own
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_it_answers_as_its_model_and_leaves_it_alone(make):
    model = warmed(make)
    before = photograph(model)
    copy = shadow(model)
    assert changes(before, photograph(model)) == []
    answers = outputs(copy)
    assert changes(before, photograph(model)) == []

    for module in model.modules():
        module.__dict__["training"] = False
    before = photograph(model)
    expected = outputs(model)
    assert [torch.equal(a, b) for a, b in zip(answers, expected, strict=True)] == [True] * 3
    assert changes(before, photograph(model)) != []  # the trap is one
