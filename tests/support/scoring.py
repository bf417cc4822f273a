"""What a reading would explain of a batch, in a real Trainer."""

import pytorch_lightning as pl
import torch

from lightning_xai.flow.own_step.learn import learn
from lightning_xai.functional.passes.guard import inspecting
from tests.support.in_a_run import in_a_run


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


def learned(module, loader, batch, *, target="label", **settings):
    """What is learned of a module's step, and the scores of a batch; None where there are none."""

    def look(shadow, context):
        own = learn(shadow, batch, context=context, **settings)
        return own, None if own.unknown else explained(own, shadow, batch, context, target).detach()

    return in_a_run(module, loader, look)


def seeded(module):
    pl.seed_everything(0, verbose=False)
    return module().eval()
