"""Scores, words and layouts against loops over samples."""

import pytest
import torch

from lightning_xai.flow.own_step.answers import answers
from lightning_xai.flow.own_step.checks import other_samples, rows_of
from lightning_xai.flow.own_step.layout import Layout
from lightning_xai.flow.own_step.scores import clean_labels, label_classes, predicted_classes, present, score_table
from lightning_xai.flow.own_step.task import Task
from lightning_xai.flow.own_step.words import captions, opening_words, samples_words, score_words

N, C, P = 5, 4, 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(high, *shape, seed=1):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def test_labels_that_mean_none_are_no_class():
    labels = torch.tensor([0, -1, -100, 255, 2])
    assert clean_labels(labels, Task("multiclass", classes=C)).tolist() == [0, -1, -1, -1, 2]
    assert clean_labels(labels, Task("multiclass", classes=C, ignore=0)).tolist() == [-1, -1, -1, -1, 2]


@pytest.mark.parametrize("name", ["segmentation", "tokens"])
def test_a_class_of_places_has_the_mean_logit_of_those_labelled_with_it(name):
    task = Task(name, classes=C)
    logits, labels = draw(N, C, P), clean_labels(whole(C + 1, N, P) - 1, Task(name, classes=C))
    labels[0] = -1
    table, classes = score_table(logits, labels, task), label_classes(draw(N, C), labels, task)
    for sample in range(N):
        for c in range(C):
            inside = labels[sample] == c
            if not inside.any():
                inside = logits[sample].argmax(0) == c
            expected = logits[sample, c, inside] if inside.any() else logits[sample, c]
            torch.testing.assert_close(table[sample, c], expected.mean())
        counts = [int((labels[sample] == c).sum()) for c in range(1, C)]
        if max(counts):
            assert int(classes[sample]) == 1 + counts.index(max(counts))
    assert classes[0] == -1


def test_without_labels_places_are_those_predicted():
    logits, task = draw(N, C, P), Task("segmentation", classes=C)
    table, predicted = score_table(logits, None, task), predicted_classes(logits, draw(N, C), task)
    for sample in range(N):
        found = logits[sample].argmax(0)
        counts = [int((found == c).sum()) for c in range(1, C)]
        c = 1 + counts.index(max(counts))
        assert int(predicted[sample]) == c
        torch.testing.assert_close(table[sample, c], logits[sample, c, found == c].mean())


def test_one_number_a_place_is_of_two_classes():
    task = Task("segmentation", classes=1, independent=True)
    logits, labels = draw(N, 1, P), (draw(N, 1, P, seed=3) > 0).float()
    torch.testing.assert_close(
        score_table(logits, labels, task)[:, 0], (logits * labels).sum((1, 2)) / labels.sum((1, 2))
    )
    assert label_classes(draw(N, 1), labels, task).tolist() == [1] * N
    assert label_classes(draw(N, 1), labels * 0, task).tolist() == [0] * N


def test_of_several_labels_the_lowest_is_explained():
    task = Task("multilabel", classes=C, independent=True)
    logits, labels = draw(N, C), whole(2, N, C)
    labels[0] = 0
    found = label_classes(logits, labels, task)
    for sample in range(1, N):
        there = [c for c in range(C) if labels[sample, c]]
        assert int(found[sample]) == min(there, key=lambda c: float(logits[sample, c]))
    assert found[0] == -1
    assert present(labels).tolist() == [[n, c] for n in range(N) for c in range(C) if labels[n, c]]


def test_the_next_token_at_the_last_labelled_place():
    task = Task("language", classes=C)
    logits, labels = draw(N, C, P), whole(C, N, P)
    labels[1, 4:] = labels[2] = -1
    table, classes = score_table(logits, labels, task), label_classes(draw(N, C), labels, task)
    for sample, last in enumerate([5, 3, 5, 5, 5]):
        torch.testing.assert_close(table[sample], logits[sample, :, last])
        assert classes[sample] == labels[sample, last]


def test_probabilities_are_explained_through_their_logarithm():
    shares = draw(N, C).softmax(1)
    torch.testing.assert_close(score_table(shares, None, Task("multiclass", "probabilities", C)), shares.log())
    task = Task("multilabel", "probabilities", C, independent=True)
    torch.testing.assert_close(score_table(draw(N, C).sigmoid(), None, task), draw(N, C), rtol=1e-4, atol=1e-5)
    assert score_table(torch.tensor([[0.0, 1.0]]), None, task).isfinite().all()


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("family", ["classes", "yes or no", "values"])
def test_rows_of_a_loss_go_to_their_samples(family, stacked):
    rows = 3
    whole_ = draw(N, rows, C)
    flat = whole_.transpose(0, 1).flatten(0, 1) if stacked else whole_.flatten(0, 1)
    values = Layout(family, (C,), rows, stacked).values(flat)
    torch.testing.assert_close(values, whole_.flatten(1) if family == "values" else whole_.transpose(1, 2))
    others = whole_[other_samples(N)]
    flat_others = others.transpose(0, 1).flatten(0, 1) if stacked else others.flatten(0, 1)
    assert rows_of(flat, flat_others, N) == (rows, stacked)
    assert rows_of(flat, flat_others + 1e-3 * draw(N * rows, C), N) is None
    assert rows_of(flat[:-1], flat_others[:-1], N) is None


def test_an_output_is_what_its_loss_took_of_it():
    layout = Layout("classes", (C,), P)
    torch.testing.assert_close(layout.values(draw(N, P, C)), draw(N, P, C).transpose(1, 2))
    assert layout.labels(whole(C, N * P)).shape == (N, P)
    assert Layout("classes", (C,)).values(draw(C)).shape == (1, C)  # a sample alone, squeezed
    assert Layout("yes or no", ()).values(torch.ones(())).shape == (1, 1)
    assert Layout("yes or no", (2, 3)).values(draw(N, 2, 3)).shape == (N, 1, 6)
    assert Layout("yes or no", (C, 2, 3)).values(draw(N, C, 2, 3)).shape == (N, C, 6)
    assert Layout("classes", (C,)).labels(torch.eye(C)[whole(C, N)]).tolist() == whole(C, N).tolist()


def said(task, values, labels, names=None):
    table = score_table(values, labels, task)
    return captions(task, answers(values, table, labels, task), (lambda c: names[c]) if names else str)


def test_captions_say_what_the_model_gives():
    names = ["disc", "square", "stripe"]
    sure = torch.tensor([[3.0, 0.0, 0.0]])
    assert said(Task("multiclass", classes=3), sure, torch.tensor([2]), names) == ["label stripe\npred disc 91%"]
    assert said(Task("multiclass", classes=3), sure, torch.tensor([-1]), names) == ["pred disc 91%"]
    assert said(Task("multiclass", classes=3), sure, None, names) == ["pred disc 91%"]
    several = torch.tensor([[3.0, 2.2, -1.0]])
    task = Task("multilabel", classes=3, independent=True)
    assert said(task, several, torch.tensor([[1, 0, 1]]), names) == ["label disc, stripe\npred disc 95%, square 90%"]
    assert said(task, -several.abs(), torch.zeros(1, 3), names) == ["label none\npred none"]
    binary = Task("binary", classes=1, independent=True)
    assert said(binary, torch.tensor([[-2.0]]), torch.tensor([[1.0]]), ["cat", "dog"]) == ["label dog\npred cat 88%"]
    number = torch.tensor([[2.8]])
    assert said(Task("regression", "values"), number, torch.tensor([[3.1]])) == ["value 3.1, predicted 2.8"]
    assert said(Task("regression", "values"), number, None) == ["predicted 2.8"]
    assert said(Task("embedding", "values"), torch.tensor([0.831]), None) == ["similarity 0.83"]
    found = [{"boxes": torch.zeros(1, 4), "scores": torch.tensor([0.5])}]
    assert said(Task("detection", "values"), found, None) == []
    places = torch.tensor([[[2.0, 0.0, 0.0, 2.0], [0.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[0, 1, 0, 0]])
    assert said(Task("segmentation", classes=3), places, labels, names) == ["square\nlabel 25%, pred 50%"]


def test_the_line_at_the_start_says_what_is_explained():
    samples = samples_words(8, [0, 0, 1, 1, 2, 2, 3, 3])
    line = opening_words(
        "GradCAM", "layer4", samples, score_words(Task("multiclass", classes=4), "label"), "it feeds x"
    )
    assert line == (
        "GradCAM explains layer4 of 8 validation samples (2 of each of 4 classes): the label's logit; it feeds x"
    )
    assert samples_words(3, [0, 0, 1]) == "3 validation samples (1 to 2 of each of 2 classes)"
    assert samples_words(3, None, "training") == "3 training samples"
    assert samples_words(2, [1, 1]) == "2 validation samples (2 of one class)"
    assert score_words(Task("multiclass", "probabilities", 4), "predicted") == "the prediction's log-probability"
    assert score_words(Task("binary", "probabilities", 1, independent=True), 1) == "the class's log-odds"
    assert "task='multiclass'" in score_words(Task("multiclass", classes=4, guessed=True), "label")
    assert score_words(Task("regression"), len) == "what target= returns"


def test_a_task_that_is_none_is_told():
    with pytest.raises(ValueError, match="'multiclas' is unknown: give one of 'multiclass'"):
        Task("multiclas")
