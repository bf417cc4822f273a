"""TCAV: how much the classes depend on human concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_xai.callbacks.base import Explanation
from lightning_xai.callbacks.namespaces import LightningModule
from lightning_xai.callbacks.run import Run
from lightning_xai.concept import Concept, random_sets
from lightning_xai.functional.activations import activations, earlier_layer, layer_gradients
from lightning_xai.functional.cav import fit_cavs
from lightning_xai.functional.layers import find_layers
from lightning_xai.functional.significance import LEVEL, beats_chance, check_test
from lightning_xai.functional.tcav import constant_gradient_message, score_concepts
from lightning_xai.probe import Inputs, Probe, map_tensors
from lightning_xai.reading import Measured, Reading, moments
from lightning_xai.report import Curve, Curves, Picture, Report

SCALARS = ("score", "lower", "upper", "effect", "effect_lower", "effect_upper", "p_value")
BATCH = 32


@dataclass(eq=False, kw_only=True)
class TCAV(Explanation):
    """How much the logit of a class depends on a concept at a layer, epoch after epoch (Kim et al. 2018).

    Logs under ``xai/<name>/<layer>/<class>/<concept>`` the ``score`` (share of positive derivatives) with its interval
    ``lower`` and ``upper``, the ``effect`` in logits with the band that random concepts give it, ``effect_lower`` and
    ``effect_upper``, and its ``p_value``; under ``xai/<name>/<layer>/cav_accuracy/<concept>`` how well the concept is
    told from random examples, held out; and as a picture ``xai/<name>/<layer>/effects`` the effects over the run. What
    does not beat random concepts is drawn hollow.

    Args:
        concepts: `Concept`s or folders of images, or one folder of such folders. Images of folders take size and
            normalisation from the probe, and need its ``mean`` and ``std``.
        layers: names or patterns. Before global average pooling and one linear layer take an earlier one.
        classes: class indices.
        randoms: what random sets are drawn from: a map-style dataset, tensors, or a folder of images; by default the
            validation dataset. Never augmented training data: these make random concepts significant.
        random_sets: how many.
        probe_per_class: samples of each class in the automatic probe.
        classifier: ``"logistic"``, ``"ridge"``, ``"svm"`` or ``"mean"``.
        C: inverse regularisation, the same at every scale of activations.
        pool: ``"mean"`` averages space: faster, blind to position.
        test: ``"t"``, or ``"rank"``, which needs 20 m - 1 random sets for m concepts.
        seed: of the random sets.

    The other settings are those of every explanation; ``target`` has no meaning here.
    """

    concepts: list[Concept | str] | str
    layers: str | list[str]
    classes: list[int]
    randoms: Any = None
    random_sets: int = 10
    probe_per_class: int = 32
    classifier: Literal["logistic", "ridge", "svm", "mean"] = "logistic"
    C: float = 1.0
    pool: Literal["mean", "mean_last"] | None = None
    test: Literal["t", "rank"] = "t"
    seed: int = 0

    def __post_init__(self) -> None:
        self.at_least_one("random_sets", "probe_per_class")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes={self.classes} must be one or more different class indices")
        if isinstance(self.concepts, str):
            self.concepts = [str(folder) for folder in Concept.folders_in(self.concepts)]
        self.concept_names = [Path(c).name if isinstance(c, str) else c.name for c in self.concepts]
        if not self.concepts or len(set(self.concept_names)) < len(self.concepts):
            raise ValueError(f"the concepts {self.concept_names} need different names, and there must be one or more")
        check_test(self.test, len(self.concepts), self.random_sets)
        self._sets: dict[str, list[Inputs]] | None = None
        super().__post_init__()

    @property
    def method(self) -> str:
        return "tcav"

    def wanted(self) -> tuple[int, list[int]]:
        return self.probe_per_class * len(self.classes), self.classes

    def identity(self) -> dict[str, Any]:
        return {"layers": self.layers, "classes": self.classes, "concepts": self.concept_names, "seed": self.seed}

    def resolve(self, model: LightningModule) -> None:
        self.layer_names = {name: name for name in find_layers(model, self.layers)}
        self._sets = None
        if isinstance(self.probe, Probe):
            self._of_classes(self.probe)

    def scalars(self, probe: Probe | None) -> list[str]:
        return [
            *(f"{tag}/{name}" for tag in self._concept_tags() for name in SCALARS),
            *(
                f"{self.tag}/{layer}/{self._class_tag(c)}/zero_gradients"
                for layer in self.layer_names
                for c in self.classes
            ),
            *(f"{self.tag}/{layer}/cav_accuracy/{c}" for layer in self.layer_names for c in self.concept_names),
            *(
                f"{self.tag}/{layer}/cav_cosine/{first}/{second}"
                for layer in self.layer_names
                for first, second in combinations(self.concept_names, 2)
            ),
        ]

    def charts(self) -> dict[str, list[str]]:
        return {
            tag.removeprefix("xai/"): [f"{tag}/effect", f"{tag}/effect_lower", f"{tag}/effect_upper"]
            for tag in self._concept_tags()
        }

    def _concept_tags(self) -> list[str]:
        return [
            f"{self.tag}/{layer}/{self._class_tag(number)}/{concept}"
            for layer in self.layer_names
            for number in self.classes
            for concept in self.concept_names
        ]

    def _class_tag(self, number: int) -> str:
        # a name only where it is told: one found in the data would change the tags after the first reading
        return str(number) if self.class_names is None else self.class_names[number].replace("/", "_")

    def measure(self, run: Run, probe: Probe) -> Measured:
        probe = self._of_classes(probe)
        assert probe.targets is not None
        if self._sets is None:
            self._sets = self._prepared(run)
        layers = list(self.layer_names)

        def forward(inputs: Any) -> Any:
            return run(map_tensors(inputs, lambda tensor: tensor.to(run.device)))

        found = {
            name: activations(run.model, iter(batches), layers, forward=forward, batch_size=BATCH)
            for name, batches in self._sets.items()
        }
        gradients = layer_gradients(run.model, probe.inputs, probe.targets, layers, forward=run, batch_size=BATCH)
        with torch.no_grad():
            outputs = [self.predictions(run(part.inputs), len(part)) for part in _chunks(probe)]
        rows = {key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}
        shared: dict[str, Tensor] = {}
        for layer in layers:
            concepts = {name: found[name].pop(layer) for name in self.concept_names}
            randoms = [found[name].pop(layer) for name in found if name not in concepts]
            cavs = fit_cavs(concepts, randoms, classifier=self.classifier, C=self.C, pool=self.pool)
            sensitivities = cavs.sensitivities(gradients.pop(layer))
            scores = score_concepts(
                sensitivities,
                probe.targets,
                names=cavs.names,
                separation=cavs.separation,
                classes=self.classes,
                test=self.test,
            )
            if scores.constant_gradient.any():
                better = earlier_layer(run.model, probe.inputs, probe.targets, find_layers(run.model, layer)[layer])
                self.say(constant_gradient_message(layer, better))
            rows |= {f"{part}/{layer}": getattr(sensitivities, part) for part in ("derivatives", "null_effects")}
            shared |= {f"{part}/{layer}": getattr(scores, part) for part in (*SCALARS, "zero_gradients")}
            shared |= {f"{part}/{layer}": getattr(cavs, part) for part in ("accuracy", "separation", "cosines")}
            shared[f"directed/{layer}"] = beats_chance(cavs.accuracy, cavs.examples) & ~cavs.degenerate
        return Measured(rows, shared)

    def report(self, measured: Measured, probe: Probe, history: Sequence[Reading]) -> Report:
        scalars: dict[str, float] = {}
        pictures: dict[str, Picture] = {}
        for layer in self.layer_names:
            shared = measured.shared
            for row, number in enumerate(self.classes):
                tag = f"{self.tag}/{layer}/{self._class_tag(number)}"
                scalars[f"{tag}/zero_gradients"] = float(shared[f"zero_gradients/{layer}"][row])
                for column, concept in enumerate(self.concept_names):
                    values = {name: float(shared[f"{name}/{layer}"][row, column]) for name in SCALARS}
                    scalars |= {f"{tag}/{concept}/{name}": value for name, value in values.items()}
            accuracy = shared[f"accuracy/{layer}"].mean(1).tolist()
            for concept, value in zip(self.concept_names, accuracy, strict=True):
                scalars[f"{self.tag}/{layer}/cav_accuracy/{concept}"] = value
            for (i, first), (j, second) in combinations(enumerate(self.concept_names), 2):
                cosine = float(shared[f"cosines/{layer}"][i, j])
                scalars[f"{self.tag}/{layer}/cav_cosine/{first}/{second}"] = cosine
            pictures[f"{self.tag}/{layer}/effects"] = self._curves(layer, probe, history)
        return Report(history[-1].epoch, scalars, pictures)

    def _curves(self, layer: str, probe: Probe, history: Sequence[Reading]) -> Curves:
        def series(name: str, row: int, column: int) -> list[float]:
            return [float(reading.measured.shared[f"{name}/{layer}"][row, column]) for reading in history]

        panels = {}
        for row, number in enumerate(self.classes):
            panels[probe.label(number)] = [
                Curve(
                    concept,
                    series("effect", row, column),
                    series("effect_lower", row, column),
                    series("effect_upper", row, column),
                    [
                        bool(reading.measured.shared[f"directed/{layer}"][column]) and p <= LEVEL
                        for reading, p in zip(history, series("p_value", row, column), strict=True)
                    ],
                )
                for column, concept in enumerate(self.concept_names)
            ]
        x, x_label = moments(history)
        return Curves(
            panels,
            x,
            x_label,
            "effect on the class logit",
            f"Concept effects at {layer}, {x_label} {x[-1]:.0f}",
            f"Band: what {self.random_sets} random sets give in the concept's place. Hollow: not above it (p > {LEVEL} "
            "after Holm), or the layer does not tell the concept from random examples.",
        )

    def _of_classes(self, probe: Probe) -> Probe:
        """The probe's samples of the classes asked for."""
        labels = [] if probe.targets is None else probe.targets.tolist()
        if absent := [number for number in self.classes if number not in labels]:
            there = f"labels {sorted(set(labels))}" if labels else "no labels"
            raise ValueError(
                f"classes={self.classes}, but the probe has no sample of {absent}: it has {there}. Give a probe with "
                "labels of these classes, or other classes"
            )
        return probe[[index for index, label in enumerate(labels) if label in self.classes]]

    def _prepared(self, run: Run) -> dict[str, list[Inputs]]:
        """Concepts and random sets in batches, as the model takes them, kept on the CPU."""
        concepts = [self._concept(given) for given in self.concepts]
        pool, ready = self.randoms if self.randoms is not None else run.dataset, False
        if isinstance(pool, str):
            folder = self._concept(pool)
            pool, ready = folder.examples, folder.prepared
        size = min(len(concept) for concept in concepts)
        drawn = random_sets(pool, self.random_sets, size, self.seed)
        sets = {concept.name: Probe(concept.examples, prepared=concept.prepared) for concept in concepts}
        sets |= {f"random {index}": Probe(inputs, prepared=ready) for index, inputs in enumerate(drawn)}
        number = sum(-(-len(examples) // BATCH) for examples in sets.values())
        self.say(
            f"a reading runs {number} batches of up to {BATCH} examples ({len(concepts)} concepts, {self.random_sets} "
            f"random sets of {size}), and the probe of {self.wanted()[0]} twice"
        )
        return {name: [run.prepare(part).to("cpu").inputs for part in _chunks(given)] for name, given in sets.items()}

    def _concept(self, given: Concept | str) -> Concept:
        if isinstance(given, Concept):
            return given
        found = Concept.from_folder(given, like=self.explained)
        if isinstance(found, list):
            raise ValueError(f"{given} holds folders: give one folder of images")
        return found


def _chunks(probe: Probe) -> list[Probe]:
    return [probe[start : start + BATCH] for start in range(0, len(probe), BATCH)]
