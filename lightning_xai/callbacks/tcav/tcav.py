"""TCAV: how much the classes depend on human concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any, Literal

from torch import Tensor

from lightning_xai.attempt import attempt
from lightning_xai.batches import Inputs
from lightning_xai.callbacks.tcav.example_sets import BATCH, ExampleSets, on_device
from lightning_xai.callbacks.tcav.reservoir import Reservoir
from lightning_xai.callbacks.tcav.state import TCAVState
from lightning_xai.concept import Concept
from lightning_xai.example_sources.folders import images_in
from lightning_xai.explanation.features import Features
from lightning_xai.flow.capture import of_classes
from lightning_xai.flow.loaders import most_samples
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.flow.namespaces import LightningModule, Trainer
from lightning_xai.flow.sampling import collect
from lightning_xai.functional.activations import activations, earlier_layer, layer_gradients
from lightning_xai.functional.concepts.directions import CAVs, Sensitivities
from lightning_xai.functional.fit_cavs import fit_cavs
from lightning_xai.functional.layers import find_layers
from lightning_xai.functional.metrics.significance import check_test
from lightning_xai.functional.tcav import constant_gradient_message, score_concepts
from lightning_xai.pictures import Picture
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.reporting.effects import (
    SCALARS,
    all_scores,
    effect_curves,
    effect_scalars,
    is_constant,
    shared_directions,
)


@dataclass(eq=False, kw_only=True)
class TCAV(Features):
    """How much the logit of a class depends on a concept at a layer, epoch after epoch (Kim et al. 2018).

    Logs under ``xai/<name>/<layer>/<class>/<concept>`` the ``score`` (share of positive derivatives) with its interval
    ``lower`` and ``upper``, the ``effect`` in logits with the band that random concepts give it, ``effect_lower`` and
    ``effect_upper``, and its ``p_value``. Under ``xai/<name>/<layer>``: ``cav_accuracy/<concept>``, how well it is
    told from random examples, held out; ``cav_cosine/<concept>/<other>``, how alike their directions are;
    ``<class>/zero_gradients``, samples that say nothing; and as a picture ``effects``, the effects over the run, hollow
    where random concepts explain them.

    Args:
        concepts: `Concept`s or folders of images, or one folder of such folders. Images of folders take size and
            normalisation from the probe, which needs ``mean`` and ``std``.
        layers: names or patterns. Before global average pooling and one linear layer take an earlier one.
        classes: class indices.
        randoms: what random sets are drawn from: tensors, a folder of images, or a map-style dataset, of which a copy
            is read; by default the validation samples of the first epoch, as they pass by, of which as many are kept
            on the CPU as the sets take. Never augmented training data: these make random concepts significant.
        random_sets: how many, without common examples, each of as many as the smallest concept has, or as there are.
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

    probe_size: int = field(default=0, init=False, repr=False)
    state: TCAVState = field(init=False, repr=False)

    title, band = "Concept effects", "random concepts"
    identifying = ("layers", "classes", "concepts", "seed")
    scalars = SCALARS

    def __post_init__(self) -> None:
        self.at_least_one("random_sets", "probe_per_class")
        self.probe_size = self.probe_per_class * len(self.classes) or 1
        super().__post_init__()
        if isinstance(self.concepts, str):
            self.concepts = [str(folder) for folder in Concept.folders_in(self.concepts)]
        self._examples = ExampleSets(self.concepts, self.randoms, self.random_sets, self.seed)
        self.concept_names = self._examples.names
        if not self.concepts or len(set(self.concept_names)) < len(self.concepts):
            raise ValueError(f"the concepts {self.concept_names} need different names, and there must be one or more")
        self._check_classes()
        check_test(self.test, len(self.concepts), self.random_sets)

    def _check_classes(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes) or min(self.classes) < 0:
            raise ValueError(f"classes={self.classes} must be one or more different class indices")
        if self.class_names is not None and max(self.classes) >= len(self.class_names):
            raise ValueError(f"class {max(self.classes)} has no name among {len(self.class_names)} class_names")

    def new_state(self) -> TCAVState:
        return TCAVState(**vars(super().new_state()))

    def automatic_probe(self) -> tuple[int, list[int]]:
        """So many samples of each class, and of no other."""
        return self.probe_per_class * len(self.classes), self.classes

    def resolve(self, model: LightningModule) -> None:
        super().resolve(model)
        probe = None if self.probe is None else of_classes(self.load_probe(), self.classes)
        self._examples.check(probe)
        for text in self._examples.notices(self.automatic_probe()[0] if probe is None else len(probe)):
            self.say(text)
        if isinstance(self.randoms, str):
            self._say_if_small(self._examples.set_size(len(images_in(self.randoms))))
        elif self.randoms is not None and self.state.sets is None:
            self.state.random_probes = self._examples.draw()
            self._say_if_small(len(self.state.random_probes[0]))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        available = None if self.randoms is not None else most_samples(trainer, self.probe_loader)
        if available is not None:
            self._examples.set_size(available)  # raises where they are too few

    def _say_if_small(self, size: int) -> None:
        if (notice := self._examples.size_notice(size)) is not None:
            self.say(notice)

    def things(self, probe: Probe | None) -> dict[str, Sequence[str]]:
        """Layers, classes, concepts, and their pairs."""
        pairs = [f"{first}/{second}" for first, second in combinations(self.concept_names, 2)]
        classes, concepts = self.class_tags, self.concept_names
        return {"layer": list(self.layer_names), "class": classes, "concept": concepts, "pair": pairs}

    @property
    def class_tags(self) -> list[str]:
        # names only of the setting: those found in the data would change the tags after the first reading
        names = self.class_names
        return [str(number) if names is None else names[number].replace("/", "_") for number in self.classes]

    # -- random samples that pass by ----------------------------------------------------------------------------

    @property
    def _lacks_randoms(self) -> bool:
        return self.randoms is None and self.state.sets is None and self.state.random_probes is None

    def look_at(self, trainer: Trainer, batch: Any, *, keep: bool) -> None:
        """Take random counterparts of the batches as well, where none are given."""
        super().look_at(trainer, batch, keep=keep)
        if keep and self._lacks_randoms:
            collect(self, self._reservoir(trainer), batch, "no random counterparts could be taken from the batches")

    def _reservoir(self, trainer: Trainer) -> Reservoir:
        if self.state.reservoir is None:
            size = self.random_sets * min(self._examples.sizes)
            self.state.reservoir = Reservoir(size, self.seed, trainer.global_rank, trainer.world_size)
        return self.state.reservoir

    def settle(self, trainer: Trainer) -> None:
        """Make random sets of what passed by, the same on every rank."""
        super().settle(trainer)
        if self._lacks_randoms:
            state, reservoir = self.state, self._reservoir(trainer)
            state.reservoir = None
            # every rank holds the same samples by then; what fails is told by the reading
            state.random_probes, state.random_error = attempt(lambda: self._examples.join(reservoir.merge(trainer)))

    @property
    def is_ready(self) -> bool:
        """Not before a validation: there is nothing to compare with, and no earlier value to log again."""
        return not self._lacks_randoms or bool(self.state.logged)

    # -- what is measured ---------------------------------------------------------------------------------------

    def prepare(self, run: ModelRun, probe: Probe) -> dict[str, Tensor]:
        """The directions of all concepts at each layer; what they were fitted to is forgotten with the reading."""
        of_classes(probe, self.classes)
        state = self.state
        if state.sets is None:
            if self._lacks_randoms:
                raise state.random_error or ValueError(
                    "no samples have passed by to make random sets of: give randoms="
                )
            state.sets = self._examples.prepare(run, probe, state.random_probes)
            self._say_if_small(sum(len(Probe(batch)) for batch in state.sets.randoms[0]))
            state.random_probes = None
        layers = list(self.layer_names)

        def by_layer(batches: Sequence[Inputs]) -> dict[str, Tensor]:
            return activations(run.model, on_device(batches, run.device), layers, forward=run, batch_size=BATCH)

        concepts = {name: by_layer(batches) for name, batches in state.sets.concepts.items()}
        randoms = [by_layer(batches) for batches in state.sets.randoms]
        shared: dict[str, Tensor] = {}
        for layer in layers:
            of_concepts = {name: tensors.pop(layer) for name, tensors in concepts.items()}
            cavs = self._fit(layer, of_concepts, [tensors.pop(layer) for tensors in randoms])
            run.aside[layer] = cavs
            shared |= {f"{key}/{layer}": tensor for key, tensor in shared_directions(cavs, self.concept_names).items()}
        return shared

    def _fit(self, layer: str, concepts: dict[str, Tensor], randoms: list[Tensor]) -> CAVs:
        sound = {name: tensor for name, tensor in concepts.items() if tensor.isfinite().all()}
        for name in concepts.keys() - sound.keys():
            self.say(f"concept {name!r} has NaN or infinity at layer {layer!r}: it is left out there")
        # where none is sound, the error of all names the first
        return fit_cavs(sound or concepts, randoms, classifier=self.classifier, C=self.C, pool=self.pool)

    def measure(self, run: ModelRun, probe: Probe) -> Measured:
        """What the directions say of each sample."""
        assert probe.targets is not None
        layers = list(self.layer_names)
        gradients = layer_gradients(
            run.model, probe.inputs, probe.targets, layers, forward=run.on_probe, batch_size=len(probe)
        )
        rows: dict[str, Tensor] = {}
        for layer in layers:
            sensitivities = run.aside[layer].sensitivities(gradients.pop(layer))
            rows |= {f"{f.name}/{layer}": getattr(sensitivities, f.name) for f in fields(sensitivities)}
            if layer not in self.state.constant and is_constant(sensitivities, probe.targets):
                self.state.constant.add(layer)
                module = find_layers(run.model, layer)[layer]
                better = earlier_layer(run.model, probe.inputs, probe.targets, module, forward=run)
                self.say(constant_gradient_message(layer, better).removesuffix("."))
        return Measured(rows)

    def weights(self, probe: Probe, reading: Reading) -> dict[str, float]:
        """The scores and effects of each layer."""
        numbers: dict[str, float] = {}
        for layer in self.layer_names:
            scores = self.scores_of(layer, probe, reading)
            values = effect_scalars(layer, scores, reading.measured.shared, self.class_tags, self.concept_names)
            numbers |= {f"{layer}/{name}": value for name, value in values.items()}
        return numbers

    def curves(self, probe: Probe, history: Sequence[Reading]) -> dict[str, Picture]:
        """The effects of each layer, one panel a class, hollow what random concepts explain."""
        titles = [f"class {probe.label(number)}" for number in self.classes]
        return {
            f"{layer}/effects": effect_curves(
                f"{self.tag}/{layer}",
                layer,
                history,
                dict(zip(self.class_tags, titles, strict=True)),
                self.concept_names,
                self.random_sets,
                constant=bool(self.scores_of(layer, probe, history[-1])["constant_gradient"].any()),
            )
            for layer in self.layer_names
        }

    def scores_of(self, layer: str, probe: Probe, reading: Reading) -> dict[str, Tensor]:
        """The scores of all concepts, (classes, concepts) each."""
        assert probe.targets is not None
        rows, shared = reading.measured.rows, reading.measured.shared
        sensitivities = Sensitivities(**{f.name: rows[f"{f.name}/{layer}"] for f in fields(Sensitivities)})
        sound = shared[f"sound/{layer}"]
        names = [name for name, is_sound in zip(self.concept_names, sound.tolist(), strict=True) if is_sound]
        scores = score_concepts(
            sensitivities,
            probe.targets.cpu(),
            names=names,
            separation=shared[f"separation/{layer}"][sound],
            classes=self.classes,
            test=self.test,
        )
        return all_scores(scores, sound)
