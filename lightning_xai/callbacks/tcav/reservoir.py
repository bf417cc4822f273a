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
    _kept: dict[int, Probe] = field(default_factory=dict)
    _seen: int = 0

    def add(self, batch: Any) -> None:
        """Look at a batch that has been through the transfer hooks; what is kept of it is cloned."""
        with torch.inference_mode(False), torch.no_grad():
            samples = Probe(split_batch(batch)[0], prepared=True)
            keys = {self._key(place): place for place in range(len(samples))}
            self._seen += len(samples)
            last = max(self._kept) if len(self._kept) >= self.size else None
            entering = sorted(key for key in keys if last is None or key < last)[: self.size]
            if not entering:
                return
            rows = clone(samples[[keys[key] for key in entering]])
            kept = self._kept | {key: rows[[row]] for row, key in enumerate(entering)}
            self._kept = {key: kept[key] for key in self._first((k, sample.fingerprint) for k, sample in kept.items())}

    def merge(self, trainer: Trainer) -> list[Probe]:
        """The draw from all ranks in random order, the same on each of them. Collective."""
        broadcast = trainer.strategy.broadcast
        mine = {key: sample.fingerprint for key, sample in self._kept.items()}
        offers: list[dict[int, str]] = [broadcast(mine, src=rank) for rank in range(self.world_size)]
        chosen = self._first(pair for offer in offers for pair in offer.items())
        parts: dict[int, Probe] = {}
        for rank, offer in enumerate(offers):
            if wanted := offer.keys() & set(chosen):
                parts |= broadcast({key: self._kept[key] for key in wanted & self._kept.keys()}, src=rank)
        return [parts[key] for key in chosen]

    def _key(self, place: int) -> int:
        position = (self._seen + place) * self.world_size + self.rank
        return int.from_bytes(blake2b(f"{self.seed} {position}".encode(), digest_size=8).digest(), "big")

    def _first(self, samples: Iterable[tuple[int, str]]) -> list[int]:
        """The smallest keys of different fingerprints."""
        different: dict[str, int] = {}
        for key, fingerprint in sorted(samples):
            different.setdefault(fingerprint, key)
        return list(different.values())[: self.size]
