"""Every callback keeps every promise. A new callback joins by one line."""

from functools import partial

import pytest
import torch

from lightning_xai import TCAV, AttentionMaps, Concept, GradCAM, Saliency
from lightning_xai.testing import PROMISES, SLOW, attention, check_explanation, classification

CONCEPTS = [Concept("noise", torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)))]
CALLBACKS = {
    "GradCAM": (GradCAM, classification),
    "Saliency": (Saliency, classification),
    "AttentionMaps": (AttentionMaps, attention),
    "TCAV": (
        partial(TCAV, concepts=CONCEPTS, layers="features.3", classes=[0, 2], random_sets=3, probe_per_class=4),
        classification,
    ),
}
CHECKS = [
    *(pytest.param(name, promise) for name in CALLBACKS for promise in PROMISES),
    *(pytest.param(name, promise, marks=pytest.mark.slow) for name in CALLBACKS for promise in SLOW),
]


@pytest.mark.parametrize(("name", "promise"), CHECKS)
def test_a_callback_keeps_a_promise(name, promise):
    make, project = CALLBACKS[name]
    check_explanation(make, project(), [promise])


def test_a_promise_that_does_not_exist():
    with pytest.raises(ValueError, match="there is no promise 'flies': the promises are trains_the_same, "):
        check_explanation(GradCAM, promises=["flies"])
