"""Concepts from tensors, datasets, folders and functions, and the random sets beside them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from lightning_xai.concept import Concept, drawn
from lightning_xai.example_sources.indexed import random_sets, set_size
from lightning_xai.probe import Probe


def to_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def folder_of(path, number, value=0):
    path.mkdir(parents=True)
    for index in range(number):
        Image.new("RGB", (12, 10), (value + index, 0, 200)).save(path / f"{index}.png")
    return path


def test_examples_come_from_tensors_datasets_and_functions():
    images = torch.rand(5, 3, 4, 4)
    data = TensorDataset(images, torch.arange(5))
    for examples in (images, data, lambda: images):
        concept = Concept("striped", examples)
        assert len(concept) == 5
        assert Probe(concept.examples).image.equal(images)
    tokens = {"input_ids": torch.arange(6).view(2, 3), "attention_mask": torch.ones(2, 3)}
    assert len(Concept("negation", tokens)) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("a/b", torch.rand(4, 2)), ValueError, "'a/b' cannot name a concept"),
        (("one", torch.rand(1, 2)), ValueError, "'one' has 1 example: a direction needs two or more"),
        (("words", ["a", "b"]), TypeError, r"'words' was given a list"),
    ],
)
def test_bad_concepts_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        Concept(*arguments)


def test_a_folder_of_images_is_a_concept_and_a_folder_of_folders_a_list(tmp_path):
    folder_of(tmp_path / "concepts" / "striped", 3)
    folder_of(tmp_path / "concepts" / "dotted", 2, value=100)
    one = Concept.from_folder(tmp_path / "concepts" / "striped", transform=to_tensor)
    assert (one.name, len(one), one.prepared) == ("striped", 3, False)
    assert one.examples.shape == (3, 3, 10, 12)
    assert [c.name for c in Concept.from_folder(tmp_path / "concepts", transform=to_tensor)] == ["dotted", "striped"]


def test_folder_images_take_size_and_normalisation_from_a_probe(tmp_path):
    folder_of(tmp_path / "blue", 2)
    probe = Probe(torch.zeros(1, 3, 6, 8), mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), prepared=True)
    concept = Concept.from_folder(tmp_path / "blue", like=probe)
    assert concept.prepared
    assert concept.examples.shape == (2, 3, 6, 8)
    assert concept.examples[1, :, 0, 0].tolist() == pytest.approx(
        [(1 / 255 - 0.5) / 0.5, -2.0, (200 / 255 - 0.3) / 0.1]
    )


def test_folders_that_say_too_little_are_refused(tmp_path):
    folder_of(tmp_path / "striped", 2)
    with pytest.raises(ValueError, match="give transform="):
        Concept.from_folder(tmp_path / "striped")
    with pytest.raises(ValueError, match="with mean and std"):
        Concept.from_folder(tmp_path / "striped", like=Probe(torch.zeros(1, 3, 4, 4)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images, nor folders of images"):
        Concept.from_folder(tmp_path / "empty", transform=to_tensor)
    (tmp_path / "striped" / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken.png is no image"):
        Concept.from_folder(tmp_path / "striped", transform=to_tensor)


def test_random_sets_are_the_same_for_the_same_seed_and_leave_the_global_rng_alone():
    data = TensorDataset(torch.arange(100.0)[:, None], torch.zeros(100))
    before = torch.get_rng_state()
    first, again, other = (random_sets(data, 3, 20, seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not first[0].equal(other[0])


@pytest.mark.parametrize("pool", [torch.arange(50.0)[:, None], TensorDataset(torch.arange(50.0)[:, None])])
def test_random_sets_share_no_example(pool):
    sets = random_sets(pool, sets=4, size=12, seed=0)
    assert len({value for examples in sets for value in examples[:, 0].tolist()}) == 48


def test_random_sets_shrink_to_what_the_pool_has():
    assert [set_size(available, 10, 50) for available in (10_000, 500, 499, 153, 20)] == [50, 50, 49, 15, 2]
    with pytest.raises(ValueError, match="pool has 19 examples, and each of 10 random sets needs two of its own"):
        set_size(19, 10, 50)


def test_pools_that_cannot_serve_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="drawn by index, which a Stream does not allow: give randoms="):
        random_sets(Stream(), 2, 5, seed=0)
    with pytest.raises(ValueError, match="2 sets of 5 different examples cannot be drawn from 9"):
        random_sets(torch.rand(9, 2), 2, 5, seed=0)


@pytest.mark.parametrize("kind", ["stripes", "checks", "noise", "red", "black"])
def test_drawn_concepts_are_images_and_repeatable(kind):
    images = drawn(kind, 6, (24, 20), seed=3)
    assert images.shape == (6, 3, 24, 20)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.equal(drawn(kind, 6, (24, 20), seed=3))
    assert not images.equal(drawn(kind, 6, (24, 20), seed=4))


def test_drawn_kinds_are_what_they_say():
    red = drawn("red", 8, (16, 16)).mean((0, 2, 3))
    assert red[0] > 3 * red[1:].max()
    stripes, checks = (drawn(kind, 1, (64, 64), seed=5)[0, 0] for kind in ("stripes", "checks"))
    assert len(stripes.unique()) == len(checks.unique()) == 2
    with pytest.raises(ValueError, match=r"nothing draws 'dots'; these are drawn: stripes, checks"):
        drawn("dots", 2, (8, 8))
