"""The manifest of a store: what it says, whose run it is, and how a folder is claimed for a run.

A folder is claimed by renaming a finished one, manifest inside, to its place: of two runs that start at once, one finds
it taken. The manifest holds the run's identity, so that a resumed run knows its own store from another's.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FORMAT = 2
MANIFEST = "manifest.json"
_TRIES = 100
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What is written about the run in ``folder``; of a folder without a manifest that nothing is known yet.

    Raises:
        ValueError: it was written by a newer version of this library, or by something else, or is damaged.
    """
    path = folder / MANIFEST
    try:
        if not path.exists():
            return {"format": FORMAT, "callbacks": {}}
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest of lightning_xai, or is damaged: {error}") from error
    check_format(path, manifest)
    callbacks = manifest.get("callbacks")
    if not isinstance(callbacks, dict) or not all(isinstance(entry, dict) for entry in callbacks.values()):
        raise ValueError(f"{path} was not written by lightning_xai: it names no callbacks")
    return dict(manifest)


def check_format(path: Path, content: Any) -> None:
    """Raises ValueError where ``content``, which ``path`` holds, has no format, or one of a newer version."""
    number = content.get("format") if isinstance(content, Mapping) else None
    if not isinstance(number, int):
        raise ValueError(f"{path} was not written by lightning_xai: it names no format")
    if number > FORMAT:
        raise ValueError(
            f"{path} has format {number}, this version of lightning_xai reads up to {FORMAT}: upgrade lightning_xai"
        )


def run_in(folder: Path) -> str | None:
    """The identity of the run whose store this is, in whatever format; None where that is not known."""
    try:
        run = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("run")
    except (OSError, ValueError, RecursionError, AttributeError):
        return None
    return run if isinstance(run, str) else None


def store_of(run: str | None, folder: Path) -> Path | None:
    """The store of ``run``: ``folder``, or the folder beside it to which a later run has moved it; None where gone."""
    if run is None or run_in(folder) == run:
        return folder
    with suppress(OSError):
        candidates = (path for path in folder.parent.iterdir() if path.name.startswith(f"{folder.name}-before-"))
        return next((path for path in candidates if run_in(path) == run), None)
    return None


def identify(folder: Path) -> str:
    """The identity of the run in ``folder``; stores of earlier versions are given one."""
    run = run_in(folder)
    if run is None:
        run = secrets.token_hex(8)
        text = json.dumps({**read_manifest(folder), "run": run}, indent=2, sort_keys=True)
        write_whole(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
    return run


def claim(folder: Path) -> tuple[str, Path | None]:
    """Make ``folder`` the store of a new run; returns the run's identity, and where what was there is kept now."""
    run, aside = secrets.token_hex(8), None
    for _ in range(_TRIES):
        if folder.is_file():
            raise NotADirectoryError(f"{folder} is a file, not a folder of ours: it stays")
        if _try_make(folder, run):
            return run, aside
        with suppress(FileNotFoundError):  # another run has moved it in this moment
            aside = move_aside(folder)
    raise OSError(f"{folder} is taken by other runs again and again")


def claim_version(root: Path) -> tuple[Path, str]:
    """Make the next free ``root/version_<number>`` the store of a new run; returns it and the run's identity."""
    run = secrets.token_hex(8)
    for _ in range(_TRIES):
        numbers = [path.name.removeprefix("version_") for path in root.glob("version_*")]
        number = max((int(text) for text in numbers if text.isdecimal()), default=-1) + 1
        folder = root / f"version_{number}"
        if _try_make(folder, run):
            return folder, run
    raise OSError(f"{root / 'version_*'} are taken by other runs again and again")


def _try_make(folder: Path, run: str) -> bool:
    """Whether ``folder`` was made, as a whole, for this run; not where something is there."""
    with suppress(OSError):
        folder.rmdir()  # an empty one is nobody's
    if os.path.lexists(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}-{run}.part")
    unfinished.mkdir()
    try:
        text = json.dumps({"format": FORMAT, "run": run, "callbacks": {}}, indent=2, sort_keys=True)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if error.errno in _TAKEN:
            return False
        raise
    return True


def move_aside(folder: Path) -> Path:
    """Rename a folder to the next free ``<name>-before-<number>``: nothing in it is lost, nothing mixes with it."""
    for number in range(1, 2**31):
        aside = folder.with_name(f"{folder.name}-before-{number}")
        if os.path.lexists(aside):
            continue
        try:
            return folder.rename(aside)
        except OSError:
            if not os.path.lexists(aside):  # else another run took this number in between
                raise
    raise OSError(f"no name is free to move {folder} to")


def write_whole(path: Path, writer: Callable[[Path], Any]) -> None:
    """Write a file under another name, then rename it: it is there whole, or not at all.

    Raises:
        OSError: it could not be written; names the folder, so that the same cause reads the same for every file.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer(unfinished)
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    except RuntimeError as error:  # of torch's writer, whose message counts bytes
        raise OSError(f"a file could not be written whole in {path.parent}") from error
