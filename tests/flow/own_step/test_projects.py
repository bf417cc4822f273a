import pytest
import pytorch_lightning as pl
import torch

from lightning_xai.flow.own_step.learn import learn
from lightning_xai.functional.guard import inspecting
from tests.support.in_a_run import in_a_run
from tests.support.projects import PROJECTS


def explained(own, shadow, batch, context, target="label"):
    """The score of each sample that a reading would explain."""
    with inspecting(shadow):
        samples = own.samples(shadow, batch, context)
        with torch.enable_grad():
            output = own.output(shadow, samples.inputs, context)
        table = own.table(output, samples.inputs)
        classes = own.classes(output, samples.inputs, samples.labels, target)
        if classes is None:
            return table
        both = torch.cat([-table, table], 1) if table.shape[1] == 1 else table
        return both.gather(1, classes[:, None])[:, 0]


@pytest.mark.parametrize("kind", PROJECTS)
def test_the_score_is_the_one_written_by_hand(kind):
    project = PROJECTS[kind]
    pl.seed_everything(0, verbose=False)
    module, batch = project.module(), project.batch()

    def look(shadow, context):
        own = learn(shadow, batch, context=context)
        return own, explained(own, shadow, batch, context).detach()

    own, score = in_a_run(module, project.loader(), look)
    assert own.unknown == ""
    assert own.task.name == project.task
    assert not own.task.guessed
    with torch.no_grad():
        torch.testing.assert_close(score, project.score(module.eval(), batch))
    assert own.seen.startswith(project.seen)
