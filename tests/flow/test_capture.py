"""The automatic probe: balanced, independent of the number of ranks, detached from the batches."""

from types import SimpleNamespace

import pytest
import torch

from lightning_xai.flow.capture import Capture, balanced

ALONE = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda held, src: held))


def captured(labels, size, batch_size=4, inputs=None):
    capture = Capture(size)
    labels = torch.tensor(labels)
    inputs = torch.arange(len(labels)).float()[:, None] if inputs is None else inputs
    for start in range(0, len(labels), batch_size):
        capture.add((inputs[start : start + batch_size], labels[start : start + batch_size]))
    return capture.merge(ALONE)


def by_sorting(labels, size):
    keys = [(labels[:position].count(label), position) for position, label in enumerate(labels)]
    return [position for _, position in sorted(keys)[:size]]


def test_an_unshuffled_folder_gives_every_class():
    probe = captured([0] * 40 + [1] * 40 + [2] * 40, size=6)
    assert probe.targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert probe.inputs[:, 0].tolist() == [0, 40, 80, 1, 41, 81]
    assert probe.prepared


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 8, 30])
def test_the_choice_does_not_depend_on_the_number_of_ranks(classes, world_size, size):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        labels = (torch.rand(210, generator=generator) ** 3 * classes).long().tolist()
        union = []
        for rank in range(world_size):
            capture = Capture(size, rank=rank, world_size=world_size)
            mine = torch.tensor(labels[rank::world_size])
            for part in mine.split(13):
                capture.add((torch.zeros(len(part), 1), part))
            assert len(capture.offer()) <= size
            union += capture.offer().items()
        assert balanced(union, size) == by_sorting(labels, size)


def test_without_labels_the_first_samples_are_taken():
    capture = Capture(3)
    for part in torch.arange(8.0)[:, None].split(2):
        capture.add(part)
    probe = capture.merge(ALONE)
    assert probe.inputs[:, 0].tolist() == [0, 1, 2]
    assert probe.targets is None


def test_what_is_kept_shares_no_memory_with_the_batch():
    batch = torch.zeros(64, 3, 8, 8)
    capture = Capture(2)
    capture.add((batch, torch.arange(64)))
    batch += 1
    probe = capture.merge(ALONE)
    assert probe.inputs.sum() == 0
    assert probe.inputs.untyped_storage().nbytes() == probe.inputs.numel() * 4


def test_a_probe_of_inference_batches_can_be_differentiated():
    capture = Capture(2)
    with torch.inference_mode():
        capture.add((torch.rand(4, 3), torch.arange(4)))
        probe = capture.merge(ALONE)
    assert not probe.inputs.is_inference()
    assert not probe.targets.is_inference()


def test_token_batches_of_different_lengths_are_padded_with_zeros():
    capture = Capture(3)
    for length in (3, 5):
        ids = torch.ones(2, length, dtype=torch.long)
        capture.add({"input_ids": ids, "attention_mask": ids, "labels": torch.tensor([length, length + 1])})
    probe = capture.merge(ALONE)
    assert probe.inputs["input_ids"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert probe.inputs["attention_mask"].shape == (3, 5)


def test_images_of_different_sizes_are_refused():
    capture = Capture(2)
    capture.add((torch.rand(1, 3, 8, 8), torch.tensor([0])))
    capture.add((torch.rand(1, 3, 9, 8), torch.tensor([1])))
    with pytest.raises(ValueError, match=r"different shapes, \(3, 8, 8\) and \(3, 9, 8\)"):
        capture.merge(ALONE)
