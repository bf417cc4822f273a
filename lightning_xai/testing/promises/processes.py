"""What an explanation keeps where several processes train one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_xai.flow.namespaces import NAMESPACES, Trainer
from lightning_xai.testing.assertions import Make, assert_scalars
from lightning_xai.testing.project import Project
from lightning_xai.testing.runs import fit


class Writing(NAMESPACES[-1].Callback):  # type: ignore[misc]
    """Writes down what each process has at the end: its scalars, its weights, and the samples that are explained."""

    def __init__(self, folder: Path, explanation: Any = None) -> None:
        self.folder, self.explanation = folder, explanation

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        explained = None if self.explanation is None else self.explanation.explained
        seen = {
            "scalars": {tag: float(value) for tag, value in trainer.callback_metrics.items() if tag.startswith("xai/")},
            "weights": [parameter.detach().double().sum().item() for parameter in pl_module.parameters()],
            "probe": None if explained is None else explained.fingerprint,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(seen))

    def read(self) -> list[dict[str, Any]]:
        """By rank."""
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.json"))]


def reads_the_same_on_every_rank(make: Make, project: Project, folder: Path) -> None:
    """Under DDP training is as without the callback, every process has the same scalars, and the samples that are
    explained are those of a single process."""
    alone = make(on_error="raise", shown=2)
    fit(project, folder / "alone", alone, max_epochs=1)
    processes: dict[str, Any] = {"strategy": "ddp_fork", "devices": 2, "max_epochs": 1, "use_distributed_sampler": True}
    without = Writing(folder / "without")
    fit(project, folder / "a", without, **processes)
    callback = make(on_error="raise", shown=2)
    explained = Writing(folder / "explained", callback)
    fit(project, folder / "b", callback, explained, **processes)
    ranks, plain = explained.read(), without.read()
    assert len(ranks) == len(plain) == 2, f"{len(ranks)} of 2 processes came to the end"
    for number, (rank, other) in enumerate(zip(ranks, plain, strict=True)):
        assert rank["weights"] == other["weights"], f"process {number} trains another model than without the callback"
        assert_scalars(rank["scalars"], ranks[0]["scalars"], f"on process {number}", tolerance=0)
    assert ranks[0]["scalars"], "no scalar is logged under DDP"
    assert alone.explained is not None
    assert {rank["probe"] for rank in ranks} == {alone.explained.fingerprint}, "two processes explain other samples"
