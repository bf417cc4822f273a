import pytest
import torch

from lightning_xai.flow.own_step.learn import learn
from tests.support.in_a_run import in_a_run
from tests.support.projects import PROJECTS
from tests.support.scoring import learned, seeded

PLACES = {
    "dict batch": (("image",), ("label",)),
    "no forward": (("pixels",), ("y",)),
    "segmentation": (("image",), ("mask",)),
    "two views": ((0, 0), (0, 1)),
    "four items": ((0,), (3,)),
    "forecasting": (("past",), ("future",)),
    "token classification": (("input_ids",), ("tags",)),
    "language model": ((), ()),
    "detection": ((0, 0), None),
}
"""Where in the batch inputs and labels come from."""


@pytest.mark.parametrize("kind", PROJECTS)
def test_the_score_is_the_one_written_by_hand(kind):
    project = PROJECTS[kind]
    module, batch = seeded(project.module), project.batch()
    own, score = learned(module, project.loader(), batch)
    assert own.unknown == ""
    assert own.task.name == project.task
    assert not own.task.guessed
    with torch.no_grad():
        torch.testing.assert_close(score, project.score(module, batch))
    assert own.seen.startswith(project.seen)
    assert (own.fed, own.labelled) == PLACES.get(kind, ((0,), (1,)))


def test_lists_of_samples_are_explained_as_one_tensor():
    project = PROJECTS["detection"]
    batch = project.batch()

    def look(shadow, context):
        return learn(shadow, batch, context=context).samples(shadow, batch, context).inputs

    inputs = in_a_run(seeded(project.module), project.loader(), look)
    torch.testing.assert_close(inputs, torch.stack(batch[0]))
    images, targets = batch
    odd = ((torch.rand(3, 8, 8), *images[1:]), targets)
    with pytest.raises(ValueError, match=r"different shapes, \(3, 8, 8\) and \(3, 16, 16\).*probe="):
        in_a_run(seeded(project.module), project.loader(), lambda s, c: learn(s, odd, context=c).samples(s, odd, c))
