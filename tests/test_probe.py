"""Probe: what it accepts, how it is cut, kept, shown."""

from collections import namedtuple

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_xai.batches import join_batch, split_batch
from lightning_xai.probe import Probe
from lightning_xai.tensors import map_tensors

Batch = namedtuple("Batch", ["x", "y"])


def images(n=4):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "batch",
    [
        (images(), torch.arange(4)),
        [images(), torch.arange(4)],
        {"image": images(), "label": torch.arange(4), "path": ["a", "b", "c", "d"]},
        {"pixel_values": images(), "labels": torch.arange(4)},
        Batch(images(), torch.arange(4)),
    ],
    ids=["tuple", "list", "mapping", "transformers", "namedtuple"],
)
def test_a_batch_splits_into_inputs_and_labels_and_joins_again(batch):
    probe = Probe.from_batch(batch, 3)
    assert len(probe) == 3
    assert probe.targets.tolist() == [0, 1, 2]
    assert probe.image.equal(images()[:3])
    inputs, targets = split_batch(join_batch(probe.inputs, probe.targets, structure=batch))
    assert targets.tolist() == [0, 1, 2]
    assert Probe(inputs).image.equal(images()[:3])


def test_a_plain_tensor_has_no_labels():
    assert split_batch(images())[1] is None
    assert join_batch(images(), torch.zeros(4), structure=images()).equal(images())


@pytest.mark.parametrize(
    "labels", [torch.rand(4), torch.zeros(4, 5), torch.zeros(4, 8, 8).long(), torch.arange(4).to_sparse()]
)
def test_labels_that_are_no_class_indices_count_as_none(labels):
    assert split_batch((images(), labels))[1] is None


def test_labels_of_another_number_than_the_samples_count_as_none():
    inputs, targets = split_batch((images(), torch.arange(3)))
    assert inputs.equal(images())
    assert targets is None


def test_entries_of_a_mapping_without_a_sample_each_are_left_out():
    batch = {
        "scale": torch.tensor(2.0),
        "anchors": torch.zeros(9, 4),
        "edges": torch.eye(4).to_sparse(),
        "boxes": [torch.zeros(1, 4), torch.zeros(0, 4)],
        "image": images(),
        "label": torch.arange(4),
    }
    assert list(split_batch(batch)[0]) == ["image", "scale"]
    del batch["label"], batch["anchors"]
    assert list(split_batch(batch)[0]) == ["image", "scale"]


def test_a_tensor_takes_the_place_of_the_entry_that_is_like_it():
    labels = torch.zeros(4)
    like = {"ids": torch.zeros(0, 5), "image": torch.zeros(0, 3, 8, 8), "label": torch.zeros(0)}
    assert list(join_batch(images(), labels, like)) == ["image", "label"]
    assert list(join_batch(torch.zeros(4, 3, 9, 9), labels, like)) == ["image", "label"]
    assert list(join_batch(torch.zeros(4), labels, like)) == ["ids", "label"]


@pytest.mark.parametrize("kind", [tuple, list])
def test_sequences_of_a_make_of_their_own_are_mapped_to_plain_ones(kind):
    class Pair(kind):  # type: ignore[misc, valid-type]
        def __new__(cls, first, second):
            return kind.__new__(cls, (first, second))

        def __init__(self, first, second):
            if kind is list:
                super().__init__((first, second))

    assert map_tensors(Pair(torch.zeros(2), 3), len) == kind((2, 3))


def test_labels_can_be_extracted():
    batch = (images(), "meta", torch.tensor([3, 2, 1, 0]))
    assert Probe.from_batch(batch, labels=lambda b: b[2]).targets.tolist() == [3, 2, 1, 0]


def test_from_dataset_takes_the_samples_by_index():
    data = TensorDataset(images(), torch.tensor([5, 6, 7, 8]))
    probe = Probe.from_dataset(data, [2, 0], class_names=[str(i) for i in range(9)])
    assert probe.targets.tolist() == [7, 5]
    assert probe.inputs.equal(images()[[2, 0]])
    with pytest.raises(ValueError, match=r"4 samples, so it has none at \[4\]"):
        Probe.from_dataset(data, [0, 4])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"inputs": "words"}, TypeError, "got str: give a tensor, a tuple or a mapping"),
        ({"inputs": torch.zeros(0, 3)}, ValueError, "at least one sample"),
        ({"inputs": (torch.zeros(2, 3), torch.zeros(3, 3))}, ValueError, r"disagree .* \[2, 3\]"),
        ({"inputs": images(), "targets": torch.arange(3)}, ValueError, "3 targets were given for 4 samples"),
        ({"inputs": images(), "targets": torch.rand(4)}, TypeError, r"torch.float32 tensor of shape \(4,\)"),
        ({"inputs": images(), "targets": [0, 1, 2, 3]}, TypeError, "the targets are a list"),
        ({"inputs": images(), "targets": torch.arange(4), "class_names": ["a"]}, ValueError, "target 3 has no name"),
        ({"inputs": images(), "masks": {"m": torch.zeros(4, 7, 8) > 0}}, ValueError, r"expected \(4, 8, 8\)"),
        ({"inputs": images(), "masks": {"m": torch.zeros(4, 8, 8)}}, TypeError, r"compare it \(mask > 0\)"),
        ({"inputs": images(), "tokens": [["a"]]}, ValueError, "1 token lists were given for 4"),
        ({"inputs": images(), "mean": [0.5] * 3}, ValueError, "mean and std belong together"),
        ({"inputs": images(), "mean": [0.5] * 2, "std": [1.0]}, ValueError, "mean has 2 values for images of 3 chan"),
        ({"inputs": images(), "mean": [0.5], "std": ["a"]}, ValueError, r"std=\['a'\] is unknown: give finite numbers"),
        ({"inputs": torch.eye(4).to_sparse()}, TypeError, "hold a sparse_coo tensor, which cannot be cut into samples"),
        ({"inputs": torch.zeros(4, device="meta")}, TypeError, "hold a meta tensor"),
    ],
)
def test_bad_input_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        Probe(**arguments)


def test_slices_keep_everything_together():
    masks = {"m": torch.rand(4, 8, 8) > 0.5}
    probe = Probe(images(), torch.arange(4), masks=masks, tokens=[["a"], ["b"], ["c"], ["d"]])[[3, 1]]
    assert probe.targets.tolist() == [3, 1]
    assert probe.masks["m"].equal(masks["m"][[3, 1]])
    assert probe.tokens == [["d"], ["b"]]


def test_save_and_load_give_the_same_probe(tmp_path):
    probe = Probe(
        {"x": images(), "pair": (torch.arange(4), torch.arange(4.0))},
        torch.arange(4),
        masks={"m": torch.rand(4, 8, 8) > 0.5},
        class_names=("a", "b", "c", "d"),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        prepared=True,
    )
    probe.save(tmp_path / "probe.pt")
    again = Probe.load(tmp_path / "probe.pt")
    assert again.fingerprint == probe.fingerprint
    assert again.prepared
    assert list(again.class_names) == ["a", "b", "c", "d"]
    assert again.masks["m"].equal(probe.masks["m"])
    assert again.images().equal(probe.images())
    with pytest.raises(FileNotFoundError, match=r"no saved Probe at .*absent"):
        Probe.load(tmp_path / "absent")


def test_the_fingerprint_tells_content_apart():
    probe = Probe(images(), torch.arange(4))
    changed = images()
    changed[0, 0, 0, 0] += 1
    assert probe.fingerprint == Probe(images(), torch.arange(4)).fingerprint
    assert probe.fingerprint == Probe(images().to(memory_format=torch.channels_last), torch.arange(4)).fingerprint
    others = [
        Probe(changed, torch.arange(4)),
        Probe(images(), torch.arange(4).flip(0)),
        Probe(images()),
        Probe(images().bfloat16(), torch.arange(4)),
    ]
    assert len({probe.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_images_undo_the_normalisation():
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    normalised = (images() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    shown = Probe(normalised, mean=mean.tolist(), std=std.tolist()).images()
    expected = (images() * 255).round().byte().permute(0, 2, 3, 1)
    assert (shown.int() - expected.int()).abs().max() <= 1


def test_images_without_statistics():
    assert Probe(images()).images().equal((images() * 255).round().byte().permute(0, 2, 3, 1))
    stretched = Probe(images() * 4 - 2).images()
    assert [int(stretched.min()), int(stretched.max())] == [0, 255]
    grey = Probe((images()[:, :1] * 255).byte()).images()
    assert grey.shape == (4, 8, 8, 3)
    assert grey[..., 0].equal(grey[..., 2])
    assert Probe(torch.zeros(4, 7)).images() is None


def test_a_probe_prints_what_it_holds_not_its_pixels():
    probe = Probe(images(), torch.tensor([0, 1, 1, 0]), masks={"mark": torch.zeros(4, 8, 8) > 0})
    assert repr(probe) == "Probe(4 samples, inputs (4, 3, 8, 8), 2 classes, masks mark)"
