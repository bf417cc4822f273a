from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from lightning_xai.samples import batch_size, join, places, select

Fields = namedtuple("Fields", "x y")
N = 4


@dataclass(frozen=True)
class Data:
    x: Tensor
    y: Tensor
    note: str = ""


def rows(*shape):
    return torch.arange(N * torch.Size(shape).numel(), dtype=torch.float32).view(N, *shape)


def boxes(count):
    return {"boxes": torch.rand(count, 4), "labels": torch.ones(count)}


BATCHES = {
    "tensor": rows(2),
    "tuple": (rows(3, 5, 5), torch.arange(N)),
    "list": [rows(2), torch.arange(N)],
    "mapping with text and numbers": {"x": rows(2), "y": torch.arange(N), "crs": ["a", "b", "c", "d"], "level": 3},
    "namedtuple": Fields(rows(2), torch.arange(N)),
    "dataclass": Data(rows(2), torch.arange(N), "kept"),
    "two views, labels and names": ([rows(3, 5, 5), rows(3, 5, 5) + 1], torch.arange(N), list("abcd")),
    "something that is none": ((rows(2), None), torch.arange(N)),
    "tables beside samples": {"x": rows(2), "edges": torch.zeros(3, 9), "scale": torch.tensor(2.0)},
    "detection": (tuple(torch.full((3, 4 + i, 4), float(i)) for i in range(N)), tuple(map(boxes, (1, 2, 1, 3)))),
    "batches of loaders": {"a": [rows(2), torch.arange(N)], "b": [rows(2) + 9, torch.arange(N)]},
}


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, Data):
        same((one.x, one.y, one.note), (other.x, other.y, other.note))
    else:
        assert one == other


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch_cut_into_samples_and_joined_is_itself(kind):
    batch = BATCHES[kind]
    assert batch_size(batch) == N
    samples = [select(batch, [row], N) for row in range(N)]
    same(join(samples, [1] * N), batch)
    same(join([select(batch, [2, 0], N), select(batch, [1, 3], N)], [2, 2]), select(batch, [2, 0, 1, 3], N))


def test_samples_are_those_that_are_asked_for():
    images, targets = select(BATCHES["detection"], [3, 1], N)
    assert [image.shape[1] for image in images] == [7, 5]
    assert [len(target["boxes"]) for target in targets] == [3, 2]
    found = select(BATCHES["mapping with text and numbers"], [3, 1], N)
    assert (found["y"].tolist(), found["crs"], found["level"]) == ([3, 1], ["d", "b"], 3)
    (one, other), labels, names = select(BATCHES["two views, labels and names"], [3], N)
    assert (one[0, 0, 0, 0] + 1, labels.tolist(), names) == (other[0, 0, 0, 0], [3], ["d"])


def test_two_lists_of_two_samples_are_not_two_samples():
    images, targets = select(([torch.zeros(3, 5, 5), torch.ones(3, 5, 5)], [boxes(2), boxes(1)]), [1], 2)
    assert (float(images[0].mean()), len(targets[0]["boxes"])) == (1.0, 1)
    x, level = select((torch.arange(2), 3), [1], 2)
    assert (x.tolist(), level) == ([1], 3)


def test_three_images_of_three_channels_are_three_samples():
    batch = ([torch.full((3, 5, 5), float(i)) for i in range(3)], [boxes(1)] * 3)
    assert batch_size(batch) == 3
    assert [float(image.mean()) for image in select(batch, [2, 0], 3)[0]] == [2.0, 0.0]


def test_whole_numbers_of_different_lengths_are_padded():
    short = {"ids": torch.ones(1, 3, dtype=torch.long), "y": torch.tensor([1])}
    long = {"ids": torch.ones(1, 5, dtype=torch.long), "y": torch.tensor([2]), "more": torch.zeros(1)}
    joined = join([short, long], [1, 1])
    assert joined["ids"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert join([long, short], [1, 1]).keys() == {"ids", "y"}
    with pytest.raises(ValueError, match=r"different shapes, \(3,\) and \(5,\).*probe="):
        join([torch.rand(1, 3), torch.rand(1, 5)], [1, 1])


def test_packed_sequences_are_samples():
    sequences = [torch.arange(float(length))[:, None] for length in (2, 4, 1, 3)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    assert batch_size((packed, torch.arange(N))) == N
    parts = [select(packed, [row], N) for row in range(N)]
    joined = join(parts, [1] * N)
    assert isinstance(joined, PackedSequence)
    assert pad_packed_sequence(joined)[1].tolist() == [2, 4, 1, 3]
    torch.testing.assert_close(pad_packed_sequence(joined)[0], pad_packed_sequence(packed)[0])


def test_places_are_named_as_a_program_writes_them():
    assert list(places((torch.ones(1), {"x": torch.ones(1)}))) == ["batch[0]", 'batch[1]["x"]']
    assert list(places(Fields(torch.ones(1), [torch.ones(1)]))) == ["batch.x", "batch.y[0]"]
    assert list(places(BATCHES["dataclass"])) == ["batch.x", "batch.y"]
    assert list(places(torch.ones(1))) == ["batch"]


@pytest.mark.parametrize("batch", [{"path": "a.png"}, None, 3])
def test_what_has_no_samples_is_told(batch):
    with pytest.raises(TypeError, match="probe="):
        batch_size(batch)
