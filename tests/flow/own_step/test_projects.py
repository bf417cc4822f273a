import pytest
import torch

from tests.flow.own_step.scoring import learned, seeded
from tests.support.projects import PROJECTS


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
