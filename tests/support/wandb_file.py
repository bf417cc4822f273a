"""Reads the records of an offline W&B run back."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768


def records(folder: Path) -> list[Any]:
    """The protobuf records of the only finished run below a folder, in order."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("*.wandb")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [wandb_internal_pb2.Record.FromString(chunk) for chunk in _chunks(path.read_bytes())]
        # `finish` returns before W&B's own process has written everything.
        if found and found[-1].HasField("exit"):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{path} has no end")


def history(found: list[Any]) -> list[dict[str, Any]]:
    """The logged rows as nested mappings."""
    rows = []
    for record in found:
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                *above, last = item.nested_key or [item.key]
                place = row
                for key in above:
                    place = place.setdefault(key, {})
                place[last] = json.loads(item.value_json)
            rows.append(row)
    return rows


def tables(found: list[Any]) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    """Each logged table, and the files that it names."""
    logged = []
    for record in found:
        if record.HasField("artifact"):
            files = {file.path: Path(file.local_path).read_bytes() for file in record.artifact.manifest.contents}
            (name,) = (path for path in files if path.endswith(".table.json"))
            logged.append((json.loads(files[name]), files))
    return logged


def _chunks(data: bytes) -> Iterator[bytes]:
    """LevelDB's log: blocks of records, each (checksum, length, kind: whole, first, middle or last)."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if _BLOCK - place % _BLOCK < 7:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""
