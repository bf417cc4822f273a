from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from lightning_xai.functional import call, logits, predict, scores
from lightning_xai.tensors import first_tensor, map_tensors, replace_first, select

VALUES = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]])


def test_call() -> None:
    def model(a: int, b: int = 0) -> tuple[int, int]:
        return a, b

    assert call(model, 1) == (1, 0)
    assert call(model, (1, 2)) == call(model, [1, 2]) == call(model, {"b": 2, "a": 1}) == (1, 2)


@pytest.mark.parametrize(
    "output",
    [
        VALUES,
        (VALUES, torch.zeros(1)),
        ["text", VALUES],
        {"loss": torch.zeros(()), "logits": VALUES},
        OrderedDict(out=VALUES, aux=torch.zeros(2, 3)),
        {"anything": VALUES, "text": "x"},
        SimpleNamespace(logits=VALUES, loss=None),
    ],
)
def test_logits(output: object) -> None:
    assert logits(output) is VALUES


@pytest.mark.parametrize("output", ["text", None, {}, {"a": VALUES, "b": VALUES}, SimpleNamespace(x=1), ()])
def test_no_logits(output: object) -> None:
    with pytest.raises(TypeError, match=rf"no logits in the model's output, a {type(output).__name__}.*forward="):
        logits(output)


def test_predict() -> None:
    prediction, confidence = predict(VALUES)
    assert prediction.tolist() == [1, 0]
    torch.testing.assert_close(confidence, VALUES.softmax(1).max(1).values)
    for one in (torch.tensor([2.0, -1.0]), torch.tensor([[2.0], [-1.0]])):
        prediction, confidence = predict(one)
        assert prediction.tolist() == [1, 0]
        torch.testing.assert_close(confidence, torch.tensor([2.0, 1.0]).sigmoid())


def test_scores() -> None:
    assert scores(VALUES, 1).tolist() == [[3], [-1]]
    assert scores(VALUES, torch.tensor([0, 2])).tolist() == [[1], [-2]]
    assert scores(VALUES, torch.tensor([0, 2], dtype=torch.uint8)).tolist() == [[1], [-2]]
    assert scores(VALUES, torch.tensor([[0, 1], [2, 1]])).tolist() == [[1, 3], [-2, -1]]
    assert scores(VALUES, "predicted").tolist() == [[3], [0]]
    assert scores(VALUES, lambda out: out.sum(1)).tolist() == [[6], [-3]]
    assert scores(VALUES, lambda out: out[:, :2]).tolist() == [[1, 3], [0, -1]]
    one = torch.tensor([2.0, -1.0])
    assert scores(one, torch.tensor([1, 0])).tolist() == [[2], [1]]
    assert scores(one[:, None], torch.tensor([[0, 1], [0, 1]])).tolist() == [[-2, 2], [1, -1]]
    assert scores(one, "predicted").tolist() == [[2], [1]]


@pytest.mark.parametrize(
    ("targets", "error", "match"),
    [
        (3, IndexError, "target 3 of sample 0 is out of range: the model has 3 classes, 0 to 2"),
        (-1, IndexError, "target -1 of sample 0"),
        (torch.tensor([[0, 1], [2, 5]]), IndexError, "target 5 of sample 1"),
        (torch.tensor([0]), ValueError, r"shape \(1,\) for 2 samples; expected \(2,\), or \(2, T\)"),
        (torch.zeros(2, 1, 1, dtype=torch.long), ValueError, r"shape \(2, 1, 1\)"),
        (torch.zeros(2), TypeError, r"torch.float32; expected class indices"),
        (torch.tensor([True, False]), TypeError, r"torch.bool; expected class indices"),
        ([0, 1], TypeError, "targets is a list; expected an int, a tensor, a callable"),
        (True, TypeError, "targets is a bool"),
        ("label", ValueError, "'label' is unknown"),
        (lambda out: 1.0, ValueError, "callable target returned a float"),
    ],
)
def test_targets_that_do_not_fit(targets: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        scores(VALUES, targets)


def test_a_class_of_one_logit_out_of_range() -> None:
    with pytest.raises(IndexError, match="target 2 of sample 0 is out of range: the model has 2 classes, 0 to 1"):
        scores(torch.zeros(2), 2)


def test_nested() -> None:
    tree = {"text": ["a"], "pair": (1, VALUES), "more": torch.arange(3)}
    assert first_tensor(tree) is VALUES
    assert first_tensor({"a": 1}) is None
    replaced = replace_first(tree, VALUES * 2)
    assert torch.equal(replaced["pair"][1], VALUES * 2)
    assert tree["pair"][1] is VALUES
    assert replaced["more"] is tree["more"]
    assert map_tensors(tree, lambda t: t) is tree
    cut = select(tree, slice(1), 2)
    assert cut["pair"][1].shape == (1, 3)
    assert cut["more"] is tree["more"]
