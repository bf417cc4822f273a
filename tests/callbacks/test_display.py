"""What a dataset and the settings tell about the display: used where it fits, and never the end of a run."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from lightning_xai.callbacks.flow.display import describe
from lightning_xai.probe import Probe


def test_the_dataset_tells_class_names_and_normalisation():
    class Normalize:
        mean, std = (0.5, 0.5, 0.5), torch.tensor([0.1, 0.2, 0.3])

    data = TensorDataset(torch.rand(4, 3, 8, 8))
    data.classes = ["ant", "bee"]
    data.transform = SimpleNamespace(transforms=[object(), Normalize()])
    probe = describe(Probe(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])), Subset(Subset(data, [0, 1]), [0]))
    assert list(probe.class_names) == ["ant", "bee"]
    assert probe.mean == [0.5, 0.5, 0.5]
    assert probe.std == pytest.approx([0.1, 0.2, 0.3])
    unknown = Probe(torch.rand(2, 3), torch.tensor([0, 5]))
    assert describe(unknown, data).class_names is None
    assert describe(unknown, None).class_names is None
