"""Weights along sequences, described: tokens in colour, matrices, and strips where there are no tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_xai.pictures import Matrix, Picture, Tokens, Traces
from lightning_xai.probe import Probe
from lightning_xai.reading import Reading, moments
from lightning_xai.reporting.heatmaps import comparable_readings, sample_captions
from lightning_xai.tensors import tensors

SAMPLES, LINES, LONGEST = 8, 8, 128
MATRIX_SAMPLES = 4
_SPECIAL = re.compile(r"(\[(CLS|SEP|PAD|MASK|BOS|EOS)\]|</?(s|pad|mask|bos|eos|cls|sep)>|<\|.*\|>)", re.IGNORECASE)


def is_special(token: str) -> bool:
    """Whether a token stands for no text: ``[CLS]``, ``<s>``, ``<|endoftext|>`` and their kin."""
    return _SPECIAL.fullmatch(token.strip()) is not None


def unpadded_tokens(probe: Probe, real: Tensor) -> list[tuple[list[int], list[str]]]:
    """Of each sample the positions that are no padding, and their tokens.

    Args:
        probe: with ``tokens``: as many as there are positions, or as many as are real.
        real: (N, L) bool, False where padded.

    Raises:
        ValueError: another number of tokens.
    """
    samples = []
    for sample, (tokens, row) in enumerate(zip(probe.tokens or [], real, strict=True)):
        positions = [int(position) for position in row.nonzero()]
        if len(tokens) == len(row):
            samples.append((positions, [tokens[position] for position in positions]))
        elif len(tokens) == len(positions):
            samples.append((positions, list(tokens)))
        else:
            raise ValueError(
                f"sample {sample} has {len(tokens)} tokens for {len(row)} positions, {len(positions)} of them no "
                "padding: give a string for each position, special tokens included, or for each that is no padding"
            )
    return samples


def sequence_picture(key: str, title: str, probe: Probe, history: Sequence[Reading], scale: float | None) -> Picture:
    """The tokens coloured by their weights, a line a reading; strips of the latest where no tokens fit.

    Args:
        key: of the weights (N, L) in ``rows``.
        title: one line above.
        probe: the samples that are shown.
        history: readings, of which as many as there is room for are drawn, the last among them.
        scale: the value that takes the last colour; None scales each line by its own maximum.
    """
    readings = comparable_readings(key, len(probe), history, LINES)
    latest = readings[-1].measured.rows[key][: len(probe)]
    captions = sample_captions(probe, readings[-1].measured)
    samples = _unpadded(probe, readings[-1].measured.rows, latest.shape[1])
    if not any(tokens for _, tokens in samples):
        return Traces(_signals(probe, latest.shape[1]), latest, captions, scale, title)
    x, unit = moments(readings)
    maps = torch.stack([reading.measured.rows[key][: len(probe)] for reading in readings], 1)
    drawn = samples[:SAMPLES]
    return Tokens(
        tokens=[tokens[:LONGEST] for _, tokens in drawn],
        weights=[maps[sample][:, positions[:LONGEST]] for sample, (positions, _) in enumerate(drawn)],
        captions=[_counted(caption, tokens) for caption, (_, tokens) in zip(captions, drawn, strict=False)],
        lines=[f"{unit} {number}" for number in x],
        scale=scale,
        title=_of_samples(title, len(drawn), len(samples)),
    )


def matrix_picture(key: str, title: str, probe: Probe, history: Sequence[Reading], decoder: bool) -> Matrix:
    """The latest ``rows[key]``, one panel a head, without padding.

    Args:
        key: of the matrices (N, heads, queries, keys).
        title: one line above.
        probe: the samples that are shown.
        history: readings, of which the last is drawn.
        decoder: whether they are of a decoder, whose sequence is not the probe's: then they are drawn whole.
    """
    measured = history[-1].measured
    maps = measured.rows[key][: len(probe)]
    captions = sample_captions(probe, measured)[:MATRIX_SAMPLES]
    rows, columns = (_unpadded(probe, {} if decoder else measured.rows, length) for length in maps.shape[2:])
    return Matrix(
        maps=[maps[i][:, rows[i][0]][:, :, columns[i][0]] for i in range(len(captions))],
        rows=[tokens for _, tokens in rows[: len(captions)]],
        columns=[tokens for _, tokens in columns[: len(captions)]],
        captions=captions,
        title=_of_samples(title, len(captions), len(maps)),
    )


def _unpadded(probe: Probe, rows: Mapping[str, Tensor], length: int) -> list[tuple[list[int], list[str]]]:
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
        samples = unpadded_tokens(probe, real) if probe.tokens is not None else []
    except ValueError:
        samples = []
    samples = samples or [([int(position) for position in row.nonzero()], []) for row in real]
    return [
        ([p for p in positions if p < length], tokens[: sum(p < length for p in positions)])
        for positions, tokens in samples
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
