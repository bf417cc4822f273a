"""AttentionMaps: what the attention of a model looks at, and what of it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.callbacks.attention_maps.passes import (
    entropies,
    is_inside,
    of_real_queries,
    one_sequence,
    relevance_rows,
)
from lightning_xai.callbacks.attention_maps.positions import Placement
from lightning_xai.explanation.maps import MAP_SCALARS, MASK_SCALARS, Maps, largest
from lightning_xai.flow.import_paths import import_object
from lightning_xai.flow.model_run import ModelRun
from lightning_xai.flow.namespaces import LightningModule
from lightning_xai.functional.attention_maps import attention_maps
from lightning_xai.functional.attention_rollout import attention_rollout
from lightning_xai.functional.layers import close_matches, find_layers
from lightning_xai.functional.metrics.attention import mean_of, share_sums
from lightning_xai.functional.passes.explained import token_ids
from lightning_xai.pictures import Picture
from lightning_xai.probe import Probe
from lightning_xai.reading import Measured, Reading
from lightning_xai.report import Report, Scalar, TableRow
from lightning_xai.reporting.heatmaps import heatmap_pictures, heatmap_rows, heatmap_scalars
from lightning_xai.reporting.tokens import LONGEST, matrix_picture, sequence_picture

LAYERS = 24
SUMS = ("entropy", "distance", "special")
TITLES = {"rollout": "Attention rollout", "relevance": "Relevance (gradient-weighted attention)"}
_UNUSED = ("peak", "zero_maps", "nan_maps")  # of heatmaps: weights are never zero everywhere


@dataclass(eq=False, kw_only=True)
class AttentionMaps(Maps):
    """What every attention of a model looks at, for the same samples, epoch after epoch.

    Logs under ``xai/<name>/<layer>`` the attention of the query that decides: the class token of an image, else the
    mean over its cells; of a text the last token where attention is causal, or crosses over to another sequence, else
    the first. Beside the layers stand ``rollout``, their attention multiplied up (Abnar and Zuidema 2020), and
    ``relevance``, attention weighted by its gradient (Chefer et al. 2021): attention alone says where a model looks,
    not what counts. Images get overlays and a ``/filmstrip``, texts their tokens in colour, sequences strips.

    Scalars of a layer: ``entropy`` (1 uniform, 0 a single key; a collapse is a known sign of unstable training),
    ``distance`` (of images, over their diagonal), ``special`` (share on ``[CLS]``, ``<s>`` and their kin) and
    ``drift`` (share that moved since the last reading), which rollout and relevance have as well; for a probe with
    masks also ``share/<mask>``, ``lift/<mask>`` and ``pointing/<mask>``.

    Args:
        layers: names or patterns; what runs inside of them counts as theirs. None takes all attention, and of more
            than 24 layers the first 24.
        matrices: names or patterns of layers whose whole matrices are shown, one panel a head.
        extract: by layer name, a function of a call's (module, args, kwargs, output) that returns its weights
            (N, heads, queries, keys), for kernels that hide them.
        decode: a function of one sample's token ids (L,) that returns its tokens, where the probe has none.

    The other settings are those of every explanation; ``target`` is what relevance speaks for. ``scale`` is ``"run"``,
    which draws a layer on one colour scale, the largest value so far, or ``"image"``: each image, or line of a text, on
    its own.
    """

    layers: str | list[str] | None = None
    matrices: str | list[str] | None = None
    extract: dict[str, str | Callable[..., Tensor]] | None = None
    decode: str | Callable[[Tensor], Sequence[str]] | None = None

    identifying = ("layers",)
    importable = (*Maps.importable, "extract", "decode")
    scalars = (
        Scalar("{layer}/entropy", "mean entropy of its rows: 1 uniform, 0 a single key"),
        Scalar("{layer}/distance", "mean distance from a cell to what it looks at, over the image's diagonal"),
        Scalar("{layer}/special", "share on tokens that stand for no text"),
        *(scalar for scalar in (*MAP_SCALARS, *MASK_SCALARS) if not scalar.name.endswith(_UNUSED)),
    )

    def __post_init__(self) -> None:
        if isinstance(self.decode, str):
            self.decode = import_object(self.decode)
        super().__post_init__()

    def resolve(self, model: LightningModule) -> None:
        for layers in (self.layers, self.matrices, list(self.extract or {}) or None):
            if layers is not None:
                find_layers(model, layers)
        self._extracts = {
            layer: import_object(function) if isinstance(function, str) else function
            for layer, function in (self.extract or {}).items()
        }

    def declared(self, probe: Probe | None) -> list[Scalar]:
        """Nothing before the first reading, or that of an earlier part of the run, has seen which attention runs."""
        names = [tag.removeprefix(f"{self.tag}/") for tag in self.state.logged]
        pairs = ((name, next((s for s in self.scalars if s.fits(name)), None)) for name in names)
        return [replace(scalar, name=name).under(self.tag) for name, scalar in pairs if scalar is not None]

    @property
    def title(self) -> str:
        """Each layer has a title of its own."""
        return "Attention"

    def displayed(self, probe: Probe) -> Probe:
        probe = super().displayed(probe)
        ids = token_ids(probe.inputs)
        if probe.tokens is not None or not callable(self.decode) or ids is None:
            return probe
        try:
            return replace(probe, tokens=[[str(token) for token in self.decode(row)] for row in ids.cpu()])
        except Exception as error:
            if self.on_error == "raise":
                raise
            self.warn(error, "decode= made no tokens of the probe, so it is shown without")
            return probe

    # -- what is measured ---------------------------------------------------------------------------------------

    def maps(self, run: ModelRun, probe: Probe) -> dict[str, Tensor]:
        """By layer, and what goes through all; beside them, in ``run.rows``, what scalars and pictures take."""
        inputs = probe.inputs
        means = attention_maps(run.model, inputs, heads="mean", extract=self._extracts, forward=run.on_probe)
        placement = Placement(probe, run.model, lambda: run(inputs), means)
        if placement.tokens_error is not None:
            self.say(f"the tokens do not fit, so they are not shown: {placement.tokens_error}")
        logged = {layer: means[layer] for layer in self._logged_layers(run.model, means)}
        self.layer_names = {layer: layer for layer in logged}
        sums = entropies(run, inputs, placement, logged, means, self._extracts)
        run.rows |= {f"entropy/{layer}": values for layer, values in sums.items()}
        each_sample = torch.ones(len(probe), dtype=torch.bool, device="cpu")
        run.rows |= {f"decoder/{layer}": each_sample for layer in placement.decoder}
        run.rows |= {f"foreign/{layer}": each_sample for layer in placement.decoder_self}
        maps: dict[str, Tensor] = {}
        for layer, mean in logged.items():
            special = None if layer in placement.decoder_self else placement.special
            if special is not None and mean.shape[3] == special.shape[1]:
                real = of_real_queries(mean, placement.real_queries(layer, mean.shape[2]))
                run.rows[f"special/{layer}"] = share_sums(real, special.to(mean.device))
            try:
                positions = placement.positions(layer, mean)
            except ValueError as error:
                self.say(str(error))
                continue
            maps[layer] = positions.lay_out(mean[:, 0])
            if (distances := positions.distances(mean)) is not None:
                run.rows[f"distance/{layer}"] = distances
        maps |= self._through_all(run, probe, placement, means)
        if self.matrices is not None:
            run.rows |= self._matrices(run, inputs, placement)
        if placement.real is not None:
            run.rows["real"] = placement.real
        return maps

    def _through_all(
        self, run: ModelRun, probe: Probe, placement: Placement, means: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Rollout and relevance, each where the model allows it."""
        maps: dict[str, Tensor] = {}
        is_one_sequence = one_sequence(means, len(probe))
        try:
            if self._extracts:
                raise ValueError("the weights of extract= have no gradient")
            targets = self.targets(probe)
            maps["relevance"], is_one_sequence = relevance_rows(run, probe.inputs, targets, placement, means)
        except ValueError as error:
            self.say(f"no relevance is shown: {error}")
        if is_one_sequence:
            positions = placement.positions("rollout", next(iter(means.values())))
            maps["rollout"] = positions.lay_out(attention_rollout(means))
        else:
            self.say("no rollout is shown: its layers do not all attend to one sequence")
        return maps

    def _logged_layers(self, model: nn.Module, maps: Mapping[str, Tensor]) -> list[str]:
        """The layers that are logged, of all whose attention was seen."""
        layers = list(maps)
        if self.layers is not None:
            named = find_layers(model, self.layers)
            layers = [layer for layer in maps if any(is_inside(layer, name) for name in named)]
            if not layers:
                seen = ", ".join(list(maps)[:8]) + (f" and {len(maps) - 8} more" if len(maps) > 8 else "")
                close = close_matches(next(iter(named)), maps)
                raise ValueError(f"no attention runs in layers={self.layers!r}.{close} Attention was seen in: {seen}")
        if len(layers) > LAYERS:
            self.say(
                f"attention runs in {len(layers)} of the layers; the first {LAYERS} are logged, choose with layers="
            )
        return layers[:LAYERS]

    def _matrices(self, run: ModelRun, inputs: Any, placement: Placement) -> dict[str, Tensor]:
        assert self.matrices is not None
        maps = attention_maps(run.model, inputs, layers=self.matrices, extract=self._extracts, forward=run)
        rows = {}
        for layer, matrix in maps.items():
            if len(matrix) != placement.samples:
                self.say(f"{layer!r} attends inside windows: its matrices are not shown")
                continue
            if max(matrix.shape[2:]) > LONGEST:
                self.say(
                    f"the matrices of {layer!r} are {tuple(matrix.shape[2:])}: the first {LONGEST} tokens are kept"
                )
            rows[f"matrices/{layer}"] = matrix[:, :, :LONGEST, :LONGEST]
        return rows

    # -- what is said of it -------------------------------------------------------------------------------------

    def report(self, probe: Probe, history: Sequence[Reading]) -> Report:
        """Pictures of each layer and of what goes through all, matrices, the scalars, and the table of relevance."""
        epoch, measured, shown = history[-1].epoch, history[-1].measured, probe[: self.shown]
        scalars = {f"{self.tag}/{name}": value for name, value in _values(probe, history)}
        pictures: dict[str, Picture] = {}
        tables: dict[str, list[TableRow]] = {}
        for key in _with(measured, "maps/"):
            row, tag = f"maps/{key}", f"{self.tag}/{key}"
            title = f"{TITLES.get(key, f'Attention of {key}')}, epoch {epoch}"
            scale = largest(key, history) if self.scale == "run" else None
            if measured.rows[row].ndim == 2:
                sequence = shown if f"foreign/{key}" not in measured.rows else replace(shown, tokens=None)
                pictures[tag] = sequence_picture(row, title, sequence, history, scale)
                continue
            of_layer = heatmap_pictures(row, title, shown, history, scale)
            pictures |= {f"{tag}{suffix}": picture for suffix, picture in of_layer.items()}
            if key == "relevance":
                tables[f"{tag}/samples"] = heatmap_rows(row, shown, measured, scale)
        for layer in _with(measured, "matrices/"):
            title = f"Attention of {layer}, epoch {epoch}"
            pictures[f"{self.tag}/{layer}/matrix"] = matrix_picture(
                f"matrices/{layer}", title, shown, history, decoder=f"decoder/{layer}" in measured.rows
            )
        return Report(epoch, scalars, pictures, tables)


def _with(measured: Measured, prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in measured.rows if key.startswith(prefix)]


def _values(probe: Probe, history: Sequence[Reading]) -> Iterator[tuple[str, float]]:
    """The scalars of the latest reading, by ``<layer>/<scalar>``."""
    measured = history[-1].measured
    for scalar in SUMS:
        yield from (
            (f"{layer}/{scalar}", mean_of(measured.rows[f"{scalar}/{layer}"]))
            for layer in _with(measured, f"{scalar}/")
        )
    for key in _with(measured, "maps/"):
        image = measured.rows[f"maps/{key}"].ndim == 3
        scalars = heatmap_scalars(f"maps/{key}", probe if image else replace(probe, masks=None), history)
        yield from ((f"{key}/{name}", value) for name, value in scalars.items() if name not in _UNUSED)
