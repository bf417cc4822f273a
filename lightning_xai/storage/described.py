"""A report as plain JSON and arrays, and back: what a store holds of it, readable without torch or any callback."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from lightning_xai.pictures import (
    Bars,
    Beeswarm,
    Curve,
    Curves,
    Filmstrip,
    Grid,
    Matrix,
    Overlay,
    Picture,
    Tokens,
    Traces,
)
from lightning_xai.report import Report, TableRow

Array: TypeAlias = "np.typing.NDArray[Any]"
Put: TypeAlias = Callable[[Array], str]
KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (Overlay, Grid, Traces, Tokens, Bars, Beeswarm, Matrix, Curves, Curve)
}
"""What can be made again; a picture of another kind is shown by its name alone."""


class Unknown(Picture):
    """A picture of a kind that this library does not have.

    Args:
        kind: its class's name.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind


def describe(report: Report, put: Put) -> dict[str, Any]:
    """The report as JSON values.

    Args:
        report: its film strips are left out: the readings are the film.
        put: keeps an array, and returns the word that it is found by.
    """
    pictures = {tag: picture for tag, picture in report.pictures.items() if not isinstance(picture, Filmstrip)}
    return {
        "epoch": report.epoch,
        "scalars": {tag: float(value) for tag, value in report.scalars.items()},
        "pictures": {tag: _plain(picture, put) for tag, picture in pictures.items()},
        "tables": {tag: [_row(row) for row in rows] for tag, rows in report.tables.items()},
    }


def restore(plain: Mapping[str, Any], get: Callable[[str], Array]) -> Report:
    """The report that `describe` made this of, its arrays from numpy."""
    pictures = {tag: _object(value, get) for tag, value in plain["pictures"].items()}
    tables = {tag: _table(rows, pictures.get(tag.removesuffix("/samples"))) for tag, rows in plain["tables"].items()}
    return Report(
        int(plain["epoch"]), dict(plain["scalars"]), pictures, {t: rows for t, rows in tables.items() if rows}
    )


def with_films(report: Report, earlier: Sequence[tuple[str, Report]]) -> Report:
    """The report with its film strips, made of the grids of readings, (column, report) pairs that end with this one."""
    pictures: dict[str, Picture] = {}
    for tag, picture in report.pictures.items():
        pictures[tag] = picture
        if isinstance(picture, Grid):
            grids = [(column, other.pictures.get(tag)) for column, other in earlier]
            alike = [(c, g) for c, g in grids if isinstance(g, Grid) and np.shape(g.maps) == np.shape(picture.maps)]
            maps: Any = np.stack([np.asarray(grid.maps) for _, grid in alike], 1)
            columns = [column for column, _ in alike]
            pictures[f"{tag}/filmstrip"] = Filmstrip(
                picture.images, maps, picture.captions, columns, picture.scale, picture.title, picture.signed
            )
    return replace(report, pictures=pictures)


def array_name(array: Array) -> str:
    """The same for the same content."""
    content = np.ascontiguousarray(array)
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(head + content.tobytes()).hexdigest()[:24]


def _plain(value: Any, put: Put) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, **{f.name: _plain(getattr(value, f.name), put) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {"mapping": [[str(key), _plain(item, put)] for key, item in value.items()]}
    if isinstance(value, (list, tuple, range)):
        return [_plain(item, put) for item in value]
    if hasattr(value, "__array__"):
        return {"array": put(_array(value))}
    return {"is": type(value).__name__}


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def _object(plain: Any, get: Callable[[str], Array]) -> Any:
    if isinstance(plain, list):
        return [_object(item, get) for item in plain]
    if not isinstance(plain, Mapping):
        return plain
    if "array" in plain:
        return get(plain["array"])
    if "mapping" in plain:
        return {key: _object(item, get) for key, item in plain["mapping"]}
    kind = KINDS.get(plain["is"])
    if kind is None:
        return Unknown(plain["is"])
    names = {f.name for f in fields(kind)}
    return kind(**{name: _object(value, get) for name, value in plain.items() if name in names})


def _row(row: TableRow) -> dict[str, Any]:
    """Its image and heatmap stand in the picture already."""
    named = ("sample_id", "label", "prediction", "confidence")
    return {name: getattr(row, name) for name in named}


def _table(rows: Sequence[Mapping[str, Any]], picture: Any) -> list[TableRow]:
    if not isinstance(picture, Grid):
        return []
    return [
        TableRow(
            **row,
            input=picture.images[index],
            heatmap=Overlay(picture.images[index], picture.maps[index], picture.scale, picture.signed),
        )
        for index, row in enumerate(rows)
    ]
