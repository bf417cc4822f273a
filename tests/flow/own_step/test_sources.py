import torch
import torch.nn.functional as F
from torch import nn

from lightning_xai.flow.own_step.sources import Origin, Sources
from lightning_xai.flow.own_step.watch import watch
from tests.support.in_a_run import in_a_run
from tests.support.odd_projects import Plain
from tests.support.projects import Project, image, label


def origins(make):
    """The origins of what is made of two tensors of a batch and a net with 12 + 4 parameters and a buffer."""
    torch.manual_seed(0)
    net = nn.Linear(3, 4)
    net.register_buffer("mean", torch.ones(4))
    x, y = torch.rand(5, 3), torch.arange(5)
    sources = Sources({"x": x, "y": y}, net)
    with sources:
        made = make(net, x, y)
    return [sources.origin(tensor) for tensor in made], sources, (x, y)


def test_what_a_tensor_is_made_of():
    found, _, _ = origins(lambda net, x, y: [net(x), x / 255, y.float()[:, None] * x, net(x) - net.mean, y])
    assert found == [
        Origin(("x",), 16, False),
        Origin(("x",), 0, False),
        Origin(("x", "y"), 0, False),
        Origin(("x",), 16, True),
        Origin(("y",), 0, False),
    ]


def test_what_takes_no_values_is_made_of_nothing():
    found, _, _ = origins(
        lambda net, x, y: [torch.zeros_like(net(x)), x.new_ones(2), torch.arange(5).type_as(x), torch.randn_like(x)]
    )
    assert found == [Origin((), 0, False)] * 4


def test_what_is_written_into_is_made_of_what_is_written():
    def make(net, x, y):
        into, filled = torch.zeros(5), torch.zeros(5, 4)
        into[:3] = y[:3].float()
        filled.copy_(net(x))
        return [into, filled]

    assert origins(make)[0] == [Origin(("y",), 0, False), Origin(("x",), 16, False)]


def test_a_net_that_is_no_part_of_the_model_has_parameters():
    hidden = nn.Linear(3, 2)
    assert origins(lambda net, x, y: [hidden(x)])[0] == [Origin(("x",), 8, False)]


def test_what_is_used_is_known():
    _, sources, (x, y) = origins(lambda net, x, y: [net(x)])
    assert sources.uses(x)
    assert not sources.uses(y)


class Outside(nn.Module):
    """Leaves torch on its way."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 4)

    def forward(self, x):
        return torch.from_numpy(self.linear(x.flatten(1)).detach().numpy().copy())


def test_a_module_that_leaves_torch_is_made_of_all_that_it_takes():
    class Numpy(Plain):
        def setup_parts(self):
            self.net = Outside()

        def validation_step(self, batch, batch_idx):
            F.cross_entropy(self.net(batch[0]), batch[1])

    project = Project(Numpy, lambda i: (image(i), label(i)), None, "", "")

    def look(shadow, context):
        watched = watch(shadow, project.batch(), "validation_step", lambda w: bool(w.judged), follow=True)
        return watched.sources.origin(watched.judged[0].values)

    assert in_a_run(Numpy(), project.loader(), look) == Origin(("batch[0]",), 3 * 16 * 16 * 4 + 4, False)
