"""Parts of TorchScript in a LightningModule: the plain layers are read, the others refused before the first step."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai import TCAV, AttentionMaps, Concept, GradCAM
from lightning_xai.store import load_run
from tests.support.classifier import Classifier, classifier
from tests.support.data import loader
from tests.support.training import NoPictures, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class ScriptedLoss(Classifier):
    """Beside what it explains, in no forward."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.criterion = torch.jit.script(nn.CrossEntropyLoss())

    def loss(self, batch):
        return self.criterion(self(batch[0]), batch[1])


def scripted(part: str) -> Classifier:
    model = classifier(dropout=0.0)
    setattr(model, part, torch.jit.script(getattr(model, part)))
    return model


def maps(folder, model, **settings):
    """Those of every reading of a run."""
    fitted = trainer(folder, GradCAM(on_error="raise", **settings), logger=NoPictures())
    fitted.fit(model, loader(), loader(8, seed=1))
    assert all(parameter.requires_grad for parameter in model.parameters())
    return [reading.measured.rows["maps/auto"] for reading in load_run(folder).readings["grad_cam"]]


def test_a_scripted_loss(tmp_path):
    plain, model = classifier(dropout=0.0), ScriptedLoss(dropout=0.0)
    model.load_state_dict(plain.state_dict())
    found = maps(tmp_path / "scripted", model)
    assert len(found) == 2 and all(reading.any() for reading in found)
    assert_close(found, maps(tmp_path / "plain", plain))


def test_a_scripted_head(tmp_path):
    found = maps(tmp_path / "scripted", scripted("head"))
    assert_close(found, maps(tmp_path / "plain", classifier(dropout=0.0)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "callback",
    [
        lambda: GradCAM(layers="backbone.3"),
        lambda: GradCAM(layers="backbone*"),
        lambda: AttentionMaps(layers="backbone"),
        lambda: AttentionMaps(extract={"backbone": lambda *call: call[-1]}),
        lambda: TCAV(concepts=[Concept("any", torch.randn(4, 3, 16, 16))], layers="backbone.1", classes=[0]),
    ],
)
def test_a_layer_of_torchscript_is_refused_before_the_first_step(tmp_path, callback):
    fitted = trainer(tmp_path, callback(), logger=False)
    with pytest.raises(ValueError, match=r"'backbone.*' is TorchScript .* such as 'head', or give the plain module"):
        fitted.fit(scripted("backbone"), loader(), loader(8, seed=1))
    assert fitted.global_step == 0
