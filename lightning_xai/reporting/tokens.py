"""Weights along sequences, described: tokens in colour, matrices, and strips where there are no tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_xai.probe import Probe
from lightning_xai.reading import Reading, moments
from lightning_xai.report import Matrix, Picture, Tokens, Traces
from lightning_xai.reporting.heatmaps import sample_captions, spread
from lightning_xai.tensors import tensors

SAMPLES, LINES, LONGEST = 8, 8, 128
MATRIX_SAMPLES = 4
_SPECIAL = re.compile(r"(\[(CLS|SEP|PAD|MASK|BOS|EOS)\]|</?(s|pad|mask|bos|eos|cls|sep)>|<\|.*\|>)", re.IGNORECASE)


def is_special(token: str) -> bool:
    """Whether a token stands for no text: ``[CLS]``, ``<s>``, ``<|endoftext|>`` and their kin."""
    return _SPECIAL.fullmatch(token.strip()) is not None


def placed_tokens(probe: Probe, real: Tensor) -> list[tuple[list[int], list[str]]]:
    """Each sample's tokens without padding, and their positions.

    Args:
        probe: with ``tokens``: as many as there are positions, or as many as are real.
        real: (N, L) bool, False where padded.

    Raises:
        ValueError: another number of tokens.
    """
    placed = []
    for sample, (tokens, row) in enumerate(zip(probe.tokens or [], real, strict=True)):
        positions = [int(place) for place in row.nonzero()]
        if len(tokens) == len(row):
            placed.append((positions, [tokens[place] for place in positions]))
        elif len(tokens) == len(positions):
            placed.append((positions, list(tokens)))
        else:
            raise ValueError(
                f"sample {sample} has {len(tokens)} tokens for {len(row)} positions, {len(positions)} of them no "
                "padding: give a string for each position, special tokens included, or for each that is no padding"
            )
    return placed


def sequence_picture(key: str, title: str, probe: Probe, history: Sequence[Reading], scale: float | None) -> Picture:
    """The tokens coloured by ``rows[key]`` (N, L), a line a reading; strips of the latest where no tokens fit."""
    shown = spread(key, len(probe), history, LINES)
    latest = shown[-1].measured.rows[key][: len(probe)]
    captions = sample_captions(probe, shown[-1].measured)
    placed = _placed(probe, shown[-1].measured.rows, latest.shape[1])
    if not any(tokens for _, tokens in placed):
        return Traces(_signals(probe, latest.shape[1]), latest, captions, scale, title)
    places, unit = moments(shown)
    maps = torch.stack([reading.measured.rows[key][: len(probe)] for reading in shown], 1)
    some = placed[:SAMPLES]
    return Tokens(
        tokens=[tokens[:LONGEST] for _, tokens in some],
        weights=[maps[sample][:, positions[:LONGEST]] for sample, (positions, _) in enumerate(some)],
        captions=[_counted(caption, tokens) for caption, (_, tokens) in zip(captions, some, strict=False)],
        lines=[f"{unit} {place}" for place in places],
        scale=scale,
        title=_of_samples(title, len(some), len(placed)),
    )


def matrix_picture(key: str, title: str, probe: Probe, history: Sequence[Reading], foreign: bool) -> Matrix:
    """The latest ``rows[key]`` (N, heads, queries, keys), without padding; whole where the sequence is ``foreign``,
    not the probe's."""
    measured = history[-1].measured
    maps = measured.rows[key]
    maps = maps[: len(probe)]
    captions = sample_captions(probe, measured)[:MATRIX_SAMPLES]
    rows, columns = (_placed(probe, {} if foreign else measured.rows, length) for length in maps.shape[2:])
    return Matrix(
        maps=[maps[i][:, rows[i][0]][:, :, columns[i][0]] for i in range(len(captions))],
        rows=[tokens for _, tokens in rows[: len(captions)]],
        columns=[tokens for _, tokens in columns[: len(captions)]],
        captions=captions,
        title=_of_samples(title, len(captions), len(maps)),
    )


def _placed(probe: Probe, rows: Mapping[str, Tensor], length: int) -> list[tuple[list[int], list[str]]]:
    """Per sample its positions without padding, and their tokens: none where there are none that fit.

    Args:
        probe: may have tokens.
        rows: may have ``real``.
        length: of the maps; cut to the first `LONGEST` where they are matrices.
    """
    real = rows.get("real")
    real = None if real is None else real[: len(probe)]
    if real is None or length not in (real.shape[1], min(real.shape[1], LONGEST)):
        return [(list(range(length)), [])] * len(probe)
    try:
        placed = placed_tokens(probe, real) if probe.tokens is not None else []
    except ValueError:
        placed = []
    placed = placed or [([int(place) for place in row.nonzero()], []) for row in real]
    return [
        ([p for p in positions if p < length], tokens[: sum(p < length for p in positions)])
        for positions, tokens in placed
    ]


def _signals(probe: Probe, length: int) -> Tensor | None:
    """(N, C, L) the sequences themselves, where they are few enough channels to draw."""
    for tensor in tensors(probe.inputs):
        if tensor.ndim == 3 and tensor.is_floating_point():
            for signals in (tensor, tensor.mT):
                if signals.shape[2] == length and signals.shape[1] <= 5:
                    return signals
    return None


def _counted(caption: str, tokens: Sequence[str]) -> str:
    if len(tokens) <= LONGEST:
        return caption
    return f"{caption}\nthe first {LONGEST} of {len(tokens)} tokens".lstrip()


def _of_samples(title: str, shown: int, of: int) -> str:
    return title if shown == of else f"{title}, the first {shown} of {of} samples"
