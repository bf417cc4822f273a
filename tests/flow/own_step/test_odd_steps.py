import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_xai.flow.own_step.learn import learn
from tests.support import odd_projects as odd
from tests.support.in_a_run import in_a_run
from tests.support.projects import CLASSES, LENGTH, PROJECTS, WORDS, Module, Project, ids, image, label
from tests.support.scoring import learned, seeded

PLAIN = Project(odd.Plain, lambda i: (image(i), label(i)), None, "", "")
VIEWS = PROJECTS["two views"]
SHARES = Project(odd.Plain, lambda i: (image(i), torch.eye(CLASSES)[label(i)] * 0.6 + 0.1), None, "", "")


def look(module, project=PLAIN, samples=6, **settings):
    module, batch = seeded(module), project.batch(samples)
    own, score = learned(module, project.loader(), batch, **settings)
    return module, batch, own, score


def partners(module, batch):
    return F.cosine_similarity(module(batch[0][0]), module(batch[0][1])).detach()


@pytest.mark.parametrize("samples", [CLASSES, 6])
@pytest.mark.parametrize(("kind", "scale"), [(odd.InfoNCE, 10), (odd.Masked, 10), (odd.NTXent, 1), (odd.Queue, 1)])
def test_a_contrast_is_an_embedding_and_its_score_the_similarity_to_the_partner(kind, scale, samples):
    module, batch, own, score = look(kind, VIEWS, samples)
    assert own.task.name == "embedding"
    torch.testing.assert_close(score, scale * partners(module, batch))


def test_a_contrast_by_labels_is_no_task_with_a_label_for_each_sample():
    _, _, own, _ = look(odd.Supervised, VIEWS)
    assert own.task is None


@pytest.mark.parametrize("samples", [CLASSES, 6])
def test_as_many_samples_as_classes_make_no_contrast(samples):
    _, _, own, _ = look(PROJECTS["dict batch"].module, PROJECTS["dict batch"], samples)
    assert own.task.name == "multiclass"


def test_a_loss_by_hand_leaves_a_guess_by_labels():
    module, batch, own, score = look(odd.Focal)
    assert (own.task.name, own.task.guessed) == ("multiclass", True)
    torch.testing.assert_close(score, module(batch[0]).gather(1, batch[1][:, None])[:, 0])


@pytest.mark.parametrize(
    ("kind", "project"),
    [
        (odd.Dice, PROJECTS["segmentation"]),
        (odd.Divergence, SHARES),
        (odd.VAE, PLAIN),
        (odd.Denoising, PLAIN),
        (odd.Queries, PROJECTS["detection"]),
        (odd.Rotation, SHARES),
        (odd.Adversarial, SHARES),
    ],
)
def test_what_no_loss_or_label_says_is_not_explained(kind, project):
    module, _, own, _ = look(kind, project)
    assert own.task is None
    for name in ("task=", "target=", "_step feeds"):
        assert name in own.unknown
    with pytest.raises(ValueError, match="task="):
        own.table(torch.zeros(6, 4), None)
    assert len(getattr(module, "after", [0])) == 1  # the Trainer's own batch


def test_the_loss_counts_on_whose_input_most_parameters_act():
    module, batch, own, score = look(odd.Auxiliary)
    torch.testing.assert_close(score, module(batch[0])["main"].gather(1, batch[1][:, None])[:, 0])
    assert own.call.path == ("main",)


class OwnLoss(nn.Module):
    """Makes its own loss of labels that it is given, as Hugging Face's models do."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids, labels=None):
        logits = self.head(self.embed(input_ids))
        return {"loss": F.cross_entropy(logits.view(-1, CLASSES), labels.view(-1)), "logits": logits}


class OwnLossModule(Module):
    def setup_parts(self):
        self.net = OwnLoss()

    def step(self, batch):
        return self.net(**batch)["loss"]


def test_a_model_that_makes_its_own_loss_is_called_with_its_labels():
    # nearly all of one label, which is then the next one's as well: still no next token
    def tags(i):
        return torch.tensor([0] * (LENGTH - 1) + [int(i == 1)])

    project = Project(OwnLossModule, lambda i: {"input_ids": ids(i), "labels": tags(i)}, None, "tokens", "")
    module, batch, own, score = look(OwnLossModule, project)
    assert (own.task.name, own.call.path) == ("tokens", ("logits",))
    logits = module.net(**batch)["logits"]
    expected = [logits[i, -1, 1] if i == 1 else logits[i, :, 0].mean() for i in range(6)]
    torch.testing.assert_close(score, torch.stack(expected))


class FromNames(odd.Plain):
    """Its labels are names, which the step looks up."""

    def step(self, batch):
        labels = torch.tensor([int(name[1:]) for name in batch[1]])
        return F.cross_entropy(self(batch[0]), labels)


def test_labels_that_are_looked_up_are_of_the_batch():
    project = Project(FromNames, lambda i: (image(i), f"c{label(i)}"), None, "multiclass", "")
    module, batch, own, score = look(FromNames, project)
    labels = torch.tensor([int(name[1:]) for name in batch[1]])
    assert own.task.name == "multiclass"
    torch.testing.assert_close(score, module(batch[0]).gather(1, labels[:, None])[:, 0])


class Precise(odd.Plain):
    """Its loss is taken in another precision."""

    def step(self, batch):
        return F.cross_entropy(self(batch[0]).double(), batch[1], ignore_index=-1)


def test_a_loss_in_another_precision_is_of_the_same_output_and_a_sample_without_label_explained_by_its_prediction():
    project = Project(Precise, lambda i: (image(i), label(i) if i % 3 else -1), None, "multiclass", "")
    module, batch, own, score = look(Precise, project)
    logits = module(batch[0])
    assert own.call.path == ()
    torch.testing.assert_close(score[::3], logits.amax(1)[::3])
    torch.testing.assert_close(
        score, logits.gather(1, torch.where(batch[1] < 0, logits.argmax(1), batch[1])[:, None])[:, 0]
    )


def test_the_user_says_what_an_output_means():
    _, _, own, score = look(odd.Divergence, SHARES, task="multiclass")
    assert (own.task.name, own.task.guessed, own.task.classes) == ("multiclass", False, CLASSES)
    module, batch, own, score = look(PROJECTS["dict batch"].module, PROJECTS["dict batch"], task="regression")
    torch.testing.assert_close(score, module(batch["image"]).mean(1))
    _, _, own, _ = look(odd.Dice, PROJECTS["segmentation"], task="segmentation")
    assert (own.task.name, own.task.classes) == ("segmentation", CLASSES)
    _, _, own, _ = look(odd.VAE, task="embedding")
    assert "task='embedding'" in own.unknown


def test_of_two_tasks_the_larger_head_counts():
    _, _, own, _ = look(odd.TwoTasks)
    assert own.task.name == "multiclass"


def test_the_student_is_explained_though_the_teacher_is_called_first():
    module, batch, own, score = look(odd.Distillation)
    assert own.call.module == "net"
    torch.testing.assert_close(score, module(batch[0]).gather(1, batch[1][:, None])[:, 0])


def test_a_step_whose_samples_act_on_each_other_is_not_repeated():
    _, _, own, _ = look(odd.Centred)
    assert own.task is None
    assert "not of one sample alone" in own.unknown


def test_a_step_without_gradient_is_not_repeated():
    _, _, own, _ = look(odd.Frozen)
    assert own.task is None
    assert "no gradient" in own.unknown


def test_arguments_that_buffers_act_on_are_made_anew():
    module, batch, own, score = look(odd.Normalising)
    assert own.call.signature is None
    expected = module(module.normalise(batch[0])).gather(1, batch[1][:, None])[:, 0]
    torch.testing.assert_close(score, expected)


def test_probabilities_are_explained_through_their_logarithm():
    module, batch, own, score = look(odd.Ending)
    torch.testing.assert_close(score, module(batch[0]).log().gather(1, batch[1][:, None])[:, 0])
    module, batch, own, score = look(odd.Sigmoid)
    assert (own.task.name, own.task.scale) == ("binary", "probabilities")
    signs = torch.where(batch[1] % 2 == 1, 1, -1)
    torch.testing.assert_close(score, signs * module.net(batch[0])[:, 0], rtol=1e-3, atol=1e-4)


def test_a_step_ends_right_behind_its_loss_and_only_on_the_shadow():
    module, _, _, _ = look(odd.Ending)
    assert len(module.before) == len(module.behind) == 2  # the Trainer's own batches


def test_a_partners_place_is_no_label():
    batch = VIEWS.batch()

    def labels(shadow, context):
        return learn(shadow, batch, context=context).samples(shadow, batch, context).labels

    assert in_a_run(seeded(odd.InfoNCE), VIEWS.loader(), labels) is None
