"""Random samples of the batches that pass by: uniform, different, independent of ranks, detached from the batches."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest
import torch

from lightning_xai import Probe
from lightning_xai.callbacks.tcav.reservoir import Reservoir
from tests.support.alive import alive


def merged(reservoirs):
    """What each rank has after a merge, each in a thread of its own; a rank that broadcasts less hangs the others."""
    everyone, sent = Barrier(len(reservoirs), timeout=20), []

    def merge(rank):
        def broadcast(content, src):
            if rank == src:
                sent.append(content)
            everyone.wait()
            received = sent[-1]
            everyone.wait()
            return received

        return reservoirs[rank].merge(SimpleNamespace(strategy=SimpleNamespace(broadcast=broadcast)))

    with ThreadPoolExecutor(len(reservoirs)) as pool:
        return list(pool.map(merge, range(len(reservoirs))))


def drawn(values, size=6, seed=0, ranks=1, batch_size=5):
    """The values that are kept of these, in the order of the draw."""
    reservoirs = [Reservoir(size, seed, rank, ranks) for rank in range(ranks)]
    for rank, reservoir in enumerate(reservoirs):
        for part in torch.tensor(values[rank::ranks]).float()[:, None].split(batch_size):
            reservoir.add((part, torch.zeros(len(part), dtype=torch.long)))
    first, *others = [[sample.inputs.item() for sample in samples] for samples in merged(reservoirs)]
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_the_draw_depends_neither_on_the_number_of_ranks_nor_on_the_batches(ranks, batch_size):
    for seed in range(5):
        expected = drawn(range(100), seed=seed)
        assert len(set(expected)) == 6
        assert drawn(range(100), seed=seed, ranks=ranks, batch_size=batch_size) == expected


def test_every_sample_has_the_same_chance_in_every_place():
    draws = torch.tensor([drawn(range(20), size=5, seed=seed) for seed in range(1500)])
    for place in draws.T:
        counts = place.long().bincount(minlength=20)
        # chi-squared of 19 degrees of freedom: 43.8 at p = .001
        assert ((counts - 75.0) ** 2 / 75).sum() < 43.8


@pytest.mark.parametrize("ranks", [1, 2])
def test_samples_that_come_twice_are_kept_once(ranks):
    """A distributed sampler repeats samples to fill the last batch, and a user's may repeat any."""
    values = drawn([*range(9), *range(9), 0, 0], size=30, ranks=ranks)
    assert sorted(values) == list(range(9))
    few = drawn([number % 3 for number in range(60)], size=5, ranks=ranks)
    assert sorted(few) == [0, 1, 2]


def test_what_is_kept_shares_no_memory_with_the_batch_and_can_be_differentiated():
    reservoir = Reservoir(2, seed=0)
    with torch.inference_mode():
        batch = torch.ones(64, 3, 8, 8) * torch.arange(64).view(-1, 1, 1, 1)
        reservoir.add((batch, torch.arange(64)))
        batch.zero_()
    (samples,) = merged([reservoir])
    assert len({sample.inputs[0, 0, 0, 0].item() for sample in samples}) == 2
    for sample in samples:
        assert sample.prepared
        assert not sample.inputs.is_inference()
        assert sample.inputs.untyped_storage().nbytes() == sample.inputs.numel() * 4


def test_no_more_samples_are_kept_than_are_drawn():
    reservoir, before = Reservoir(6, seed=0), alive(Probe)
    for _ in range(20):
        reservoir.add((torch.randn(5, 3), torch.arange(5)))
    assert alive(Probe) - before <= 6


def test_no_random_stream_moves():
    before = torch.get_rng_state()
    drawn(range(40))
    assert torch.get_rng_state().equal(before)
