"""Random samples of the data that are explained, from the batches that pass by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch

from lightning_xai.batches import split_batch
from lightning_xai.flow.capture import clone
from lightning_xai.flow.namespaces import Trainer
from lightning_xai.probe import Probe


@dataclass(eq=False)
class Reservoir:
    """Keeps ``size`` samples of all that pass by, each with the same chance, no two of them equal.

    A sample's rank in the draw is a hash of the seed and of its position in the data, so no random number is drawn
    and the number of processes changes nothing. Kept on the CPU are at most ``size`` samples, while the first epoch
    passes by; positions are those of `Capture`.

    Args:
        size: how many samples to keep.
        seed: of the draw.
        rank: of this process.
        world_size: number of processes that share the data.
    """

    size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    _samples: dict[int, Probe] = field(default_factory=dict)  # by key
    _offset: int = 0  # samples of this rank before the next batch

    def add(self, batch: Any) -> None:
        """Look at a batch that has been through the transfer hooks; what is kept of it is cloned."""
        with torch.inference_mode(False), torch.no_grad():
            samples = Probe(split_batch(batch)[0], prepared=True)
            keys = {self._key(row): row for row in range(len(samples))}
            self._offset += len(samples)
            last = max(self._samples) if len(self._samples) >= self.size else None
            entering = sorted(key for key in keys if last is None or key < last)[: self.size]
            if not entering:
                return
            rows = clone(samples[[keys[key] for key in entering]])
            pool = self._samples | {key: rows[[row]] for row, key in enumerate(entering)}
            best = self._first((key, sample.fingerprint) for key, sample in pool.items())
            self._samples = {key: pool[key] for key in best}

    def merge(self, trainer: Trainer) -> list[Probe]:
        """The draw from all ranks in random order, the same on each of them. Collective."""
        broadcast = trainer.strategy.broadcast
        mine = {key: sample.fingerprint for key, sample in self._samples.items()}
        offers: list[dict[int, str]] = [broadcast(mine, src=rank) for rank in range(self.world_size)]
        keys = self._first(pair for offer in offers for pair in offer.items())
        samples: dict[int, Probe] = {}
        for rank, offer in enumerate(offers):
            if of_rank := offer.keys() & set(keys):
                samples |= broadcast({key: self._samples[key] for key in of_rank & self._samples.keys()}, src=rank)
        return [samples[key] for key in keys]

    def _key(self, row: int) -> int:
        position = (self._offset + row) * self.world_size + self.rank
        return int.from_bytes(blake2b(f"{self.seed} {position}".encode(), digest_size=8).digest(), "big")

    def _first(self, samples: Iterable[tuple[int, str]]) -> list[int]:
        """The smallest keys of different fingerprints."""
        different: dict[str, int] = {}
        for key, fingerprint in sorted(samples):
            different.setdefault(fingerprint, key)
        return list(different.values())[: self.size]
